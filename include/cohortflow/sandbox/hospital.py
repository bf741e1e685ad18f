"""The state of a running sandbox, and what one request sees of it."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from cohortflow.sandbox.authorization import ClientRegistry, Grant, TokenIssuer
from cohortflow.sandbox.config import SandboxConfig
from cohortflow.sandbox.export_build import ExportBuilder
from cohortflow.sandbox.exports import ExportBoard
from cohortflow.sandbox.faults import Fault, FaultPlan
from cohortflow.sandbox.outcome import OAuthRefusalError, RefusalError
from cohortflow.sandbox.pages import PageSessions
from cohortflow.sandbox.rate_limit import RateLimit
from cohortflow.sandbox.request_log import RequestLog, classify
from cohortflow.sandbox.scopes import allows
from cohortflow.sandbox.shaping import Shaper
from cohortflow.sandbox.storage_errors import StorageRefusalError
from cohortflow.sandbox.store import ResourceStore
from cohortflow.sandbox.visibility import Visibility

__all__ = ["FAULT_KEY", "Call", "Handler", "Hospital", "endpoint"]

FAULT_KEY = "cohortflow.sandbox.fault"
_IDENTIFIED = frozenset({"kickoff", "status", "file", "search", "read"})


class Hospital:
    """Everything that a sandbox keeps; close it to remove its files.

    Args:
        config: Its settings.

    Raises:
        InputError: The data or a client's key set cannot be read.
    """

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.persona = config.effective_persona()
        self.storage_url = config.storage_url
        self.storage_port: int | None = None
        self.faults = FaultPlan()
        self.log = RequestLog()
        self.limit = RateLimit(self.persona.requests_per_second)
        self.pages = PageSessions(config.page_lifetime, self.persona.expired_page_status)
        self.clients = ClientRegistry()
        for client_id, source in config.clients.items():
            self.clients.add(client_id, source)
        self.tokens = TokenIssuer(self.clients, self.persona, config.clock_offset)
        self.folder = Path(tempfile.mkdtemp(prefix="cohortflow-sandbox-"))
        try:
            for name in ("data", "exports"):
                (self.folder / name).mkdir()
            self.store = ResourceStore(config.data, self.folder / "data")
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self.shaper = Shaper(self.persona)
        self.visibility = Visibility(self.store, self.persona)
        builder = ExportBuilder(self.store, self.persona, self.shaper, self.visibility)
        self.exports = ExportBoard(self.store, config, self.persona, builder, self.folder / "exports")
        self.documents_read: Counter[str] = Counter()

    def close(self) -> None:
        """Stop exports and remove all files that the sandbox made."""
        self.exports.close()
        self.store.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One request with its body and its rights.

    Attributes:
        hospital: The state of the sandbox.
        request: Path, query and headers.
        body: The whole body.
        grant: What the caller may do.
    """

    hospital: Hospital
    request: Request
    body: bytes
    grant: Grant

    @property
    def root_url(self) -> str:
        """Where the client reaches the server, without a slash at the end."""
        return (self.hospital.config.public_url or str(self.request.base_url)).rstrip("/")

    @property
    def base_url(self) -> str:
        """The FHIR base URL."""
        return f"{self.root_url}/fhir"

    @property
    def token_url(self) -> str:
        """The URL of the token endpoint."""
        return f"{self.root_url}/auth/token"

    @property
    def lenient(self) -> bool:
        """Whether the client wants unknown parameters ignored."""
        return "handling=lenient" in self.request.headers.get("prefer", "").replace(" ", "").lower()

    @property
    def fault(self) -> Fault | None:
        """The fault that hits this request, where the handler has to act it out."""
        fault: Fault | None = self.request.scope.get(FAULT_KEY)
        return fault

    def require(self, resource_type: str, actions: str) -> None:
        """Refuse with 403 unless the token's scopes allow these actions on a type."""
        if not allows(self.grant.scopes, resource_type, actions):
            raise insufficient_scope()


Handler = Callable[[Call], Response]


def insufficient_scope() -> RefusalError:
    """What a request beyond its token's scopes is told."""
    challenge = 'Bearer realm="sandbox", error="insufficient_scope"'
    return RefusalError(
        403, "forbidden", "the scopes of the access token do not allow this", {"WWW-Authenticate": challenge}
    )


def endpoint(
    hospital: Hospital, handler: Handler, *, protected: bool = False
) -> Callable[[Request], Awaitable[Response]]:
    """Make a Starlette endpoint of a handler, which runs in a thread.

    Args:
        hospital: The state of the sandbox.
        handler: Answers the request, or raises a refusal.
        protected: Whether it needs an access token (unless the server is open).
    """

    def answer(request: Request, body: bytes) -> Response:
        try:
            grant = Grant()
            if protected and not hospital.config.open:
                grant = hospital.tokens.check(request.headers.get("authorization"))
            call = Call(hospital, request, body, grant)
            _check_client_header(call)
            return handler(call)
        except RefusalError as refusal:
            return refusal.response(hospital.persona.issue_system)
        except (OAuthRefusalError, StorageRefusalError) as refusal:
            return refusal.response()

    async def run(request: Request) -> Response:
        return await run_in_threadpool(answer, request, await request.body())

    return run


def _check_client_header(call: Call) -> None:
    # E10: Epic wants the client id in a header of its own, beside the token.
    header = call.hospital.persona.client_header
    if header is None or classify(call.request.url.path) not in _IDENTIFIED:
        return
    value = call.request.headers.get(header)
    if value is None or (call.grant.client_id and value != call.grant.client_id):
        raise RefusalError(400, "required", f"the request needs the header {header} with the client id")
