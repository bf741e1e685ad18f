"""Where the registry is."""

import json
from pathlib import Path

import pytest

from cohortflow.errors import ConfigurationError
from cohortflow.model import EnvDeployment
from cohortflow.registry import locate_registry, state_folder

NOWHERE = EnvDeployment({})


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"COHORTFLOW_STATE": "/s", "AIRFLOW_HOME": "/a", "XDG_STATE_HOME": "/x"}, "/s"),
        ({"AIRFLOW_HOME": "/a", "XDG_STATE_HOME": "/x"}, "/a/cohortflow"),
        ({"XDG_STATE_HOME": "/x"}, "/x/cohortflow"),
        ({}, str(Path("~/.local/state/cohortflow").expanduser())),
    ],
)
def test_the_file_is_in_the_first_folder_that_is_set(environ, folder):
    assert str(state_folder(environ)) == folder
    assert locate_registry(NOWHERE, environ).database == f"{folder}/registry.db"


def connect(**fields):
    return EnvDeployment({"AIRFLOW_CONN_COHORTFLOW_REGISTRY": json.dumps(fields)})


def test_a_connection_names_a_database_that_all_machines_share():
    url = locate_registry(
        connect(
            conn_type="postgres",
            host="db",
            port=5433,
            schema="registry",
            login="user",
            password="p@ss/word",
            extra={"sslmode": "verify-full", "cursor": "dictcursor"},
        )
    )
    assert url.drivername == "postgresql+psycopg"
    assert (url.host, url.port, url.database, url.username, url.password) == (
        "db",
        5433,
        "registry",
        "user",
        "p@ss/word",
    )
    assert dict(url.query) == {"sslmode": "verify-full"}
    assert "p@ss" not in repr(url)


def test_a_connection_may_name_a_file(tmp_path):
    url = locate_registry(connect(conn_type="sqlite", host=f"{tmp_path}/r.db"))
    assert url.database == f"{tmp_path}/r.db"


@pytest.mark.parametrize("fields", [{"conn_type": "mysql", "host": "db"}, {"conn_type": "sqlite"}])
def test_other_kinds_are_refused(fields):
    with pytest.raises(ConfigurationError, match="cannot hold the registry"):
        locate_registry(connect(**fields))
