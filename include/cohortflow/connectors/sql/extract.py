"""Rows of a reporting database (Clarity, Caboodle, Millennium replicas) to Parquet files, page by page.

Pages are cut by the query's key (`WHERE key > last ORDER BY key`), so that none costs more than the one
before, no transaction stays open while files are written, and a killed worker's successor goes on after the
last page that was written. Each page is one file; the state beside the files names them and the last key.
Files are named after their content: runs that extract the same query at once, with pages of whatever size,
never replace a file that the other's state names.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

import pyarrow.parquet as pq
import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cohortflow.connectors.sql.pages import Key, QueryPages
from cohortflow.errors import SourceError
from cohortflow.model import DataInterval, NoProgress, Progress
from cohortflow.model.sql_query import SqlQuery

__all__ = ["FileStore", "SqlPart", "SqlState", "extract_query", "read_sql_state"]

_log = logging.getLogger(__name__)

PAGE_ROWS = 100_000
_STATE = "_state.json"


class FileStore(Protocol):
    """Where files are kept: a zone of the lake."""

    def read(self, path: str) -> bytes | None:
        """Return a file's content, or ``None`` where there is none."""
        ...

    def write(self, path: str, content: bytes) -> None:
        """Replace a file in one step."""
        ...


class SqlPart(BaseModel):
    """One written page."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rows: int
    sha256: str


class SqlState(BaseModel):
    """How far the extraction of one query is.

    Attributes:
        query_digest: ``SqlQuery.digest``.
        started_at: The database's clock when it began, UTC.
        parts: Pages that are written.
        last_key: Key of the last row; part of the record, so it stays in the raw zone.
        complete: Whether all rows are there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    version: int = 1
    query_digest: str
    started_at: datetime
    parts: tuple[SqlPart, ...] = ()
    last_key: Key = Field(default=(), repr=False)
    complete: bool = False

    @property
    def rows(self) -> int:
        """Rows so far."""
        return sum(part.rows for part in self.parts)

    @property
    def digest(self) -> str:
        """SHA-256 over the parts: equal rows in equal pages have equal ones."""
        return hashlib.sha256("".join(part.sha256 for part in self.parts).encode()).hexdigest()


def read_sql_state(store: FileStore, prefix: str) -> SqlState | None:
    """Read the state of an extraction; ``None`` where there is none.

    Raises:
        SourceError: It is damaged.
    """
    content = store.read(f"{prefix}/{_STATE}")
    if content is None:
        return None
    try:
        return SqlState.model_validate_json(content)
    except ValidationError:
        raise SourceError(
            "The state of the extraction cannot be read: it is damaged or from another version.",
            place=prefix,
            remedy="Delete this folder of the raw zone; the next run extracts anew.",
        ) from None


def extract_query(
    engine: sa.Engine,
    query: SqlQuery,
    interval: DataInterval,
    store: FileStore,
    prefix: str,
    *,
    page_rows: int = PAGE_ROWS,
    progress: Progress | None = None,
) -> SqlState:
    """Write all rows of a query to Parquet files below ``prefix``, or go on with what an attempt left.

    An extraction that was complete before the interval ended lacks what came after, and begins anew.
    Rows that are added or removed meanwhile may or may not be in the result; rows that stay are, once.

    Args:
        engine: The database.
        query: What to read.
        interval: Values of ``:interval_start`` and ``:interval_end``.
        store: The raw zone.
        prefix: A folder of this query and interval.
        page_rows: Rows of a page, which are in memory at once.
        progress: Told of the rows so far.

    Raises:
        CatalogError: The database does not understand the query, or a column is not of its declared type.
        MalformedDataError: The key is null or not unique.
        AuthorizationError: The database refused the credentials, or the right to read.
        TransientSourceError: It is unreachable.
    """
    progress = progress or NoProgress()
    pages = QueryPages(engine, query, interval)
    state = _read_current(store, prefix, query, interval)
    if state is not None and state.complete:
        return state
    if state is None:
        pages.check_key()
        state = SqlState(query_digest=query.digest, started_at=pages.read_clock())
    while not state.complete:
        rows, more = pages.read(state.last_key, page_rows)
        if rows or not state.parts:  # an empty result is one empty file: readers need its schema
            state = _write_page(state, pages, rows, store, prefix)
        state = state.model_copy(update={"complete": not more})
        standing = _read_current(store, prefix, query, interval)
        if standing is not None and standing.complete:  # another run was faster: its steps read that
            return standing
        store.write(f"{prefix}/{_STATE}", state.model_dump_json().encode())
        progress.update(query.query, state.rows, None, "rows")
    _log.info("Extracted %d rows of the query %s", state.rows, query.query)
    return state


def _read_current(store: FileStore, prefix: str, query: SqlQuery, interval: DataInterval) -> SqlState | None:
    """Return the state of an extraction that can be used, or gone on with; ``None``: begin anew."""
    state = read_sql_state(store, prefix)
    if state is None or state.query_digest != query.digest:
        return None
    return None if state.complete and state.started_at < interval.end else state


def _write_page(
    state: SqlState, pages: QueryPages, rows: Sequence[Sequence[Any]], store: FileStore, prefix: str
) -> SqlState:
    buffer = io.BytesIO()
    pq.write_table(pages.to_arrow(rows), buffer, compression="zstd")
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    name = f"part-{len(state.parts):05d}-{digest[:16]}.parquet"
    store.write(f"{prefix}/{name}", content)
    part = SqlPart(name=name, rows=len(rows), sha256=digest)
    changes: dict[str, Any] = {"parts": (*state.parts, part)}
    if rows:
        changes["last_key"] = pages.key_of(rows[-1])
    return state.model_copy(update=changes)
