"""Search results in pages: the rows are found once, and ``next`` links lead through them."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from cohortflow.sandbox.outcome import RefusalError
from cohortflow.sandbox.resource_table import ResourceTable, Rows
from cohortflow.sandbox.search_query import SearchQuery

__all__ = ["PageSession", "PageSessions"]

_MOST_SESSIONS = 10_000
_MOST_ROWS = 20_000_000
_ID_LENGTH = 24


@dataclass(frozen=True, slots=True, eq=False)
class PageSession:
    """One search and all rows that it found.

    Attributes:
        id: Unguessable start of its page tokens.
        client_id: Who searched.
        query: What for.
        table: The table as it was then.
        rows: What was found.
        size: Rows per page.
        expires: Monotonic seconds.
        lead: Rows by which the first page is longer (O12).
    """

    id: str
    client_id: str
    query: SearchQuery
    table: ResourceTable
    rows: Rows
    size: int
    expires: float
    lead: int = 0

    def after(self, offset: int) -> int:
        """The row after the page that starts at a row."""
        return offset + self.size + (self.lead if offset == 0 else 0)

    def token(self, offset: int) -> str:
        """The opaque token of the page that starts at a row."""
        return f"{self.id}{offset:x}"


class PageSessions:
    """The searches whose ``next`` links still work.

    Args:
        lifetime: Seconds for which they do.
        expired_status: HTTP status of those that do not.
    """

    def __init__(self, lifetime: float, expired_status: int = 410) -> None:
        self._lifetime = lifetime
        self._expired_status = expired_status
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, PageSession] = OrderedDict()
        self._kept_rows = 0

    def open(
        self,
        client_id: str,
        query: SearchQuery,
        table: ResourceTable,
        rows: Rows,
        size: int,
        *,
        lead: int = 0,
    ) -> PageSession:
        """Keep the result of a search; ``lead`` is by how many rows the first page is longer."""
        session_id = secrets.token_hex(_ID_LENGTH // 2)
        session = PageSession(
            session_id, client_id, query, table, rows, size, time.monotonic() + self._lifetime, lead
        )
        if len(rows) > size:
            with self._lock:
                self._sessions[session_id] = session
                self._kept_rows += len(rows)
                while len(self._sessions) > _MOST_SESSIONS or (
                    self._kept_rows > _MOST_ROWS and len(self._sessions) > 1
                ):
                    self._drop(next(iter(self._sessions)))
        return session

    def get(self, token: str, client_id: str) -> tuple[PageSession, int]:
        """The search of a page token, and the row at which the page starts.

        Raises:
            RefusalError: 410 or what the persona answers, when the token is unknown or has expired.
        """
        with self._lock:
            session = self._sessions.get(token[:_ID_LENGTH])
            if session is not None and session.expires <= time.monotonic():
                self._drop(session.id)
                session = None
        try:
            offset = int(token[_ID_LENGTH:], 16)
        except ValueError:
            session = None
        if session is None or session.client_id != client_id:
            raise RefusalError(
                self._expired_status,
                "not-found",
                "the page session has expired; start the search again",
                issue="4113",
            )
        return session, offset

    def expire_all(self) -> None:
        """Let every ``next`` link expire now."""
        with self._lock:
            for session_id in list(self._sessions):
                self._drop(session_id)

    def _drop(self, session_id: str) -> None:
        self._kept_rows -= len(self._sessions.pop(session_id).rows)
