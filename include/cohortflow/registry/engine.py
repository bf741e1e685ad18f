"""Engines: how the registry's database is talked to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from cohortflow.errors import RegistryError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

__all__ = ["make_engine", "registry_errors"]

_BUSY_SECONDS = 30
_CONNECT_SECONDS = 10


def make_engine(url: URL) -> Engine:
    """Return an engine without a pool: the registry is asked seldom, from processes that fork.

    A file is made for its owner alone, in WAL mode, so that readers and one writer do not wait for
    each other. Every transaction on it takes the write lock when it begins: one that began by reading
    could otherwise not go on to write once another has written.

    Raises:
        RegistryError: The file's folder cannot be made.
    """
    if url.get_backend_name() != "sqlite":
        timeout = {"connect_timeout": _CONNECT_SECONDS, "application_name": "cohortflow"}
        return create_engine(url, poolclass=NullPool, connect_args=timeout)
    path = Path(str(url.database))
    with registry_errors(str(path)):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite's journals copy the mode of the file.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:  # noqa: ANN401  # the driver's
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextlib.contextmanager
def registry_errors(place: str) -> Iterator[None]:
    """Turn errors of the database into ours; the originals quote statements with their parameters.

    Raises:
        RegistryError: The database is unreachable, refuses the credentials or failed.
    """
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        raise RegistryError(
            f"The registry cannot be used ({type(cause).__name__}).",
            place=place,
            remedy="Check that its database can be reached and written, then run it again.",
        ) from None
