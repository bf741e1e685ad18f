"""What a newcomer runs first."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from stack import PROJECT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DEMO = [sys.executable, str(PROJECT / "tools" / "demo.py"), "--patients", "40"]


def start_demo(home, *arguments):
    return subprocess.Popen(
        [*DEMO, "--home", str(home), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )


def processes_of(home):
    """Return the running processes whose command or environment names the demo's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            named = any(str(home) in part for part in process.cmdline())
            named = named or str(home) in process.environ().get("AIRFLOW_HOME", "")
        except psutil.Error:
            continue
        if named and process.pid != os.getpid():
            found.append(process)
    return found


def test_demo_publishes_on_s3_and_repeats_in_a_folder(tmp_path):
    home = tmp_path / "home"
    process = start_demo(home)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    for title in ("Attrition", "Mapping coverage", "Validation", "Time", "HbA1c of the cohort"):
        assert title in output
    assert "s3://lake/dev/datasets/diabetes_nightly/patient" in output
    assert processes_of(home) == []
    process = start_demo(home, "--lake", str(tmp_path / "lake"))
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert (tmp_path / "lake" / "dev" / "datasets" / "diabetes_nightly" / "patient" / "_delta_log").is_dir()
    assert processes_of(home) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_demo_leaves_no_process(tmp_path, number):
    home = tmp_path / "home"
    process = start_demo(home)
    deadline = time.monotonic() + 120
    while len(processes_of(home)) < 3:  # the demo itself, S3, the sandbox EHR
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while left := processes_of(home):
        assert time.monotonic() < deadline, [item.name() for item in left]
        time.sleep(0.1)
    assert process.returncode != 0


SLOW_CHILD = """
import ctypes, pathlib, sys, time
from stack import processes

real = ctypes.CDLL
processes.ctypes.CDLL = lambda name: time.sleep(1) or real(name)
with processes.ProcessGroup(pathlib.Path(sys.argv[1])) as group:
    group.start("child", ["sleep", "600"])
"""


def test_child_ends_where_its_parent_was_killed_before_the_child_was_ready(tmp_path):
    environ = {**os.environ, "PYTHONPATH": str(PROJECT / "tools")}
    parent = psutil.Popen([sys.executable, "-c", SLOW_CHILD, str(tmp_path)], env=environ)
    deadline = time.monotonic() + 30
    while not (children := parent.children()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    gone, left = psutil.wait_procs(children, timeout=30)
    for process in left:
        process.kill()
    assert gone == children
