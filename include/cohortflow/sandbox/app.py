"""The sandbox EHR as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cohortflow.sandbox.bulk import cancel_export, kick_off, show_status
from cohortflow.sandbox.capability import capability_statement, smart_configuration
from cohortflow.sandbox.config import SandboxConfig
from cohortflow.sandbox.control import control_routes
from cohortflow.sandbox.delivery import FileDesk
from cohortflow.sandbox.front_door import FrontDoor
from cohortflow.sandbox.hospital import Call, Handler, Hospital, endpoint
from cohortflow.sandbox.outcome import JsonResponse, OAuthRefusalError, RefusalError
from cohortflow.sandbox.records import read_page, read_resource, search_resources

__all__ = ["create_app"]

_FORM = "application/x-www-form-urlencoded"


def create_app(config: SandboxConfig) -> Starlette:
    """Build the server; its state is ``app.state.hospital``, which shutdown closes.

    Args:
        config: Data, clients and manners of the server.

    Raises:
        InputError: The data or a client's key set cannot be read.
    """
    hospital = Hospital(config)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(hospital.close)

    app = Starlette(
        routes=[*_routes(hospital), *control_routes(hospital)],
        middleware=[Middleware(FrontDoor, hospital=hospital)],
        exception_handlers={HTTPException: _refuse_route, Exception: _admit_failure},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect would tell strangers which paths there are
    app.state.hospital = hospital
    return app


def _routes(hospital: Hospital) -> list[Route]:
    desk = FileDesk()
    export = "/exports/{export}"

    def route(path: str, handler: Handler, *methods: str, protected: bool = True) -> Route:
        return Route(path, endpoint(hospital, handler, protected=protected), methods=methods or ["GET"])

    return [
        route("/.well-known/smart-configuration", smart_configuration, protected=False),
        route("/fhir/.well-known/smart-configuration", smart_configuration, protected=False),
        route("/fhir/metadata", capability_statement, protected=False),
        route("/auth/token", _issue_token, "POST", protected=False),
        route("/fhir/$export", kick_off("system"), "GET", "POST"),
        route("/fhir/Patient/$export", kick_off("patient"), "GET", "POST"),
        route("/fhir/Group/{id}/$export", kick_off("group"), "GET", "POST"),
        route(export, show_status),
        route(export, cancel_export, "DELETE"),
        route(f"{export}/{{name}}", desk.get_file, protected=False),  # the desk knows when a token is due
        route("/storage/{signature}/{name}", desk.get_stored, protected=False),
        route("/fhir", read_page),
        route("/fhir/", read_page),
        route("/fhir/{type}", search_resources),
        route("/fhir/{type}/_search", search_resources, "POST"),
        route("/fhir/{type}/{id}", read_resource),
    ]


def _issue_token(call: Call) -> Response:
    if call.request.headers.get("content-type", "").split(";")[0].strip() != _FORM:
        raise OAuthRefusalError("invalid_request", f"send the token request as {_FORM}")
    pairs = parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True)
    form = dict(pairs)
    if len(form) != len(pairs):
        raise OAuthRefusalError("invalid_request", "a parameter is repeated")
    fault = call.fault
    lifetime = int(fault.seconds) if fault is not None and fault.kind == "token-lifetime" else None
    token = call.hospital.tokens.issue(
        form, call.token_url, lifetime, call.request.headers.get("authorization")
    )
    return JsonResponse(token, headers={"Cache-Control": "no-store", "Pragma": "no-cache"})


async def _refuse_route(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    code = "not-found" if status == HTTPStatus.NOT_FOUND else "not-supported"
    return RefusalError(status, code, "the server has no such interaction", headers).response()


async def _admit_failure(_request: Request, _error: Exception) -> Response:
    return RefusalError(500, "exception", "the server failed; its log has the place").response()
