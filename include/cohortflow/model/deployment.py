"""Connections and variables of a deployment, by Airflow's names, without Airflow."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from cohortflow.errors import ConfigurationError, ConnectionNotFoundError

__all__ = ["Connection", "Deployment", "EnvDeployment"]


@dataclass(frozen=True, slots=True)
class Connection:
    """An Airflow connection; ``repr`` hides the password and the extras."""

    conn_id: str
    conn_type: str
    host: str = ""
    port: int | None = None
    schema: str = ""
    login: str = ""
    password: str = field(default="", repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Deployment(Protocol):
    """Where a study finds its connections and variables."""

    def connection(self, conn_id: str) -> Connection:
        """Return a connection.

        Raises:
            ConnectionNotFoundError: No connection has this id.
        """
        ...

    def variable(self, name: str) -> str | None:
        """Return a variable, or ``None`` where it is not set."""
        ...


@dataclass(frozen=True, slots=True)
class EnvDeployment:
    """Reads ``AIRFLOW_CONN_<ID>`` (JSON or URI form) and ``AIRFLOW_VAR_<NAME>``, as Airflow does."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def connection(self, conn_id: str) -> Connection:
        """Return the connection of ``AIRFLOW_CONN_<CONN_ID>``.

        Raises:
            ConnectionNotFoundError: The variable is not set.
            ConfigurationError: It is neither JSON nor a URI.
        """
        name = f"AIRFLOW_CONN_{conn_id.upper()}"
        text = self.environ.get(name)
        if not text:
            raise ConnectionNotFoundError(
                f"No connection '{conn_id}'.",
                remedy=f"Set {name}, or add the connection to Airflow.",
            )
        return _parse_json(conn_id, text) if text.startswith("{") else _parse_uri(conn_id, text)

    def variable(self, name: str) -> str | None:
        """Return ``AIRFLOW_VAR_<NAME>``."""
        return self.environ.get(f"AIRFLOW_VAR_{name.upper()}")


def _parse_json(conn_id: str, text: str) -> Connection:
    try:
        value = json.loads(text)
        extra = value.get("extra") or {}
        if isinstance(extra, str):
            extra = json.loads(extra)
        port = value.get("port")
        return Connection(
            conn_id=conn_id,
            conn_type=value.get("conn_type") or "",
            host=value.get("host") or "",
            port=int(port) if port is not None else None,
            schema=value.get("schema") or "",
            login=value.get("login") or "",
            password=value.get("password") or "",
            extra=extra,
        )
    except (ValueError, AttributeError):
        # "from None": the text may hold a password.
        raise ConfigurationError(
            f"Connection '{conn_id}' is not valid JSON.",
            remedy="Write it as Airflow's JSON form: conn_type, host, login, password, extra.",
        ) from None


def _parse_uri(conn_id: str, text: str) -> Connection:
    try:
        parts = urlsplit(text)
        query = dict(parse_qsl(parts.query))
        extra = json.loads(query.pop("__extra__", "{}"))
        return Connection(
            conn_id=conn_id,
            conn_type=parts.scheme.replace("-", "_"),
            host=unquote(parts.hostname or ""),
            port=parts.port,
            schema=unquote(parts.path.lstrip("/")),
            login=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            extra={**query, **extra},
        )
    except ValueError:
        raise ConfigurationError(
            f"Connection '{conn_id}' is neither JSON nor a URI.",
            remedy="See Airflow's manual on connections in environment variables.",
        ) from None
