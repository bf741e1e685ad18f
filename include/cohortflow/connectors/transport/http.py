"""One exchange with a server: what may be sent where, and what a failure is called."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx

from cohortflow import __version__
from cohortflow.connectors.settings import FhirSource
from cohortflow.connectors.transport.outcome import Issue, describe_issues, parse_outcome, says_too_recent
from cohortflow.connectors.transport.retry import Clock, parse_retry_after
from cohortflow.errors import (
    AuthorizationError,
    ConfigurationError,
    ExportExpiredError,
    ExportRejectedError,
    SourceError,
    TransientSourceError,
)

__all__ = [
    "HttpSession",
    "describe_failure",
    "host_of",
    "read_body",
    "read_issues",
    "too_recent",
    "translate_error",
]

_BUSY = frozenset({408, 429, 502, 503, 504})
# From the "transient" branch of http://hl7.org/fhir/issue-type; "exception" is there too, but servers
# use it for every fault of theirs.
_BUSY_ISSUES = frozenset({"transient", "lock-error", "no-store", "timeout", "throttled"})
_UNAUTHORIZED = {
    "": (
        "The request went without credentials, but the server wants some: set the connection's login and "
        "key, or its extra 'auth'."
    ),
    "Basic": "Check login and password of the connection.",
    "Bearer": (
        "A fresh token was refused: check the connection's scopes, and that its 'token_url' belongs to "
        "this server."
    ),
}
_SERVER_ERROR = 500
_REMEDIES = {
    400: "Check the parameters of the export against what the server supports.",
    403: "Check that the client is registered for this operation and its scopes.",
    404: "Check the base URL and the group.",
    405: "Check that the server supports this export operation.",
    406: "The server does not offer this format.",
    409: "Another export of this client is running: wait for it, or cancel it.",
    413: "Export fewer types or a smaller group: this export would have too many files.",
    422: "Check the values of types and type filters.",
    501: "The server does not support this operation: choose another level of export.",
}


class HttpSession:
    """Sends single requests to allowed addresses; no retries, no credentials, no redirects."""

    def __init__(
        self, source: FhirSource, clock: Clock, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.source = source
        self.clock = clock
        _silence_url_logging()
        self._client = httpx.AsyncClient(
            verify=_tls_context(source),
            timeout=httpx.Timeout(source.timeout, connect=min(30.0, source.timeout), pool=None),
            limits=httpx.Limits(max_connections=source.concurrency + 2),
            headers={"User-Agent": f"cohortflow/{__version__}", "Accept-Encoding": "gzip"},
            follow_redirects=False,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        """Send one request; the body of the response is yet to be read, and the caller closes it.

        Raises:
            ExportRejectedError: The address is not one that data or credentials may travel to.
            TransientSourceError: The server is busy or cannot be reached.
            ConfigurationError: The server's certificate is not trusted.
        """
        host = host_of(url)
        if not self.source.allows(url):
            raise ExportRejectedError(
                "The server pointed to an address that is not https.",
                place=host,
                remedy="Ask its operator to send https addresses.",
            )
        try:
            request = self._client.build_request(method, url, headers=headers, content=content)
            response = await self._client.send(request, stream=True)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise translate_error(error, host) from None
        try:
            await self._raise_if_busy(response, host)
        except BaseException:
            await response.aclose()
            raise
        return response

    async def _raise_if_busy(self, response: httpx.Response, host: str) -> None:
        status = response.status_code
        if status not in _BUSY and status < _SERVER_ERROR:
            return
        body = await read_body(response)
        issues = parse_outcome(body)
        if status in _BUSY or any(issue.code in _BUSY_ISSUES for issue in issues):
            retry_after = parse_retry_after(
                response.headers.get("Retry-After"), self.clock.time(), response.headers.get("Date")
            )
            if retry_after is None and says_too_recent(body):
                raise too_recent(self.source)
            codes = describe_issues(issues)
            raise TransientSourceError(
                f"The server is busy: HTTP {status}" + (f" ({codes})." if codes else "."),
                place=host,
                remedy="Run it again later; what was downloaded is kept.",
                retry_after=retry_after,
            )


def too_recent(source: FhirSource, retry_after: float | None = None) -> TransientSourceError:
    """Return the error for a Group that was exported a short while ago, with the time to wait."""
    return TransientSourceError(
        "The server has exported this Group too recently.",
        place=source.host,
        remedy="The next export can start when the server's window has passed; do not try before.",
        retry_after=retry_after or source.profile.kick_off_window_seconds,
    )


def host_of(url: str) -> str:
    """Return the host name of a URL: the only part that may be shown."""
    with suppress(ValueError):
        return urlsplit(url).hostname or ""
    return ""


async def read_body(response: httpx.Response) -> bytes:
    """Return the body of a refusal; empty where it breaks off."""
    try:
        return await response.aread()
    except httpx.RequestError:
        return b""


async def read_issues(response: httpx.Response) -> tuple[Issue, ...]:
    """Read the body of a response and return its issues, if it is an OperationOutcome."""
    return parse_outcome(await read_body(response))


async def describe_failure(response: httpx.Response, action: str, *, gone: bool = False) -> SourceError:
    """Return the error for a response with a status of 400 or more that is not transient.

    Args:
        response: The response.
        action: What was tried, as a noun such as ``kick-off``.
        gone: Whether 404 and 410 mean that the export expired.
    """
    status = response.status_code
    codes = describe_issues(await read_issues(response))
    text = f"The server answered the {action} with HTTP {status}" + (f" ({codes})." if codes else ".")
    host = response.request.url.host
    if gone and status in (404, 410):
        return ExportExpiredError(text, place=host, remedy="Run it again: a new export will be started.")
    remedy = _REMEDIES.get(status, "Ask the server's operator; the codes say what it met.")
    if status == httpx.codes.UNAUTHORIZED:
        kind = response.request.headers.get("Authorization", "").partition(" ")[0]
        return AuthorizationError(text, place=host, remedy=_UNAUTHORIZED.get(kind, _UNAUTHORIZED[""]))
    if status == httpx.codes.FORBIDDEN:
        return AuthorizationError(text, place=host, remedy=remedy)
    return ExportRejectedError(text, place=host, remedy=remedy)


def translate_error(error: Exception, host: str) -> SourceError | ConfigurationError:
    """Return our error for one of httpx; its own text is left out because it may hold a URL."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ConfigurationError(
                "The server's certificate is not trusted.",
                place=host,
                remedy="Name a file with the hospital's certificates in the connection's extra 'ca_bundle'.",
            )
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return ExportRejectedError(
            f"The server pointed to an unusable address ({type(error).__name__}).",
            place=host,
            remedy="Ask the server's operator.",
        )
    return TransientSourceError(
        f"The server cannot be reached, or hung up ({type(error).__name__}).",
        place=host,
        remedy="Check host, port and firewall; what was downloaded is kept.",
    )


def _tls_context(source: FhirSource) -> ssl.SSLContext | bool:
    if not source.verify:
        return False
    return ssl.create_default_context(cafile=source.ca_bundle) if source.ca_bundle else True


def _silence_url_logging() -> None:
    # At INFO httpx logs whole URLs, at DEBUG httpcore logs headers: export ids, search terms, signatures.
    for name in ("httpx", "httpcore"):
        logger = logging.getLogger(name)
        if logger.getEffectiveLevel() < logging.WARNING:
            logger.setLevel(logging.WARNING)
