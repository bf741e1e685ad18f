"""Where the registry is: a file of this machine, or a database that all machines share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL

from cohortflow.errors import ConfigurationError, ConnectionNotFoundError

if TYPE_CHECKING:
    from cohortflow.model import Connection, Deployment

__all__ = ["REGISTRY_CONNECTION", "STATE_VARIABLE", "locate_registry", "state_folder"]

REGISTRY_CONNECTION = "cohortflow_registry"
"""Connection of a PostgreSQL database (``conn_type: postgres``), or of a file (``sqlite``)."""

STATE_VARIABLE = "COHORTFLOW_STATE"
"""Environment variable with the folder that holds the file of the registry."""

_FILE = "registry.db"


def state_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of this deployment's state.

    That is ``COHORTFLOW_STATE``, else ``cohortflow`` in ``AIRFLOW_HOME``, else ``cohortflow`` in
    ``XDG_STATE_HOME`` (``~/.local/state``).
    """
    environ = os.environ if environ is None else environ
    if folder := environ.get(STATE_VARIABLE):
        return Path(folder).expanduser().absolute()
    if home := environ.get("AIRFLOW_HOME"):
        return Path(home).expanduser().absolute() / "cohortflow"
    base = environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().absolute() / "cohortflow"


def locate_registry(deployment: Deployment, environ: Mapping[str, str] | None = None) -> URL:
    """Return the address of the registry's database.

    Raises:
        ConfigurationError: The connection is of a kind that cannot hold the registry.
    """
    try:
        connection = deployment.connection(REGISTRY_CONNECTION)
    except ConnectionNotFoundError:
        return _file(state_folder(environ) / _FILE)
    if connection.conn_type in ("postgres", "postgresql"):
        return _postgres(connection)
    if connection.conn_type == "sqlite" and connection.host:
        return _file(Path(connection.host).expanduser().absolute())
    raise ConfigurationError(
        "The connection cannot hold the registry.",
        place=f"connection '{REGISTRY_CONNECTION}'",
        remedy="Use the type 'postgres' with host, schema (the database), login and password; "
        "or 'sqlite' with a path of this machine as host.",
    )


def _file(path: Path) -> URL:
    return URL.create("sqlite", database=str(path))


def _postgres(connection: Connection) -> URL:
    extra = connection.extra
    # libpq's own names, as Airflow's PostgreSQL hook passes them on.
    names = ("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "options", "target_session_attrs")
    return URL.create(
        "postgresql+psycopg",
        username=connection.login or None,
        password=connection.password or None,
        host=connection.host or None,
        port=connection.port,
        database=connection.schema or None,
        query={name: str(extra[name]) for name in names if extra.get(name)},
    )
