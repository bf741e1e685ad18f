"""Faults that a test switches on: what hospital servers do on a bad day."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from cohortflow.sandbox.outcome import FhirResponse, JsonResponse, Severity, operation_outcome
from cohortflow.sandbox.request_log import PathClass

__all__ = ["Fault", "FaultKind", "FaultPlan", "fault_response"]

FaultKind = Literal[
    "too-many-requests",  # 429 with Retry-After
    "unavailable",  # 503, transient
    "server-error",  # 500, transient
    "gateway-timeout",  # 504, transient
    "unauthorized",  # 401, as for an expired token
    "forbidden",  # 403, for good
    "gone",  # 404, as for an expired export
    "truncate",  # the connection ends in the middle of the body
    "drop-lines",  # the file is complete HTTP, but lacks its last lines
    "malformed-line",  # a line of the file is no JSON
    "slow",  # the answer takes its time
    "token-lifetime",  # the token lives for other than the usual seconds
    "export-outcome",  # the manifest of the export lists an error file
]

_STATUS: dict[FaultKind, tuple[int, str, str]] = {
    "too-many-requests": (429, "throttled", "too many requests"),
    "unavailable": (503, "transient", "the server is busy"),
    "server-error": (500, "transient", "the server had a passing problem"),
    "gateway-timeout": (504, "timeout", "the server took too long"),
    "unauthorized": (401, "expired", "the access token is not valid"),
    "forbidden": (403, "forbidden", "this is not allowed"),
    "gone": (404, "not-found", "the export has expired"),
}


class Fault(BaseModel):
    """One planned fault.

    Attributes:
        kind: What goes wrong.
        on: Which requests it concerns.
        method: Only requests with this method.
        times: How many requests it hits.
        after: How many matching requests pass unharmed before.
        retry_after: Seconds for the ``Retry-After`` header, if there is to be one.
        retry_after_format: How that header is written.
        seconds: For ``slow`` the delay, for ``token-lifetime`` the lifetime.
        at_bytes: For ``truncate``: after how many bytes; the half of the body where absent.
        lines: For ``drop-lines``: how many.
        line: For ``malformed-line``: which line, from 1.
        severity: For ``export-outcome``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FaultKind
    on: PathClass
    method: str | None = None
    times: int = Field(default=1, ge=1)
    after: int = Field(default=0, ge=0)
    retry_after: float | None = Field(default=None, ge=0)
    retry_after_format: Literal["seconds", "http-date"] = "seconds"
    seconds: float = Field(default=1.0, ge=0)
    at_bytes: int | None = Field(default=None, ge=0)
    lines: int = Field(default=1, ge=1)
    line: int = Field(default=1, ge=1)
    severity: Severity = "error"


class FaultPlan:
    """The faults that are still to come, in the order in which they were added."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Fault] = deque(faults)

    def add(self, *faults: Fault) -> None:
        """Plan faults."""
        with self._lock:
            self._waiting.extend(faults)

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._waiting.clear()

    def waiting(self) -> list[Fault]:
        """What is still to come."""
        with self._lock:
            return list(self._waiting)

    def take(self, path_class: PathClass, method: str) -> Fault | None:
        """The fault that hits this request, if any."""
        with self._lock:
            for place, fault in enumerate(self._waiting):
                if fault.on != path_class or (fault.method or method) != method:
                    continue
                if fault.after:
                    self._waiting[place] = fault.model_copy(update={"after": fault.after - 1})
                    return None
                if fault.times > 1:
                    self._waiting[place] = fault.model_copy(update={"times": fault.times - 1})
                else:
                    del self._waiting[place]
                return fault
        return None


def fault_response(fault: Fault) -> Response | None:
    """The answer that takes the place of the real one; ``None`` where the fault is of another kind."""
    if fault.kind not in _STATUS:
        return None
    status, code, diagnostics = _STATUS[fault.kind]
    headers = {}
    if fault.retry_after is not None:
        headers["Retry-After"] = _retry_after(fault.retry_after, fault.retry_after_format)
    if fault.on == "token":
        error = {401: "invalid_client", 403: "unauthorized_client"}.get(status, "temporarily_unavailable")
        return JsonResponse({"error": error, "error_description": diagnostics}, status, headers)
    if fault.kind == "unauthorized":
        headers["WWW-Authenticate"] = 'Bearer realm="sandbox", error="invalid_token"'
    return FhirResponse(operation_outcome("error", code, diagnostics), status, headers)


def _retry_after(seconds: float, form: str) -> str:
    if form == "seconds":
        return f"{seconds:g}"
    # A date has whole seconds; rounding up keeps the wait at least as long as asked.
    moment = datetime.now(UTC) + timedelta(seconds=seconds + 0.999999)
    return format_datetime(moment.replace(microsecond=0), usegmt=True)
