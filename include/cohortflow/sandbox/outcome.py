"""OperationOutcome and OAuth error bodies: how the sandbox says no."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import orjson
from starlette.responses import Response

from cohortflow.sandbox.issue_codes import issue_details

__all__ = [
    "FHIR_JSON",
    "FhirResponse",
    "JsonResponse",
    "OAuthRefusalError",
    "RefusalError",
    "Severity",
    "operation_outcome",
]

FHIR_JSON = "application/fhir+json"

Severity = Literal["fatal", "error", "warning", "information"]


def operation_outcome(
    severity: Severity, code: str, diagnostics: str, *, system: str | None = None, issue: str | None = None
) -> dict[str, Any]:
    """Build an OperationOutcome with one issue.

    Args:
        severity: IssueSeverity code.
        code: IssueType code, such as ``processing`` or ``transient``.
        diagnostics: Text for people; never holds an element of a record.
        system: System of the vendor's issue codes, if it has any.
        issue: The vendor's issue code.
    """
    content: dict[str, Any] = {"severity": severity, "code": code, "diagnostics": diagnostics}
    if system is not None and issue is not None:
        content["details"] = issue_details(system, issue)
    return {"resourceType": "OperationOutcome", "issue": [content]}


class JsonResponse(Response):
    """A JSON body of any media type."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """Encode ``content``; bytes are taken to be JSON already."""
        return content if isinstance(content, bytes) else orjson.dumps(content)


class FhirResponse(JsonResponse):
    """A FHIR resource as JSON."""

    media_type = FHIR_JSON


class RefusalError(Exception):
    """The server refuses a FHIR request.

    Args:
        status: HTTP status.
        code: IssueType code.
        diagnostics: What is wrong with the request.
        headers: Response headers, such as ``Retry-After``.
        issue: The code of a vendor who has one for this.
    """

    def __init__(
        self,
        status: int,
        code: str,
        diagnostics: str,
        headers: Mapping[str, str] | None = None,
        *,
        issue: str | None = None,
    ) -> None:
        super().__init__(diagnostics)
        self.status = status
        self.code = code
        self.diagnostics = diagnostics
        self.headers = dict(headers or {})
        self.issue = issue

    def response(self, system: str | None = None) -> Response:
        """The HTTP answer; ``system`` is that of the vendor's issue codes, if it has any."""
        severity: Severity = "error" if system is None else "fatal"
        outcome = operation_outcome(severity, self.code, self.diagnostics, system=system, issue=self.issue)
        return FhirResponse(outcome, status_code=self.status, headers=self.headers)


class OAuthRefusalError(Exception):
    """The token endpoint refuses a request (RFC 6749, section 5.2).

    Args:
        error: OAuth error code, such as ``invalid_client``.
        description: What is wrong with the request.
    """

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description

    def response(self) -> Response:
        """The HTTP answer: 401 for ``invalid_client``, otherwise 400."""
        return JsonResponse(
            {"error": self.error, "error_description": self.description},
            status_code=401 if self.error == "invalid_client" else 400,
            headers={"Cache-Control": "no-store", "Pragma": "no-cache"},
        )
