"""``/_sandbox``: what a test does to the hospital. Sandbox only, and only from this machine."""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.responses import Response
from starlette.routing import Route

from cohortflow.errors import InputError
from cohortflow.sandbox.faults import Fault
from cohortflow.sandbox.hospital import Call, Handler, Hospital, endpoint
from cohortflow.sandbox.instants import parse_instant
from cohortflow.sandbox.outcome import JsonResponse, OAuthRefusalError, RefusalError
from cohortflow.sandbox.resource_types import RESOURCE_TYPES

__all__ = ["control_routes"]


def control_routes(hospital: Hospital) -> list[Route]:
    """The routes of the control endpoints."""
    table: list[tuple[str, str, Handler]] = [
        ("GET", "/faults", _list_faults),
        ("POST", "/faults", _add_faults),
        ("DELETE", "/faults", _clear_faults),
        ("GET", "/log", _show_log),
        ("DELETE", "/log", _clear_log),
        ("DELETE", "/exports", _expire_exports),
        ("DELETE", "/links", _expire_links),
        ("DELETE", "/kickoffs", _forget_kickoffs),
        ("DELETE", "/pages", _expire_pages),
        ("DELETE", "/tokens", _revoke_tokens),
        ("POST", "/clients", _register_client),
        ("POST", "/resources", _put_resources),
        ("DELETE", "/resources/{type}/{id}", _delete_resource),
        ("PUT", "/clock", _set_clock),
        ("POST", "/glass", _break_the_glass),
        ("POST", "/merges", _merge),
    ]
    return [
        Route(f"/_sandbox{path}", endpoint(hospital, _local(handler)), methods=[method])
        for method, path, handler in table
    ]


def _local(handler: Handler) -> Handler:
    def guarded(call: Call) -> Response:
        client = call.request.client
        try:
            near = client is not None and ipaddress.ip_address(client.host).is_loopback
        except ValueError:
            near = False
        if not near:
            raise RefusalError(403, "forbidden", "control endpoints answer on the loopback interface only")
        return handler(call)

    return guarded


def _json(call: Call) -> Any:  # noqa: ANN401 - whatever was sent
    try:
        return orjson.loads(call.body)
    except ValueError:
        raise RefusalError(400, "structure", "the body has to be JSON") from None


def _done() -> Response:
    return Response(status_code=204)


def _list_faults(call: Call) -> Response:
    return JsonResponse([fault.model_dump() for fault in call.hospital.faults.waiting()])


def _add_faults(call: Call) -> Response:
    body = _json(call)
    try:
        faults = [Fault.model_validate(item) for item in (body if isinstance(body, list) else [body])]
    except ValidationError as error:
        raise RefusalError(
            400, "value", f"not a fault: {error.errors(include_input=False, include_url=False)}"
        ) from None
    call.hospital.faults.add(*faults)
    return _done()


def _clear_faults(call: Call) -> Response:
    call.hospital.faults.clear()
    return _done()


def _show_log(call: Call) -> Response:
    records = list(call.hospital.log.to_json())
    counts = Counter(record["path_class"] for record in records)
    return JsonResponse({"counts": dict(counts), "requests": records})


def _clear_log(call: Call) -> Response:
    call.hospital.log.clear()
    return _done()


def _expire_exports(call: Call) -> Response:
    call.hospital.exports.expire_all()
    return _done()


def _expire_links(call: Call) -> Response:
    call.hospital.exports.expire_links()
    return _done()


def _forget_kickoffs(call: Call) -> Response:
    call.hospital.exports.forget_kickoffs()
    return _done()


def _expire_pages(call: Call) -> Response:
    call.hospital.pages.expire_all()
    return _done()


def _revoke_tokens(call: Call) -> Response:
    call.hospital.tokens.revoke_all()
    return _done()


def _register_client(call: Call) -> Response:
    body = _json(call)
    if not isinstance(body, dict) or not isinstance(body.get("client_id"), str):
        raise RefusalError(400, "required", "name a client_id, and jwks or jwks_uri")
    source = body.get("jwks_uri", body.get("jwks"))
    # No file names here: whoever reaches this endpoint need not be able to read the server's disk.
    if not (
        isinstance(source, dict) or (isinstance(source, str) and source.startswith(("http://", "https://")))
    ):
        raise RefusalError(400, "value", "jwks has to be a JWK Set, or jwks_uri an http(s) URL")
    try:
        call.hospital.clients.add(body["client_id"], source, body.get("scope", "system/*.rs"))
    except InputError as error:
        raise RefusalError(400, "value", error.message) from None
    except OAuthRefusalError as error:
        raise RefusalError(400, "value", error.description) from None
    return JsonResponse({"client_id": body["client_id"]}, status_code=201)


def _put_resources(call: Call) -> Response:
    body = _json(call)
    resources = body if isinstance(body, list) else [body]
    for resource in resources:
        if (
            not isinstance(resource, dict)
            or resource.get("resourceType") not in RESOURCE_TYPES
            or not isinstance(resource.get("id"), str)
        ):
            raise RefusalError(400, "structure", "send one FHIR resource with an id, or a list of them")
    call.hospital.store.put(resources)
    return _done()


def _delete_resource(call: Call) -> Response:
    names = call.request.path_params
    if not call.hospital.store.delete(names["type"], names["id"]):
        raise RefusalError(404, "not-found", "there is no such resource")
    return _done()


def _set_clock(call: Call) -> Response:
    body = _json(call)
    try:
        moment = body["now"]
        call.hospital.store.set_time(None if moment is None else parse_instant(moment))
    except (KeyError, TypeError, ValueError):
        raise RefusalError(400, "value", 'send {"now": <FHIR instant>}, or {"now": null}') from None
    return _done()


def _break_the_glass(call: Call) -> Response:
    body = _json(call)
    if not isinstance(body, list) or not all(isinstance(item, str) for item in body):
        raise RefusalError(400, "value", "send a list of patient ids")
    call.hospital.visibility.break_the_glass(body)
    return _done()


def _merge(call: Call) -> Response:
    body = _json(call)
    values = [body.get(key) for key in ("type", "from", "to")] if isinstance(body, dict) else []
    names = [value for value in values if isinstance(value, str)]
    if len(names) != 3:  # noqa: PLR2004 - the three above
        raise RefusalError(400, "value", 'send {"type": ..., "from": <id>, "to": <id>}')
    call.hospital.visibility.merge(*names)
    return _done()
