"""The manifest of an export: whole, or in pages while the export still runs."""

from __future__ import annotations

from email.utils import formatdate
from time import time
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from cohortflow.sandbox.export_job import Export, ExportFile
from cohortflow.sandbox.hospital import Call
from cohortflow.sandbox.instants import format_instant
from cohortflow.sandbox.outcome import JsonResponse, RefusalError
from cohortflow.sandbox.retry_after import format_retry_after

__all__ = ["show_manifest"]


def show_manifest(call: Call, export: Export) -> Response:
    """202 while the export runs, with a partial manifest if the client takes one (B8); then 200."""
    board = call.hospital.exports
    config = call.hospital.config
    complete = board.is_complete(export)
    headers = {}
    if complete:
        headers["Expires"] = formatdate(time() + board.remaining(export), usegmt=True)
    else:
        headers["X-Progress"] = call.hospital.persona.progress.format(share=board.progress(export))
        headers["Retry-After"] = format_retry_after(config.retry_after, config.retry_after_format)
    if not export.request.partial_manifests:
        if not complete:
            return Response(status_code=202, headers=headers)
        return JsonResponse(_manifest(call, export, export.files), headers=headers)
    number = _page_number(call)
    span = board.page(export, number)
    if span is None:
        if complete:
            raise RefusalError(404, "not-found", "there is no such manifest")
        return Response(status_code=202, headers=headers)
    manifest = _manifest(call, export, export.files[slice(*span)])
    if span[1] < board.available(export):
        url = f"{call.root_url}/exports/{export.id}?{urlencode({'page': number + 1})}"
        manifest["link"] = [{"relation": "next", "url": url}]
    return JsonResponse(manifest, 200 if complete else 202, headers)


def _page_number(call: Call) -> int:
    text = call.request.query_params.get("page", "0")
    if not text.isascii() or not text.isdecimal():
        raise RefusalError(404, "not-found", "there is no such manifest")
    return int(text)


def _manifest(call: Call, export: Export, files: list[ExportFile]) -> dict[str, Any]:
    hospital = call.hospital
    persona = hospital.persona
    errors = "outcome" if persona.bulk_version == "4.0" else "error"  # B11
    manifest: dict[str, Any] = {"transactionTime": format_instant(export.transaction_time)}
    if persona.bulk_version != "4.0":  # B11
        manifest["request"] = export.request.url
    manifest["requiresAccessToken"] = not hospital.config.open and persona.file_delivery != "open"  # B2
    if export.request.organize_by is not None:
        manifest["outputOrganizedBy"] = export.request.organize_by
    manifest["output"] = []
    if persona.lists_deleted:
        manifest["deleted"] = []
    manifest[errors] = []
    signature = hospital.exports.sign_links(export)
    missing = call.fault.lines if call.fault is not None and call.fault.kind == "wrong-count" else 0

    def url_of(name: str) -> str:
        query = f"?{urlencode({'link': signature})}" if signature else ""
        return f"{call.root_url}/exports/{export.id}/{name}{query}"

    for file in files:
        entry: dict[str, Any] = {"type": file.resource_type} if file.resource_type else {}
        entry |= {"url": url_of(file.name), "count": file.count + missing}
        if file.continues_in is not None:
            entry["continuesInFile"] = url_of(file.continues_in)
        manifest[errors if file.section == "error" else file.section].append(entry)
    return manifest
