"""Bulk Data: kick-off, status, deletion."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from starlette.responses import Response

from cohortflow.sandbox.export_request import (
    ExportLevel,
    ExportRequest,
    check_kickoff_headers,
    parse_export,
    read_parameters,
)
from cohortflow.sandbox.exports import too_recent
from cohortflow.sandbox.hospital import Call, Handler, insufficient_scope
from cohortflow.sandbox.manifest import show_manifest
from cohortflow.sandbox.outcome import FHIR_JSON, FhirResponse, RefusalError, operation_outcome
from cohortflow.sandbox.scopes import allows

__all__ = ["cancel_export", "kick_off", "show_status"]


def kick_off(level: ExportLevel) -> Handler:
    """``GET`` or ``POST`` ``/fhir/$export``, ``/fhir/Patient/$export``, ``/fhir/Group/{id}/$export``."""

    def handler(call: Call) -> Response:
        persona = call.hospital.persona
        if level not in persona.export_levels:  # E1, O15
            raise RefusalError(
                persona.missing_level_status, "not-supported", f"there is no {level}-level export"
            )
        lenient = check_kickoff_headers(call.request.headers)
        posted = call.request.method == "POST"
        if not posted and persona.bulk_version == "4.0":  # B11
            raise RefusalError(405, "not-supported", "kick off with POST", {"Allow": "POST"})
        if posted and call.request.headers.get("content-type", "").split(";")[0].strip() != FHIR_JSON:
            raise RefusalError(415, "not-supported", f"POST a Parameters resource as {FHIR_JSON}")
        query = call.request.url.query
        request = parse_export(
            level,
            call.request.path_params.get("id"),
            f"{call.root_url}{call.request.url.path}{f'?{query}' if query else ''}",
            read_parameters(call.body) if posted else parse_qsl(query, keep_blank_values=True),
            lenient=lenient,
            posted=posted,
            persona=persona,
        )
        persona.check_export(request, call.grant)
        if call.fault is not None and call.fault.kind == "too-recent":
            raise too_recent(call.fault.status or persona.kickoff_window_status, call.fault.retry_after)
        export = call.hospital.exports.start(
            request, call.grant.client_id, _granted_types(call, request), _planned_outcomes(call)
        )
        return Response(status_code=202, headers={"Content-Location": f"{call.root_url}/exports/{export.id}"})

    return handler


def show_status(call: Call) -> Response:
    """``GET /exports/{export}``: 202 while it runs, then the manifest."""
    board = call.hospital.exports
    export = board.get(call.request.path_params["export"], call.grant.client_id)
    export.polls += 1
    if export.failed:
        return FhirResponse(operation_outcome("fatal", "exception", "the export failed"), 500)
    return show_manifest(call, export)


def cancel_export(call: Call) -> Response:
    """``DELETE /exports/{export}``: stop it, or remove its files."""
    board = call.hospital.exports
    board.cancel(board.get(call.request.path_params["export"], call.grant.client_id))
    status = call.hospital.persona.cancel_status
    if status == 204:  # noqa: PLR2004 - No Content
        return Response(status_code=status)
    return FhirResponse(operation_outcome("information", "informational", "the export was deleted"), status)


def _granted_types(call: Call, request: ExportRequest) -> tuple[str, ...]:
    scopes, absent = call.grant.scopes, call.hospital.persona.unexported_types
    if request.types is None:
        types = [name for name in call.hospital.store.types if allows(scopes, name, "rs")]
    else:
        types = sorted(request.types)
        for name in types:
            call.require(name, "rs")
    if not types:
        raise insufficient_scope()
    return tuple(name for name in types if name not in absent)


def _planned_outcomes(call: Call) -> list[dict[str, Any]]:
    fault = call.fault
    if fault is None or fault.kind != "export-outcome":
        return []
    system = call.hospital.persona.issue_system
    return [
        operation_outcome(
            severity,
            fault.code or "incomplete",
            "some resources could not be exported",
            system=system,
            issue=fault.issue,
        )
        for severity in (fault.severity, *fault.more_severities)
    ]
