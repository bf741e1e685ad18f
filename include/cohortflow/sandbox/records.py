"""Reading and searching: ``GET /fhir/Type/id``, ``GET /fhir/Type?...``, ``next`` pages."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import parse_qsl, urlencode

import orjson
from starlette.responses import Response

from cohortflow.sandbox.hospital import Call
from cohortflow.sandbox.outcome import FHIR_JSON, FhirResponse, RefusalError, operation_outcome
from cohortflow.sandbox.pages import PageSession
from cohortflow.sandbox.resource_table import ResourceTable
from cohortflow.sandbox.resource_types import RESOURCE_TYPES
from cohortflow.sandbox.search_query import SearchQuery, parse_search
from cohortflow.sandbox.search_result import find_rows, included, page_rows, remarks
from cohortflow.sandbox.search_rules import check_search, page_size

__all__ = ["read_page", "read_resource", "search_resources"]

_JSON_TYPES = frozenset({FHIR_JSON, "application/json", "application/*", "*/*", ""})
_FORM = "application/x-www-form-urlencoded"


def read_resource(call: Call) -> Response:
    """``GET /fhir/{type}/{id}``; a Binary comes as what it is, unless the client accepts FHIR JSON."""
    resource_type = _resource_type(call)
    hospital = call.hospital
    resource_id = hospital.shaper.stored_id(resource_type, call.request.path_params["id"])
    call.require(resource_type, "r")
    raw = resource_type == "Binary" and not _accepts_json(call)
    if not raw:
        _check_accept(call)
    if (survivor := hospital.visibility.survivor(resource_type, resource_id)) is not None:  # E16
        url = f"{call.base_url}/{resource_type}/{hospital.shaper.shown_id(resource_type, survivor)}"
        raise RefusalError(
            301, "not-found", f"this {resource_type} was merged", {"Location": url}, issue="4107"
        )
    table = hospital.store.table(resource_type)
    line = hospital.store.read(resource_type, resource_id)
    if table is None or line is None:
        if hospital.store.is_deleted(resource_type, resource_id):
            raise RefusalError(410, "deleted", f"this {resource_type} was deleted", issue="4103")
        raise RefusalError(404, "not-found", f"there is no {resource_type} with this id", issue="4102")
    if (row := table.find(resource_id)) is not None:
        hospital.visibility.check_row(table, row)
    if resource_type == "Binary":
        _count_document(call)
    if call.fault is not None and call.fault.kind == "outcome-body":  # E19
        return FhirResponse(
            operation_outcome("error", "processing", "the document is not available"),
            call.fault.status or 200,
        )
    return _binary(line) if raw else FhirResponse(hospital.shaper.line(resource_type, line))


def search_resources(call: Call) -> Response:
    """``GET /fhir/{type}`` and ``POST /fhir/{type}/_search``."""
    resource_type = _resource_type(call)
    call.require(resource_type, "s")
    _check_accept(call)
    pairs = parse_qsl(call.request.url.query, keep_blank_values=True)
    if call.request.method == "POST":
        if call.request.headers.get("content-type", "").split(";")[0] != _FORM:
            raise RefusalError(415, "not-supported", f"_search takes {_FORM}")
        pairs += parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True)
    hospital = call.hospital
    pairs = [(name, hospital.shaper.stored_value(value)) for name, value in pairs]
    query = parse_search(resource_type, pairs, lenient=call.lenient, persona=hospital.persona)
    check_search(query, hospital.persona)
    hospital.persona.check_search(query, call.grant)
    for patients in query.patients:
        hospital.visibility.check_patients(patients)
    size = page_size(query, hospital.persona)
    table = hospital.store.table(resource_type) or ResourceTable.of(())
    rows, lead = find_rows(call, query, table)
    if not size:
        return _total(len(query.matching(table, hospital.visibility.rows(resource_type, table, rows))))
    return _bundle(call, hospital.pages.open(call.grant.client_id, query, table, rows, size, lead=lead), 0)


def read_page(call: Call) -> Response:
    """``GET /fhir?_page=...``: what a ``next`` link points to."""
    token = call.request.query_params.get("_page")
    if token is None:
        raise RefusalError(400, "not-supported", "search a resource type: /fhir/<ResourceType>")
    session, offset = call.hospital.pages.get(token, call.grant.client_id)
    call.require(session.query.resource_type, "s")
    return _bundle(call, session, offset)


def _bundle(call: Call, session: PageSession, offset: int) -> Response:
    query, table = session.query, session.table
    rows = page_rows(call, session, offset)
    links = [{"relation": "self", "url": _self_url(call, query)}]
    following = session.after(offset)
    if following < len(session.rows):
        url = f"{call.base_url}?{urlencode({'_page': session.token(following)})}"
        links.append({"relation": "next", "url": url})
    entries = [_entry(call, query.resource_type, line.rstrip(b"\n"), b"match") for line in table.lines(rows)]
    entries += [
        _entry(call, other_type, other.line(row).rstrip(b"\n"), b"include")
        for other_type, other, row in included(call, query, table, rows)
    ]
    if offset == 0:
        empty = not entries and following >= len(session.rows)
        entries += [
            b'{"resource":%b,"search":{"mode":"outcome"}}' % orjson.dumps(outcome)
            for outcome in remarks(call, query, empty=empty)
        ]
    body = b'{"resourceType":"Bundle","type":"searchset"'
    if (total := _bundle_total(call, session)) is not None:
        body += b',"total":%d' % total
    body += b',"link":%b' % orjson.dumps(links)
    if entries:  # FHIR knows no empty lists
        body += b',"entry":[%b]' % b",".join(entries)
    return FhirResponse(body + b"}")


def _entry(call: Call, resource_type: str, line: bytes, mode: bytes) -> bytes:
    resource = call.hospital.shaper.line(resource_type, line)
    url = orjson.dumps(f"{call.base_url}/{resource_type}/{orjson.loads(resource)['id']}")
    return b'{"fullUrl":%b,"resource":%b,"search":{"mode":"%b"}}' % (url, resource, mode)


def _bundle_total(call: Call, session: PageSession) -> int | None:
    persona, query = call.hospital.persona, session.query
    wanted = persona.states_total if query.total is None else query.total
    if not wanted:
        return None
    if not persona.filters_pages_late:
        return len(session.rows)
    rows = query.matching(session.table, session.rows)
    return len(call.hospital.visibility.rows(query.resource_type, session.table, rows))


def _count_document(call: Call) -> None:
    # E16: no more documents for this client today.
    most, counts = call.hospital.persona.max_documents, call.hospital.documents_read
    counts[call.grant.client_id] += 1
    if most is not None and counts[call.grant.client_id] > most:
        raise RefusalError(403, "throttled", "no more documents can be read today", issue="4135")


def _total(total: int) -> Response:
    return FhirResponse({"resourceType": "Bundle", "type": "searchset", "total": total})


def _self_url(call: Call, query: SearchQuery) -> str:
    used = f"?{urlencode(query.used)}" if query.used else ""
    return f"{call.base_url}/{query.resource_type}{used}"


def _resource_type(call: Call) -> str:
    resource_type = str(call.request.path_params["type"])
    if resource_type not in RESOURCE_TYPES or resource_type in call.hospital.persona.absent_types:
        raise RefusalError(404, "not-supported", "the server has no such resource type")
    return resource_type


def _accepts_json(call: Call) -> bool:
    accept = call.request.headers.get("accept", "")
    return any(part.split(";")[0].strip().lower() in _JSON_TYPES for part in accept.split(","))


def _check_accept(call: Call) -> None:
    if not _accepts_json(call):
        raise RefusalError(406, "not-supported", f"the server answers in {FHIR_JSON} only")


def _binary(line: bytes) -> Response:
    binary = orjson.loads(line)
    try:
        content = base64.b64decode(binary.get("data", ""))
    except (binascii.Error, ValueError):
        raise RefusalError(500, "exception", "the content of this Binary is not base64") from None
    return Response(content, media_type=binary.get("contentType", "application/octet-stream"))
