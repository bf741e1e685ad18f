"""Airflow's connections and variables as a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook, Variable
from airflow.sdk.exceptions import AirflowNotFoundException

from cohortflow.errors import ConnectionNotFoundError
from cohortflow.model import Connection

if TYPE_CHECKING:
    from airflow.sdk import Connection as AirflowConnection

__all__ = ["AirflowDeployment", "FixedDeployment", "translate_connection"]


@dataclass(frozen=True, slots=True)
class AirflowDeployment:
    """Looks connections and variables up where Airflow does: secrets backends, environment, database."""

    def connection(self, conn_id: str) -> Connection:
        """Return a connection.

        Raises:
            ConnectionNotFoundError: Airflow has none of this id.
        """
        try:
            return translate_connection(BaseHook.get_connection(conn_id))
        except AirflowNotFoundException:
            raise _missing(conn_id) from None

    def variable(self, name: str) -> str | None:
        """Return a variable, or ``None`` where it is not set."""
        value = Variable.get(name, default=None)
        return None if value is None else str(value)


@dataclass(frozen=True, slots=True)
class FixedDeployment:
    """Connections that were looked up before, for code that may not wait for Airflow."""

    connections: Mapping[str, Connection] = field(repr=False)

    def connection(self, conn_id: str) -> Connection:
        """Return a connection.

        Raises:
            ConnectionNotFoundError: It was not looked up.
        """
        if conn_id not in self.connections:
            raise _missing(conn_id)
        return self.connections[conn_id]

    def variable(self, name: str) -> str | None:  # noqa: ARG002  # the protocol's
        """Return ``None``: there are no variables."""
        return None


def translate_connection(connection: AirflowConnection) -> Connection:
    """Return our form of an Airflow connection."""
    return Connection(
        conn_id=connection.conn_id,
        conn_type=connection.conn_type or "",
        host=connection.host or "",
        port=connection.port,
        schema=connection.schema or "",
        login=connection.login or "",
        password=connection.password or "",
        extra=connection.extra_dejson,
    )


def _missing(conn_id: str) -> ConnectionNotFoundError:
    return ConnectionNotFoundError(
        f"Airflow has no connection '{conn_id}'.",
        remedy=f"Add it under Admin > Connections, or set AIRFLOW_CONN_{conn_id.upper()}.",
    )
