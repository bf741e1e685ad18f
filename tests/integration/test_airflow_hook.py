"""The connection type ``fhir`` against the sandbox EHR."""

import json
import os
import subprocess

import pytest
from stack import BIN

from cohortflow.airflow.hooks import FhirHook
from cohortflow.sandbox import generate_client_key

pytestmark = pytest.mark.integration


def test_working_connection_names_the_server(folder_site, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_FHIR_DEFAULT", folder_site.environ["AIRFLOW_CONN_FHIR_DEFAULT"])
    works, message = FhirHook().test_connection()
    assert works, message
    assert "FHIR 4.0.1" in message


def test_wrong_key_is_explained_without_showing_it(folder_site, monkeypatch):
    private, _ = generate_client_key()
    connection = json.loads(folder_site.environ["AIRFLOW_CONN_FHIR_DEFAULT"])
    connection["extra"] = {}
    connection["password"] = json.dumps(private)
    monkeypatch.setenv("AIRFLOW_CONN_FHIR_DEFAULT", json.dumps(connection))
    works, message = FhirHook().test_connection()
    assert not works
    assert "->" in message
    assert private["d"] not in message


def test_missing_connection_is_explained(monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_FHIR_DEFAULT", raising=False)
    works, message = FhirHook("nowhere").test_connection()
    assert not works
    assert "AIRFLOW_CONN_NOWHERE" in message


def test_airflow_lists_the_connection_type(tmp_path):
    environ = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    command = [str(BIN / "airflow"), "providers", "hooks", "--output", "json"]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    listed = json.loads(result.stdout.strip().splitlines()[-1])
    assert any(hook["connection_type"] == "fhir" for hook in listed)
