"""Reporting databases, reached as their providers' hooks reach them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException

from cohortflow.errors import ConfigurationError, ConnectionNotFoundError

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["open_hook_engine"]


def open_hook_engine(conn_id: str) -> sa.Engine:
    """Return the engine that a connection's hook makes; PostgreSQL is told that nothing may be written.

    Raises:
        ConnectionNotFoundError: Airflow has no such connection.
        ConfigurationError: Its hook speaks no SQL, or is not installed.
    """
    hook: Any = None
    try:
        hook = BaseHook.get_hook(conn_id)
    except AirflowNotFoundException:
        raise ConnectionNotFoundError(
            f"Airflow has no connection '{conn_id}'.", remedy="Add it in Airflow's UI or secrets backend."
        ) from None
    except (AirflowException, ImportError, AttributeError):
        pass  # types without a hook, or without its provider
    if not hasattr(hook, "get_sqlalchemy_engine"):
        raise ConfigurationError(
            "The connection cannot be queried.",
            place=f"connection '{conn_id}'",
            remedy="Give it the type of a database, such as postgres or mssql, and install its provider.",
        )
    arguments = {}
    if getattr(hook, "conn_type", "") == "postgres":
        arguments = {"connect_args": {"options": "-c default_transaction_read_only=on"}}
    engine: sa.Engine = hook.get_sqlalchemy_engine({"hide_parameters": True, **arguments})
    return engine
