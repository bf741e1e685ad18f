"""Authorization of requests: SMART Backend Services, client secret, basic, none.

Source: https://hl7.org/fhir/smart-app-launch/backend-services.html
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import uuid
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import httpx
import orjson

from cohortflow.connectors.settings import FhirSource
from cohortflow.connectors.transport.http import HttpSession, host_of, translate_error
from cohortflow.connectors.transport.retry import RetryPolicy, parse_http_date
from cohortflow.errors import AuthorizationError, ConfigurationError, SourceError, TransientSourceError

__all__ = [
    "Authorizer",
    "NoAuthorizer",
    "StaticAuthorizer",
    "TokenAuthorizer",
    "make_authorizer",
    "read_smart_configuration",
]

_log = logging.getLogger(__name__)

# At most five minutes from now by the server's clock: one minute is left for a clock ahead of it, and
# "issued at" lies in the past for the same reason.
_ASSERTION_SECONDS = 240
_ISSUED_SECONDS_AGO = 30
_TOLERATED_SKEW = 20.0
_DEFAULT_LIFETIME = 300.0
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
_OAUTH_CODE = re.compile(r"[a-z_]{1,40}")
_REMEDIES = {
    "invalid_client": (
        "Check the client id (login), that the public key is registered under the same 'kid' and "
        "algorithm ('cohortflow jwks check' compares them), and this machine's clock."
    ),
    "invalid_scope": (
        "Set the connection's extra 'scopes' to scopes that the client is registered for; some servers "
        "want one per resource type (system/Patient.read), some the form system/*.rs."
    ),
    "unauthorized_client": "Ask the server's operator to allow this client the grant 'client_credentials'.",
    "invalid_request": "Check the connection's extra 'token_url': the assertion names it as its audience.",
    "invalid_grant": "Check the client id (login) and the connection's extra 'token_url'.",
}


class Authorizer(Protocol):
    """Gives the ``Authorization`` header of a request."""

    async def header(self) -> str | None:
        """Return the header's value, or ``None`` where requests go without."""
        ...

    async def renew(self, rejected: str) -> bool:
        """Get a new header because the server refused this one; ``False`` where there is no other."""
        ...


@dataclass(frozen=True, slots=True)
class NoAuthorizer:
    """Requests go without."""

    async def header(self) -> str | None:
        """Return ``None``."""
        return None

    async def renew(self, rejected: str) -> bool:
        """Return ``False``."""
        del rejected
        return False


@dataclass(frozen=True, slots=True, repr=False)
class StaticAuthorizer:
    """The same header for every request (HTTP basic)."""

    value: str

    async def header(self) -> str | None:
        """Return the header's value."""
        return self.value

    async def renew(self, rejected: str) -> bool:
        """Return ``False``: there is no other."""
        del rejected
        return False


class TokenAuthorizer:
    """Fetches access tokens by the grant ``client_credentials`` and keeps them until they expire.

    Safe for concurrent use: one request for a token is under way at a time.
    """

    def __init__(self, session: HttpSession, policy: RetryPolicy) -> None:
        self._session = session
        self._source = session.source
        self._clock = session.clock
        self._policy = policy
        self._lock = asyncio.Lock()
        self._header = ""
        self._valid_until = 0.0
        self._token_url = self._source.token_url
        self._skew = 0.0

    async def header(self) -> str | None:
        """Return ``Bearer`` and a token that is valid for a while yet.

        Raises:
            AuthorizationError: The server refused the credentials or the scopes.
            ConfigurationError: There is no token endpoint.
            TransientSourceError: The server is busy or unreachable.
        """
        async with self._lock:
            if self._clock.time() >= self._valid_until:
                await self._fetch()
            return self._header

    async def renew(self, rejected: str) -> bool:
        """Fetch a new token unless another request already replaced the rejected one."""
        async with self._lock:
            if self._header == rejected or self._clock.time() >= self._valid_until:
                await self._fetch()
            return True

    async def _fetch(self) -> None:
        token, lifetime = await self._policy.run(self._request, self._clock)
        # Short-lived tokens lose a tenth of their life to the margin, long-lived ones a minute.
        self._valid_until = self._clock.time() + lifetime - min(60.0, lifetime / 10)
        self._header = f"Bearer {token}"
        _log.info("Got an access token for %s, valid for %d s", self._source.host, lifetime)

    async def _request(self) -> tuple[str, float]:
        if not self._token_url:
            self._token_url = await discover_token_url(self._session)
        response = await self._post()
        if response.status_code in (400, 401, 403) and self._correct_skew(response):
            response = await self._post()
        return self._read_token(response)

    async def _post(self) -> httpx.Response:
        form = {"grant_type": "client_credentials", "scope": " ".join(self._source.scopes)}
        headers = {
            **self._source.own_headers,
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        if self._source.key is not None:
            form |= {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": self._assertion()}
        else:
            # RFC 6749, 2.3.1: both parts are form-encoded first.
            headers["Authorization"] = _basic(
                quote(self._source.client_id, safe=""), quote(self._source.secret, safe="")
            )
        return await _read(self._session, "POST", self._token_url, headers, urlencode(form).encode())

    def _assertion(self) -> str:
        if self._source.key is None:
            raise AssertionError
        now = int(self._clock.time() + self._skew)
        # The key's times are our own, so its turn comes by our clock.
        return self._source.key.at(self._clock.time()).sign(
            {
                "iss": self._source.client_id,
                "sub": self._source.client_id,
                "aud": self._source.audience or self._token_url,
                "jti": uuid.uuid4().hex,
                "iat": now - _ISSUED_SECONDS_AGO,
                "exp": now + _ASSERTION_SECONDS,
            }
        )

    def _correct_skew(self, response: httpx.Response) -> bool:
        """Take over the server's time after a refusal; ``True`` where that makes a difference."""
        server_now = parse_http_date(response.headers.get("Date"))
        if server_now is None or self._source.key is None:
            return False
        skew = server_now - self._clock.time()
        if abs(skew - self._skew) <= _TOLERATED_SKEW:
            return False
        _log.warning("This machine's clock differs from %s by %d s", host_of(self._token_url), skew)
        self._skew = skew
        return True

    def _read_token(self, response: httpx.Response) -> tuple[str, float]:
        place = host_of(self._token_url)
        status = response.status_code
        value = _json_object(response)
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise TransientSourceError(
                f"The token endpoint failed with HTTP {status}.", place=place, remedy="Run it again later."
            )
        if status != httpx.codes.OK:
            code = value.get("error")
            code = code if isinstance(code, str) and _OAUTH_CODE.fullmatch(code) else ""
            raise AuthorizationError(
                f"The server refused a token: HTTP {status}" + (f" ({code})." if code else "."),
                place=place,
                remedy=_REMEDIES.get(code, "Check login, key, 'scopes' and 'token_url' of the connection."),
            )
        token = value.get("access_token")
        if not isinstance(token, str) or not token:
            raise AuthorizationError(
                "The token endpoint answered without an access token.",
                place=place,
                remedy="Check the connection's extra 'token_url'.",
            )
        try:
            lifetime = float(value.get("expires_in", _DEFAULT_LIFETIME))
        except (TypeError, ValueError):
            lifetime = _DEFAULT_LIFETIME
        return token, lifetime if 0 < lifetime < float("inf") else _DEFAULT_LIFETIME


def make_authorizer(session: HttpSession, policy: RetryPolicy) -> Authorizer:
    """Return the authorizer that a source's ``auth`` names."""
    source: FhirSource = session.source
    if source.auth == "none":
        return NoAuthorizer()
    if source.auth == "basic":
        return StaticAuthorizer(_basic(source.client_id, source.secret))
    return TokenAuthorizer(session, policy)


async def discover_token_url(session: HttpSession) -> str:
    """Ask the server for its token endpoint.

    First ``.well-known/smart-configuration`` is read, then the CapabilityStatement.

    Raises:
        ConfigurationError: Neither names one.
        TransientSourceError: The server is busy or unreachable.
    """
    source = session.source
    smart = await read_smart_configuration(session)
    url = smart.get("token_endpoint")
    if not isinstance(url, str):
        url = _oauth_uri(await _get_json(session, "/metadata", "application/fhir+json"))
    if not isinstance(url, str) or not source.allows(url):
        raise ConfigurationError(
            "The server does not publish a token endpoint.",
            place=f"connection '{source.conn_id}'",
            remedy="Set the connection's extra 'token_url'.",
        )
    return url


async def read_smart_configuration(session: HttpSession) -> dict[str, Any]:
    """Return what the server says of its authorization; nothing where it says nothing.

    Raises:
        TransientSourceError: The server is busy or unreachable.
    """
    return await _get_json(session, "/.well-known/smart-configuration", "application/json")


async def _get_json(session: HttpSession, path: str, accept: str) -> dict[str, Any]:
    headers = {**session.source.own_headers, "Accept": accept}
    try:
        response = await _read(session, "GET", f"{session.source.base_url}{path}", headers)
    except TransientSourceError:
        raise
    except SourceError:
        return {}
    return _json_object(response) if response.status_code == httpx.codes.OK else {}


async def _read(
    session: HttpSession, method: str, url: str, headers: dict[str, str], content: bytes | None = None
) -> httpx.Response:
    response = await session.send(method, url, headers=headers, content=content)
    try:
        await response.aread()
    except httpx.RequestError as error:
        raise translate_error(error, host_of(url)) from None
    finally:
        await response.aclose()
    return response


def _oauth_uri(statement: dict[str, Any]) -> object:
    try:
        extensions = [
            item
            for rest in statement["rest"]
            for outer in rest["security"]["extension"]
            if outer.get("url") == _OAUTH_URIS
            for item in outer["extension"]
        ]
        return next((item.get("valueUri") for item in extensions if item.get("url") == "token"), None)
    except (KeyError, TypeError, AttributeError):
        return None


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        value = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
