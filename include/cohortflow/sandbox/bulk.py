"""Bulk Data 2.0: kick-off, status, manifest, deletion."""

from __future__ import annotations

from email.utils import formatdate
from time import time
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
from cohortflow.sandbox.exports import Export
from cohortflow.sandbox.hospital import Call, Handler, insufficient_scope
from cohortflow.sandbox.instants import format_instant
from cohortflow.sandbox.outcome import FHIR_JSON, FhirResponse, JsonResponse, RefusalError, operation_outcome
from cohortflow.sandbox.scopes import allows

__all__ = ["cancel_export", "kick_off", "show_status"]


def kick_off(level: ExportLevel) -> Handler:
    """``GET`` or ``POST`` ``/fhir/$export``, ``/fhir/Patient/$export``, ``/fhir/Group/{id}/$export``."""

    def handler(call: Call) -> Response:
        lenient = check_kickoff_headers(call.request.headers)
        posted = call.request.method == "POST"
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
        )
        call.hospital.config.persona.check_export(request, call.grant)
        export = call.hospital.exports.start(
            request, call.grant.client_id, _granted_types(call, request), _planned_outcomes(call)
        )
        return Response(status_code=202, headers={"Content-Location": f"{call.root_url}/exports/{export.id}"})

    return handler


def show_status(call: Call) -> Response:
    """``GET /exports/{export}``: 202 while it runs, then the manifest."""
    board, config = call.hospital.exports, call.hospital.config
    export = board.get(call.request.path_params["export"], call.grant.client_id)
    export.polls += 1
    if export.failed:
        return FhirResponse(operation_outcome("fatal", "exception", "the export failed"), 500)
    if not board.is_complete(export):
        headers = {
            "X-Progress": f"{board.progress(export):.0%} of the resource types written",
            "Retry-After": str(config.retry_after),
        }
        return Response(status_code=202, headers=headers)
    expires = formatdate(time() + board.remaining(export), usegmt=True)
    return JsonResponse(_manifest(call, export), headers={"Expires": expires})


def cancel_export(call: Call) -> Response:
    """``DELETE /exports/{export}``: stop it, or remove its files."""
    board = call.hospital.exports
    board.cancel(board.get(call.request.path_params["export"], call.grant.client_id))
    return FhirResponse(operation_outcome("information", "informational", "the export was deleted"), 202)


def _granted_types(call: Call, request: ExportRequest) -> tuple[str, ...]:
    scopes = call.grant.scopes
    if request.types is None:
        types = [name for name in call.hospital.store.types if allows(scopes, name, "rs")]
    else:
        types = sorted(request.types)
        for name in types:
            call.require(name, "rs")
    if not types:
        raise insufficient_scope()
    return tuple(types)


def _planned_outcomes(call: Call) -> list[dict[str, Any]]:
    fault = call.fault
    if fault is None or fault.kind != "export-outcome":
        return []
    return [operation_outcome(fault.severity, "incomplete", "some resources could not be exported")]


def _manifest(call: Call, export: Export) -> dict[str, Any]:
    config = call.hospital.config
    manifest: dict[str, Any] = {
        "transactionTime": format_instant(export.transaction_time),
        "request": export.request.url,
        "requiresAccessToken": not config.open and config.file_delivery != "open",
        "output": [],
        "deleted": [],
        "error": [],
    }
    for file in export.files:
        url = f"{call.root_url}/exports/{export.id}/{file.name}"
        manifest[file.section].append({"type": file.resource_type, "url": url, "count": file.count})
    return manifest
