"""Faults that a test switches on: what hospital servers do on a bad day."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from http import HTTPStatus
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from cohortflow.sandbox.outcome import FhirResponse, JsonResponse, Severity, operation_outcome
from cohortflow.sandbox.request_log import PathClass
from cohortflow.sandbox.retry_after import RetryAfterFormat, format_retry_after
from cohortflow.sandbox.storage_errors import storage_error

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
    "cut-file",  # the file is complete HTTP, but ends in the middle of a line
    "changed-file",  # the file has other bytes from now on, and another ETag
    "wrong-count",  # the manifest counts more resources than its files have
    "slow",  # the answer takes its time to begin
    "trickle",  # the body comes in small pieces, with a pause before each
    "token-lifetime",  # the token lives for other than the usual seconds
    "export-outcome",  # the manifest of the export lists an error file
    "too-recent",  # the kick-off is refused as Epic does when the Group was exported not long ago
    "outcome-entry",  # the Bundle of a search has a remark of the server
    "outcome-body",  # a read answers 200 with an OperationOutcome instead of the document
    "refused",  # 400, or another status, with an issue code of the vendor
    "bad-gateway",  # 502 with a page of HTML, from a proxy
]

_STATUS: dict[FaultKind, tuple[int, str, str]] = {
    "too-many-requests": (429, "throttled", "too many requests"),
    "unavailable": (503, "transient", "the server is busy"),
    "server-error": (500, "transient", "the server had a passing problem"),
    "gateway-timeout": (504, "timeout", "the server took too long"),
    "unauthorized": (401, "expired", "the access token is not valid"),
    "forbidden": (403, "forbidden", "this is not allowed"),
    "gone": (404, "not-found", "the export has expired"),
    "refused": (400, "processing", "the server refuses this request"),
}
_HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"


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
        seconds: For ``slow`` and ``trickle`` the delay, for ``token-lifetime`` the lifetime.
        at_bytes: For ``truncate`` and ``cut-file``: after how many bytes; the half where absent.
        lines: For ``drop-lines`` and ``wrong-count``: how many.
        line: For ``malformed-line``: which line, from 1.
        severity: For ``export-outcome`` and ``outcome-entry``.
        more_severities: For ``export-outcome``: further lines of the error file.
        status: HTTP status, if not the usual one of the kind.
        code: IssueType, if not the usual one of the kind: ``exception`` for what will not pass.
        issue: The vendor's issue code, such as ``4119``; shown by personas that have any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FaultKind
    on: PathClass
    method: str | None = None
    times: int = Field(default=1, ge=1)
    after: int = Field(default=0, ge=0)
    retry_after: float | None = Field(default=None, ge=0)
    retry_after_format: RetryAfterFormat = "seconds"
    seconds: float = Field(default=1.0, ge=0)
    at_bytes: int | None = Field(default=None, ge=0)
    lines: int = Field(default=1, ge=1)
    line: int = Field(default=1, ge=1)
    severity: Severity = "error"
    more_severities: tuple[Severity, ...] = ()
    status: int | None = Field(default=None, ge=200, le=599)
    code: str | None = None
    issue: str | None = None


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


def fault_response(fault: Fault, issue_system: str | None = None) -> Response | None:
    """The answer that takes the place of the real one; ``None`` where the fault is of another kind.

    Args:
        fault: What goes wrong.
        issue_system: System of the vendor's issue codes, if it has any.
    """
    if fault.kind == "bad-gateway":
        return Response(_HTML, fault.status or 502, media_type="text/html")
    if fault.kind not in _STATUS:
        return None
    status, code, diagnostics = _STATUS[fault.kind]
    status, code = fault.status or status, fault.code or code
    headers = {}
    if fault.retry_after is not None:
        headers["Retry-After"] = format_retry_after(fault.retry_after, fault.retry_after_format)
    if fault.on == "storage":  # object storage speaks XML
        name = "SlowDown" if status == HTTPStatus.SERVICE_UNAVAILABLE else "InternalError"
        return storage_error(status, name, diagnostics, headers)
    if fault.on == "token":
        error = {401: "invalid_client", 403: "unauthorized_client"}.get(status, "temporarily_unavailable")
        return JsonResponse({"error": error, "error_description": diagnostics}, status, headers)
    if fault.kind == "unauthorized":
        headers["WWW-Authenticate"] = 'Bearer realm="sandbox", error="invalid_token"'
    outcome = operation_outcome("error", code, diagnostics, system=issue_system, issue=fault.issue)
    return FhirResponse(outcome, status, headers)
