"""``cohortflow source probe`` against servers of several kinds."""

import json

import pytest

from cohortflow.cli.main import run
from cohortflow.sandbox import SandboxConfig, generate_client_key, running_sandbox

pytestmark = pytest.mark.integration


@pytest.fixture
def connect(monkeypatch, tmp_path):
    def set_up(sandbox, profile="generic"):
        private, public = generate_client_key()
        sandbox.register("app", public)
        key = tmp_path / "key.jwk"
        key.write_text(json.dumps(private))
        extra = {"private_key_file": str(key), "profile": profile, "scopes": "system/Patient.read"}
        connection = {"conn_type": "fhir", "host": sandbox.base_url, "login": "app", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_FHIR_DEFAULT", json.dumps(connection))

    return set_up


def test_a_server_is_shown_as_a_table(patients, connect, capsys):
    with running_sandbox(SandboxConfig(data=patients)) as sandbox:
        connect(sandbox)
        assert run(["source", "probe", "fhir_default", "--study", "diabetes_nightly"]) == 0
    shown = capsys.readouterr().out
    assert "4.0.1" in shown
    assert "private_key_jwt" in shown
    assert "bulk: The server states group export." in " ".join(shown.split())
    assert "would lack" not in shown


def test_a_server_is_described_for_machines(patients, connect, capsys):
    with running_sandbox(SandboxConfig(data=patients, persona="epic")) as sandbox:
        connect(sandbox, "epic")
        assert run(["source", "probe", "fhir_default", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["software"] == "Epic"
    assert report["export_levels"] == ["group"]
    assert report["advice"]["mode"] == "bulk"


def test_wrong_credentials_do_not_hide_the_statement(patients, connect, capsys):
    with running_sandbox(SandboxConfig(data=patients)) as sandbox:
        connect(sandbox)
        sandbox.register("app", generate_client_key()[1])
        assert run(["source", "probe", "fhir_default", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert any(fault.startswith("credentials: ") for fault in report["faults"])
    assert report["types"]


def test_another_connection_than_the_studys_is_refused(patients, connect, monkeypatch, capsys):
    with running_sandbox(SandboxConfig(data=patients)) as sandbox:
        connect(sandbox)
        assert run(["source", "probe", "other", "--study", "diabetes_nightly"]) == 2
    assert "fhir_default" in capsys.readouterr().err
