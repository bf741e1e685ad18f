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

__all__ = ["read_page", "read_resource", "search_resources"]

_JSON_TYPES = frozenset({FHIR_JSON, "application/json", "application/*", "*/*", ""})
_FORM = "application/x-www-form-urlencoded"


def read_resource(call: Call) -> Response:
    """``GET /fhir/{type}/{id}``; a Binary comes as what it is, unless the client accepts FHIR JSON."""
    resource_type = _resource_type(call)
    resource_id = call.request.path_params["id"]
    call.require(resource_type, "r")
    raw = resource_type == "Binary" and not _accepts_json(call)
    if not raw:
        _check_accept(call)
    store = call.hospital.store
    line = store.read(resource_type, resource_id)
    if line is None:
        if store.is_deleted(resource_type, resource_id):
            raise RefusalError(410, "deleted", f"this {resource_type} was deleted")
        raise RefusalError(404, "not-found", f"there is no {resource_type} with this id")
    if raw:
        return _binary(line)
    return FhirResponse(call.hospital.config.persona.shape_resource(resource_type, line))


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
    query = parse_search(resource_type, pairs, lenient=call.lenient)
    hospital.config.persona.check_search(query, call.grant)
    size = min(
        hospital.config.page_size if query.count is None else query.count, hospital.config.max_page_size
    )
    table = hospital.store.table(resource_type) or ResourceTable.of(())
    rows = query.rows(table, table.select(until=hospital.store.now), hospital.store.patient_number)
    session = hospital.pages.open(call.grant.client_id, query, table, rows, max(size, 1))
    return _bundle(call, session, 0) if size else _total(len(rows))


def read_page(call: Call) -> Response:
    """``GET /fhir?_page=...``: what a ``next`` link points to."""
    token = call.request.query_params.get("_page")
    if token is None:
        raise RefusalError(400, "not-supported", "search a resource type: /fhir/<ResourceType>")
    session, offset = call.hospital.pages.get(token, call.grant.client_id)
    call.require(session.query.resource_type, "s")
    return _bundle(call, session, offset)


def _bundle(call: Call, session: PageSession, offset: int) -> Response:
    query, persona = session.query, call.hospital.config.persona
    rows = persona.shape_page(query, session.rows[offset : offset + session.size])
    links = [{"relation": "self", "url": _self_url(call, query)}]
    if offset + session.size < len(session.rows):
        token = session.token(offset + session.size)
        links.append({"relation": "next", "url": f"{call.base_url}?{urlencode({'_page': token})}"})
    entries = []
    for line in session.table.lines(rows):
        resource = persona.shape_resource(query.resource_type, line.rstrip(b"\n"))
        url = orjson.dumps(f"{call.base_url}/{query.resource_type}/{orjson.loads(resource)['id']}")
        entries.append(b'{"fullUrl":%b,"resource":%b,"search":{"mode":"match"}}' % (url, resource))
    if query.ignored and offset == 0:
        text = f"ignored search parameters: {', '.join(query.ignored)}"
        outcome = orjson.dumps(operation_outcome("warning", "not-supported", text))
        entries.append(b'{"resource":%b,"search":{"mode":"outcome"}}' % outcome)
    body = b'{"resourceType":"Bundle","type":"searchset","total":%d,"link":%b' % (
        len(session.rows),
        orjson.dumps(links),
    )
    if entries:  # FHIR knows no empty lists
        body += b',"entry":[%b]' % b",".join(entries)
    return FhirResponse(body + b"}")


def _total(total: int) -> Response:
    return FhirResponse({"resourceType": "Bundle", "type": "searchset", "total": total})


def _self_url(call: Call, query: SearchQuery) -> str:
    used = f"?{urlencode(query.used)}" if query.used else ""
    return f"{call.base_url}/{query.resource_type}{used}"


def _resource_type(call: Call) -> str:
    resource_type = str(call.request.path_params["type"])
    if resource_type not in RESOURCE_TYPES:
        raise RefusalError(404, "not-supported", "there is no such FHIR R4 resource type")
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
