"""What was asked of the sandbox: method, kind of path, status, time. Never a URL or a body.

FHIR URLs hold ids of patients and search values, so the log knows only the class of a path.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cohortflow.sandbox.resource_types import RESOURCE_TYPES

__all__ = ["PathClass", "RequestLog", "RequestRecord", "classify", "template"]

PathClass = Literal[
    "discovery",
    "metadata",
    "token",
    "kickoff",
    "status",
    "file",
    "storage",
    "search",
    "read",
    "control",
    "other",
]

_LOGGER = logging.getLogger("cohortflow.sandbox.access")
_KEPT = 100_000
_PATHS: tuple[tuple[PathClass, re.Pattern[str]], ...] = (
    ("control", re.compile(r"/_sandbox(/.*)?")),
    ("token", re.compile(r"/auth/token")),
    ("discovery", re.compile(r"(/fhir)?/\.well-known/.*")),
    ("metadata", re.compile(r"/fhir/metadata")),
    ("kickoff", re.compile(r"/fhir/(Patient/|Group/[^/]+/)?\$export")),
    ("status", re.compile(r"/exports/[^/]+")),
    ("file", re.compile(r"/exports/[^/]+/[^/]+")),
    ("storage", re.compile(r"/storage/.*")),
    ("search", re.compile(r"/fhir/?|/fhir/[^/]+(/_search)?")),
    ("read", re.compile(r"/fhir/[^/]+/[^/]+")),
)


_TEMPLATES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"/fhir/Group/[^/]+/\$export"), "/fhir/Group/{id}/$export"),
    (re.compile(r"/exports/[^/]+"), "/exports/{export}"),
    (re.compile(r"/exports/[^/]+/[^/]+"), "/exports/{export}/{name}"),
    (re.compile(r"/storage/.*"), "/storage/{signature}/{name}"),
)
_TYPE = re.compile(r"/fhir/([^/]+)(/_search|/[^/]+)?")


def template(path: str) -> str:
    """A URL path without ids, such as ``/fhir/Observation/{id}``; empty for a path of no known form."""
    if path.startswith("/fhir/") and classify(path) in {"search", "read"}:
        match = _TYPE.fullmatch(path)
        if match is None or match[1] not in RESOURCE_TYPES:
            return ""
        rest = match[2] or ""
        return f"/fhir/{match[1]}{rest if rest in {'', '/_search'} else '/{id}'}"
    for pattern, text in _TEMPLATES:
        if pattern.fullmatch(path):
            return text
    return "" if classify(path) == "other" else path


def classify(path: str) -> PathClass:
    """The class of a URL path."""
    return next((name for name, pattern in _PATHS if pattern.fullmatch(path)), "other")


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request.

    Attributes:
        time: When it came, as a FHIR instant.
        method: HTTP method.
        path_class: What kind of path.
        status: HTTP status of the answer; 0 when the connection was cut.
        milliseconds: How long the answer took.
        authorized: Whether it carried an ``Authorization`` header.
        path: The path with placeholders for ids, such as ``/fhir/Group/{id}/$export``.
        ranged: Whether it carried a ``Range`` header.
    """

    time: str
    method: str
    path_class: PathClass
    status: int
    milliseconds: float
    authorized: bool
    path: str = ""
    ranged: bool = False


class RequestLog:
    """The last 100,000 requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: deque[RequestRecord] = deque(maxlen=_KEPT)

    def add(self, record: RequestRecord) -> None:
        """Note a request, also in the log of the process."""
        with self._lock:
            self._records.append(record)
        _LOGGER.info("%s %s %d %.1f ms", record.method, record.path_class, record.status, record.milliseconds)

    def records(self) -> list[RequestRecord]:
        """All requests, the oldest first."""
        with self._lock:
            return list(self._records)

    def count(self, path_class: PathClass, *, method: str | None = None, status: int | None = None) -> int:
        """How many requests of a kind there were."""
        return sum(
            record.path_class == path_class
            and method in {None, record.method}
            and status in {None, record.status}
            for record in self.records()
        )

    def clear(self) -> None:
        """Forget all requests."""
        with self._lock:
            self._records.clear()

    def to_json(self) -> Iterator[dict[str, Any]]:
        """The requests as JSON objects."""
        return (asdict(record) for record in self.records())
