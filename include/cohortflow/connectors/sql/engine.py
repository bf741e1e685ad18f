"""Databases that can be queried, and what their errors mean."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, OperationalError

from cohortflow.errors import (
    AuthorizationError,
    CatalogError,
    ConfigurationError,
    SourceError,
    TransientSourceError,
)
from cohortflow.model import Connection

__all__ = ["open_engine", "translate_error"]

_DRIVERS = {"postgres": "postgresql+psycopg", "mssql": "mssql+pymssql"}
_REFUSED = ("28", "42501")  # SQLSTATE: invalid authorization, insufficient privilege


def open_engine(connection: Connection) -> sa.Engine:
    """Connect to a database without Airflow, read-only where the database can be told so.

    Args:
        connection: Of type ``postgres`` or ``mssql``; the extra ``connect_args`` goes to the driver.

    Raises:
        ConfigurationError: The type is another, or its driver is not installed.
    """
    drivername = _DRIVERS.get(connection.conn_type)
    if drivername is None:
        raise ConfigurationError(
            f"The connection's type '{connection.conn_type}' is no database that can be queried.",
            place=f"connection '{connection.conn_id}'",
            remedy=f"Use one of {', '.join(sorted(_DRIVERS))}.",
        )
    url = sa.URL.create(
        drivername,
        username=connection.login or None,
        password=connection.password or None,
        host=connection.host or None,
        port=connection.port,
        database=connection.schema or None,
    )
    arguments = dict(connection.extra.get("connect_args") or {})
    if connection.conn_type == "postgres":
        arguments.setdefault("options", "-c default_transaction_read_only=on")
    try:
        return sa.create_engine(url, connect_args=arguments, hide_parameters=True, pool_pre_ping=True)
    except (ModuleNotFoundError, NoSuchModuleError):
        raise ConfigurationError(
            f"The driver of '{connection.conn_type}' is not installed.",
            place=f"connection '{connection.conn_id}'",
            remedy="Install it beside Cohortflow: pip install pymssql.",
        ) from None


def translate_error(error: DBAPIError, *, host: str, place: str) -> SourceError | CatalogError:
    """Return what a driver's error means; its own message may quote values and is left out.

    Args:
        error: The error.
        host: The database's host, for messages.
        place: The query, for messages.
    """
    code = str(getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or "")
    shown = f" (SQLSTATE {code})" if code else ""
    if code.startswith(_REFUSED):
        return AuthorizationError(
            f"The database refused{shown}.",
            place=host,
            remedy="Check login and password of the connection and the account's rights to these tables.",
        )
    if isinstance(error, OperationalError) or error.connection_invalidated:
        return TransientSourceError(
            f"The database is unreachable or busy{shown}.",
            place=host,
            remedy="Check host, port and login of the connection; the extraction goes on where it was.",
        )
    return CatalogError(
        f"The database does not accept the query{shown}.",
        place=place,
        remedy="Try the SQL in the database's own client; it must have no ORDER BY, on SQL Server no WITH.",
    )
