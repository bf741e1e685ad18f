"""Authorized requests: credentials where they belong, redirects by hand, retries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from cohortflow.connectors.settings import FhirSource
from cohortflow.connectors.transport.auth import make_authorizer
from cohortflow.connectors.transport.http import HttpSession, host_of, translate_error
from cohortflow.connectors.transport.pace import Pace
from cohortflow.connectors.transport.retry import Clock, RetryPolicy, SystemClock
from cohortflow.errors import ExportRejectedError

__all__ = ["FhirClient", "connect"]

_MAX_HOPS = 10


class FhirClient:
    """Sends requests to a FHIR server and to where it points.

    Attributes:
        source: The server's settings.
        clock: The time.
        policy: When to try again.
    """

    def __init__(self, session: HttpSession, policy: RetryPolicy) -> None:
        self.source = session.source
        self.clock = session.clock
        self.policy = policy
        self._session = session
        self._authorizer = make_authorizer(session, policy)
        self._pace = Pace(self.source.profile.requests_per_second, self.clock)

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        private: bool = True,
    ) -> AsyncIterator[httpx.Response]:
        """Try a request once and give its response with the body yet to be read.

        A token that the server refuses is renewed once. Redirects are followed; from the first one
        that leaves the origin on, neither the token nor the source's own headers are sent, so that
        they never reach a file store.

        Args:
            method: HTTP method.
            url: Absolute URL.
            headers: Headers to send.
            content: Body to send.
            private: Whether to send credentials.

        Raises:
            AuthorizationError: The token endpoint refused the credentials.
            ExportRejectedError: The server pointed to where requests may not go.
            TransientSourceError: The server is busy or unreachable, or hung up within the body.
        """
        renewed = False
        for _ in range(_MAX_HOPS):
            token = await self._authorizer.header() if private else None
            sent = {**(headers or {}), **(self.source.own_headers if private else {})}
            if token:
                sent["Authorization"] = token
            await self._pace.wait(url)
            response = await self._session.send(method, url, headers=sent, content=content)
            try:
                if response.status_code == httpx.codes.UNAUTHORIZED and token and not renewed:
                    renewed = True
                    if await self._authorizer.renew(token):
                        continue
                if response.has_redirect_location:
                    target = _redirect_target(url, response.headers["Location"])
                    private = private and _origin(target) == _origin(url)
                    if response.status_code == httpx.codes.SEE_OTHER:
                        method, content = "GET", None
                    url = target
                    continue
                yield response
            except httpx.RequestError as error:
                raise translate_error(error, host_of(url)) from None
            finally:
                await response.aclose()
            return
        raise ExportRejectedError(
            f"More than {_MAX_HOPS} redirects.",
            place=self.source.host,
            remedy="Ask the server's operator.",
        )

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        private: bool = True,
        policy: RetryPolicy | None = None,
    ) -> httpx.Response:
        """Send a request with retries and return its response, body included, whatever its status.

        Raises:
            AuthorizationError: The token endpoint refused the credentials.
            ExportRejectedError: The server pointed to where requests may not go.
            TransientSourceError: The server stayed busy or unreachable.
        """

        async def attempt() -> httpx.Response:
            async with self.open(method, url, headers=headers, content=content, private=private) as response:
                await response.aread()
                return response

        return await (policy or self.policy).run(attempt, self.clock)


@asynccontextmanager
async def connect(
    source: FhirSource,
    *,
    clock: Clock | None = None,
    policy: RetryPolicy | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[FhirClient]:
    """Open a client of a FHIR server; nothing is sent yet.

    Args:
        source: The server's settings.
        clock: The time; the machine's by default.
        policy: When to try again.
        transport: Replaces the network in tests.
    """
    async with HttpSession(source, clock or SystemClock(), transport=transport) as session:
        yield FhirClient(session, policy or RetryPolicy())


def _redirect_target(url: str, location: str) -> str:
    try:
        return str(httpx.URL(url).join(location))
    except httpx.InvalidURL:
        raise ExportRejectedError(
            "The server redirects to an unusable address.",
            place=host_of(url),
            remedy="Ask the server's operator.",
        ) from None


def _origin(url: str) -> tuple[str, str, int | None]:
    parsed = httpx.URL(url)
    return parsed.scheme, parsed.host, parsed.port
