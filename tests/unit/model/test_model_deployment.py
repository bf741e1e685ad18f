"""Connections from the environment, in both forms that Airflow takes."""

import json
import traceback

import pytest

from cohortflow.errors import ConfigurationError, ConnectionNotFoundError
from cohortflow.model import Connection, EnvDeployment

SECRET = "s3cr3t-word"


def connection(text):
    return EnvDeployment({"AIRFLOW_CONN_EHR": text}).connection("ehr")


def test_the_json_form():
    found = connection(
        json.dumps(
            {
                "conn_type": "fhir",
                "host": "https://ehr.example.org/fhir",
                "port": "8443",
                "login": "me",
                "password": SECRET,
                "extra": {"group": "all"},
            }
        )
    )
    assert found == Connection(
        "ehr",
        "fhir",
        host="https://ehr.example.org/fhir",
        port=8443,
        login="me",
        password=SECRET,
        extra={"group": "all"},
    )


def test_extra_may_be_a_text_of_json():
    assert connection('{"conn_type": "fhir", "extra": "{\\"a\\": 1}"}').extra == {"a": 1}


def test_the_uri_form():
    found = connection(
        f"fhir://me:{SECRET}%2F1@ehr.example.org:8443/fhir?group=all&__extra__=%7B%22n%22%3A1%7D"
    )
    assert (found.conn_type, found.host, found.port, found.schema) == (
        "fhir",
        "ehr.example.org",
        8443,
        "fhir",
    )
    assert found.password == f"{SECRET}/1"
    assert found.extra == {"group": "all", "n": 1}


def test_it_agrees_with_airflow():
    from airflow.sdk.definitions.connection import Connection as AirflowConnection

    uri = f"aws://me:{SECRET}%2F%40@/?endpoint_url=http%3A%2F%2F127.0.0.1%3A8333&region_name=us-east-1"
    theirs, ours = AirflowConnection(conn_id="ehr", uri=uri), connection(uri)
    assert ours.login == theirs.login
    assert ours.password == theirs.password
    assert ours.conn_type == theirs.conn_type
    assert ours.extra == theirs.extra_dejson


def test_a_missing_one_is_named_with_the_variable_to_set():
    with pytest.raises(ConnectionNotFoundError, match="No connection 'ehr'") as caught:
        EnvDeployment({}).connection("ehr")
    assert "AIRFLOW_CONN_EHR" in caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        f'{{"password": "{SECRET}"',
        f'{{"password": "{SECRET}", "extra": "{{"}}',
        f'{{"password": "{SECRET}", "port": "x"}}',
        f"fhir://me:{SECRET}@host:port/",
        f"fhir://me:{SECRET}@host/?__extra__=%7B",
    ],
)
def test_a_malformed_one_is_refused_without_its_text(text):
    with pytest.raises(ConfigurationError, match="Connection 'ehr' is") as caught:
        connection(text)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_secrets_are_not_in_reprs():
    deployment = EnvDeployment(
        {"AIRFLOW_CONN_EHR": f'{{"password": "{SECRET}", "extra": {{"k": "{SECRET}"}}}}'}
    )
    assert SECRET not in repr(deployment)
    assert SECRET not in repr(deployment.connection("ehr"))


def test_variables():
    deployment = EnvDeployment({"AIRFLOW_VAR_COHORTFLOW_LAKE": "s3://lake"})
    assert deployment.variable("cohortflow_lake") == "s3://lake"
    assert deployment.variable("other") is None
