"""The connection types in Airflow: their forms, and their test button against the sandbox EHR."""

import json
import os
import subprocess
from importlib import resources

import jsonschema
import pytest
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
from airflow.models.connection import Connection
from stack import BIN

from cohortflow.airflow.hooks import CernerHook, EpicHook, FhirHook
from cohortflow.connectors import settings
from cohortflow.connectors.settings import CONNECTION_TYPES
from cohortflow.provider import get_provider_info
from cohortflow.sandbox import SandboxConfig, generate_client_key, running_sandbox

pytestmark = pytest.mark.integration

HOOKS = {"fhir": FhirHook, "epic": EpicHook, "cerner": CernerHook}
TYPES = {item["connection-type"]: item for item in get_provider_info()["connection-types"]}


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


@pytest.mark.parametrize("conn_type", HOOKS)
def test_a_hook_belongs_to_each_connection_type(conn_type):
    hook = HOOKS[conn_type]
    assert TYPES[conn_type]["hook-class-name"] == f"{hook.__module__}.{hook.__name__}"
    assert TYPES[conn_type]["hook-name"] == hook.hook_name
    assert hook.conn_type == conn_type
    assert hook().fhir_conn_id == f"{conn_type}_default"


def test_connection_types_are_those_that_connections_may_have():
    assert set(TYPES) == set(HOOKS) == set(CONNECTION_TYPES)
    for conn_type, profiles in CONNECTION_TYPES.items():
        field = TYPES[conn_type]["conn-fields"].get("profile")
        assert tuple(field["schema"]["enum"] if field else (conn_type,)) == profiles


def test_airflow_understands_the_description():
    text = resources.files("airflow").joinpath("provider.yaml.schema.json").read_text(encoding="utf-8")
    jsonschema.validate(
        get_provider_info()["connection-types"], json.loads(text)["properties"]["connection-types"]
    )


@pytest.fixture(scope="module")
def forms():
    """What the UI builds its forms from, as its API gives it."""
    return {form.connection_type: form for form in HookMetaService.hook_meta_data()}


@pytest.mark.parametrize("conn_type", HOOKS)
def test_the_ui_shows_a_form_for_each_type(forms, conn_type):
    form = forms[conn_type]
    assert form.hook_name == HOOKS[conn_type].hook_name
    assert form.standard_fields.host.title == "FHIR base URL"
    assert form.standard_fields.login.title == "Client id"
    assert form.standard_fields.password.title == "Private key (PEM, JWK or JWK set), or client secret"
    assert form.standard_fields.port.hidden
    assert set(form.extra_fields) <= settings._FIELDS
    # A form writes the values of all its fields, so one with a default would decide for its user.
    assert {name for name, field in form.extra_fields.items() if field["value"] is not None} == set()
    assert all(field["schema"]["title"] and field["description"] for field in form.extra_fields.values())


@pytest.mark.parametrize(
    ("conn_type", "persona"), [("fhir", "generic"), ("epic", "epic"), ("cerner", "cerner")]
)
def test_the_test_button_works_with_what_a_form_writes(patients, monkeypatch, conn_type, persona):
    private, public = generate_client_key()
    with running_sandbox(SandboxConfig(data=patients, persona=persona)) as sandbox:
        sandbox.register("app", public)
        extra = dict.fromkeys(TYPES[conn_type]["conn-fields"])
        extra["scopes"] = "system/Patient.read"
        connection = Connection(
            conn_id="tried",
            conn_type=conn_type,
            host=sandbox.base_url,
            login="app",
            password=json.dumps(private),
            extra=json.dumps(extra),
        )
        # What Airflow's API does with a form that is not saved yet.
        monkeypatch.setenv("AIRFLOW_CONN_TRIED", connection.get_uri())
        works, message = connection.test_connection()
    assert works, message
    assert "FHIR 4.0.1" in message


def test_the_test_button_says_what_is_wrong_with_a_form(monkeypatch):
    connection = Connection(
        conn_id="tried", conn_type="cerner", host="https://ehr.example.org/r4", login="app"
    )
    monkeypatch.setenv("AIRFLOW_CONN_TRIED", connection.get_uri())
    works, message = connection.test_connection()
    assert not works
    assert "password" in message


def test_an_address_that_is_no_fhir_server_is_explained(patients, monkeypatch):
    with running_sandbox(SandboxConfig(data=patients, open=True)) as sandbox:
        connection = {"conn_type": "fhir", "host": sandbox.base_url.removesuffix("/fhir")}
        monkeypatch.setenv("AIRFLOW_CONN_FHIR_DEFAULT", json.dumps(connection))
        works, message = FhirHook().test_connection()
    assert not works
    assert "base URL" in message


def test_airflow_lists_the_connection_types(tmp_path):
    environ = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    command = [str(BIN / "airflow"), "providers", "hooks", "--output", "json"]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    listed = json.loads(result.stdout.strip().splitlines()[-1])
    assert set(HOOKS) <= {hook["connection_type"] for hook in listed}
