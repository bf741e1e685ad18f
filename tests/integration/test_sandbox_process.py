"""The sandbox as a process of its own: announces itself, ends on a signal, cleans up."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sandbox_records import HTTP, KICK_OFF, write_hospital

from cohortflow.errors import ConfigurationError, InputError
from cohortflow.sandbox import SandboxConfig, running_sandbox

pytestmark = pytest.mark.integration

SERVE = """
import sys
from pathlib import Path
from cohortflow.sandbox import SandboxConfig, serve
serve(SandboxConfig(data=Path(sys.argv[1]), open=True), ready_file=Path(sys.argv[2]))
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_it_announces_itself_and_ends_cleanly_on_a_signal(tmp_path, end):
    data, ready, scratch = write_hospital(tmp_path / "data"), tmp_path / "ready", tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(data), str(ready)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"},
    )
    try:
        deadline = time.monotonic() + 60
        while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        base_url = ready.read_text().strip()
        assert HTTP.get(f"{base_url}/Patient/p1").json()["id"] == "p1"
        assert list(scratch.iterdir())
        process.send_signal(end)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert output.strip() == base_url
    assert process.returncode == 0
    assert list(scratch.iterdir()) == []


def test_a_taken_port_is_a_configuration_error(tmp_path):
    data = write_hospital(tmp_path / "data")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigurationError, match="cannot listen"),
            running_sandbox(SandboxConfig(data=data, port=port)),
        ):
            pass


def test_bad_data_stops_the_start_and_leaves_nothing(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    data = write_hospital(tmp_path / "data")
    (data / "Condition.ndjson").write_text(json.dumps({"resourceType": "Patient", "id": "x"}) + "\n")
    with pytest.raises(InputError), running_sandbox(SandboxConfig(data=data)):
        pass
    assert list(scratch.iterdir()) == []


def serve_by_cli(tmp_path, *options):
    data = tmp_path / "data"
    if not data.exists():
        write_hospital(data)
    command = [str(Path(sys.executable).parent / "cohortflow"), "sandbox", "serve", "--data", str(data)]
    return subprocess.Popen(
        [*command, "--port", "0", "--open", "--ready-file", str(tmp_path / "ready"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_command_plays_a_persona(tmp_path):
    process = serve_by_cli(tmp_path, "--persona", "epic", "--kickoff-window", "60", "--bulk-version", "4.0")
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "ready").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        base_url = (tmp_path / "ready").read_text().strip()
        headers = KICK_OFF | {"Epic-Client-ID": "me", "Content-Type": "application/fhir+json"}
        body = json.dumps({"resourceType": "Parameters"})
        url = f"{base_url}/Group/g1/$export"
        statuses = [HTTP.post(url, content=body, headers=headers).status_code for _ in range(2)]
        assert statuses == [202, 429]
        assert HTTP.get(url, headers=headers).status_code == 405
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize("options", [("--persona", "nobody"), ("--bulk-version", "5.0")])
def test_the_command_refuses_what_it_cannot_play(tmp_path, options):
    process = serve_by_cli(tmp_path, *options)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Choose one of" in output
