"""SMART Backend Services: registered clients, signed assertions, bearer tokens.

Follows SMART App Launch 2.2 "Backend Services" and "Client Authentication: Asymmetric".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import httpx
import jwt
import orjson

from cohortflow.errors import InputError
from cohortflow.sandbox.outcome import OAuthRefusalError, RefusalError
from cohortflow.sandbox.persona import Persona
from cohortflow.sandbox.scopes import EVERYTHING, Scope, grant_scopes, parse_scopes

__all__ = ["ALGORITHMS", "ClientRegistry", "Grant", "JwksSource", "TokenIssuer"]

ALGORITHMS = ("RS384", "ES384")

JwksSource = Mapping[str, Any] | Path | str
"""A JWK Set, a file with one, or an http(s) URL of one."""

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LONGEST_LIFE = 300
_JWKS_CACHE_SECONDS = 60.0
_REQUIRED_CLAIMS = ["iss", "sub", "aud", "exp", "jti"]


@dataclass(frozen=True, slots=True)
class Grant:
    """What the bearer of a token may do.

    Attributes:
        client_id: Whom the token was issued to; empty on a server without authorization.
        scopes: What it allows.
    """

    client_id: str = ""
    scopes: tuple[Scope, ...] = EVERYTHING


@dataclass(slots=True)
class _Client:
    source: JwksSource
    scopes: tuple[Scope, ...]
    keys: list[dict[str, Any]]
    fetched: float = 0.0
    secret: str | None = None


class ClientRegistry:
    """The clients that the hospital knows, with their public keys."""

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}

    def add(self, client_id: str, source: JwksSource, scope: str = "system/*.rs") -> None:
        """Register a client, or change its registration.

        Args:
            client_id: Its id.
            source: Its public keys.
            scope: The scopes that it may be granted.

        Raises:
            InputError: The key set cannot be read, or has a private key in it.
        """
        scopes = parse_scopes(scope)
        keys: list[dict[str, Any]] = []
        if isinstance(source, Path) or (isinstance(source, str) and "://" not in source):
            path = Path(source)
            try:
                keys = _public_keys(orjson.loads(path.read_bytes()))
            except (OSError, ValueError) as error:
                raise InputError(
                    "this is no readable JWK Set with public keys only",
                    place=str(path),
                    remedy='Give a file with {"keys": [...]}, or the URL of one.',
                ) from error
        elif not isinstance(source, str):
            try:
                keys = _public_keys(source)
            except ValueError as error:
                raise InputError(f"client '{client_id}': {error}") from error
        self._clients[client_id] = _Client(source, scopes, keys)

    def scopes(self, client_id: str) -> tuple[Scope, ...]:
        """The scopes that a registered client may be granted."""
        return self._clients[client_id].scopes

    def add_secret(self, client_id: str, secret: str, scope: str = "system/*.rs") -> None:
        """Register a client that has a secret instead of keys, as small servers have them."""
        self._clients[client_id] = _Client({}, parse_scopes(scope), [], secret=secret)

    @property
    def has_secrets(self) -> bool:
        """Whether any client has a secret."""
        return any(client.secret is not None for client in self._clients.values())

    def check_secret(self, client_id: str, secret: str) -> bool:
        """Whether this is the secret of a client."""
        client = self._clients.get(client_id)
        if client is None or client.secret is None:
            return False
        return hmac.compare_digest(client.secret.encode(), secret.encode())

    def is_hosted(self, client_id: str) -> bool:
        """Whether a registered client hosts its keys at a URL."""
        source = self._clients[client_id].source
        return isinstance(source, str) and "://" in source

    def key(self, client_id: str, kid: str, jku: str | None) -> dict[str, Any]:
        """The public key of a client by its id, fetched anew from a URL where it is not known.

        Raises:
            OAuthRefusalError: ``invalid_client``.
        """
        client = self._clients.get(client_id)
        if client is None:
            raise OAuthRefusalError("invalid_client", "no client with this id is registered")
        if jku is not None and jku != client.source:
            raise OAuthRefusalError("invalid_client", "jku is not the registered JWKS URL")
        remote = self.is_hosted(client_id)
        stale = remote and time.monotonic() - client.fetched > _JWKS_CACHE_SECONDS
        found = _by_kid(client.keys, kid)
        if remote and (stale or found is None):
            client.keys, client.fetched = _fetch_keys(str(client.source)), time.monotonic()
            found = _by_kid(client.keys, kid)
        if found is None:
            raise OAuthRefusalError("invalid_client", "the client's JWK Set has no key with this kid")
        return found


class TokenIssuer:
    """Issues and checks access tokens.

    Args:
        clients: Who may ask.
        persona: How long a token is valid, and which assertions and scopes are refused.
        clock_offset: Seconds by which the server's clock is ahead of this machine's.
    """

    def __init__(self, clients: ClientRegistry, persona: Persona, clock_offset: float = 0.0) -> None:
        self._clients = clients
        self._persona = persona
        self._clock_offset = clock_offset
        self._lock = threading.Lock()
        self._used: dict[tuple[str, str], float] = {}
        self._tokens: dict[bytes, tuple[Grant, float]] = {}

    def issue(
        self,
        form: Mapping[str, str],
        token_url: str,
        lifetime: int | None = None,
        authorization: str | None = None,
    ) -> dict[str, Any]:
        """Answer a token request.

        Args:
            form: The fields of the request.
            token_url: The URL of the token endpoint, which the assertion has to be addressed to.
            lifetime: Seconds, if not the usual.
            authorization: The ``Authorization`` header, where a client may put its id and secret.

        Returns:
            The token response (RFC 6749, section 5.1).

        Raises:
            OAuthRefusalError: With the OAuth error code of the first thing that is wrong.
        """
        if form.get("grant_type") != "client_credentials":
            raise OAuthRefusalError("unsupported_grant_type", "grant_type has to be client_credentials")
        client_id = self._secret_holder(form, authorization)
        used: tuple[str, float] | None = None
        if client_id is None:
            if form.get("client_assertion_type") != _ASSERTION_TYPE or not form.get("client_assertion"):
                raise OAuthRefusalError(
                    "invalid_client", "authenticate with a client_assertion of type jwt-bearer"
                )
            client_id, token_id, expires = self._check_assertion(form["client_assertion"], token_url)
            used = token_id, expires
        requested = parse_scopes(form.get("scope", ""))
        if not self._persona.wildcard_scopes and any(scope.resource_type == "*" for scope in requested):
            raise OAuthRefusalError("invalid_scope", "ask for the scope of each resource type (no wildcards)")
        scopes = grant_scopes(requested, self._clients.scopes(client_id))
        if used is not None:
            self._use_once(client_id, *used)
        seconds = self._persona.token_seconds if lifetime is None else lifetime
        token = secrets.token_urlsafe(32)
        now = time.monotonic()
        with self._lock:
            self._tokens = {key: entry for key, entry in self._tokens.items() if entry[1] > now}
            self._tokens[_digest(token)] = (Grant(client_id, scopes), now + seconds)
        return {
            "access_token": token,
            "token_type": "bearer",
            "expires_in": seconds,
            "scope": " ".join(map(str, scopes)),
        }

    def check(self, authorization: str | None) -> Grant:
        """The grant of an ``Authorization`` header.

        Raises:
            RefusalError: 401, when there is no valid bearer token.
        """
        if not authorization:
            raise RefusalError(
                401, "login", "no access token", {"WWW-Authenticate": 'Bearer realm="sandbox"'}
            )
        kind, _, token = authorization.partition(" ")
        if (holder := self._secret_holder({}, authorization)) is not None:
            return Grant(holder, self._clients.scopes(holder))
        with self._lock:
            grant, expires = self._tokens.get(_digest(token.strip()), (None, 0.0))
        if kind.lower() != "bearer" or grant is None or expires <= time.monotonic():
            raise expired_token()
        return grant

    def revoke_all(self) -> None:
        """Make every token that was issued invalid."""
        with self._lock:
            self._tokens.clear()

    def _secret_holder(self, form: Mapping[str, str], authorization: str | None) -> str | None:
        # RFC 6749, section 2.3.1: HTTP Basic, or the two fields. None: it says nothing of a secret.
        if "client_assertion" in form:
            return None
        client_id, secret = form.get("client_id", ""), form.get("client_secret")
        kind, _, encoded = (authorization or "").partition(" ")
        if kind.lower() == "basic":
            try:
                client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
            except ValueError:
                return None
            if form:  # only the token endpoint has the two parts encoded
                client_id, secret = unquote_plus(client_id), unquote_plus(secret)
        return client_id if secret is not None and self._clients.check_secret(client_id, secret) else None

    def _check_assertion(self, assertion: str, token_url: str) -> tuple[str, str, float]:
        try:
            header = jwt.get_unverified_header(assertion)
            unverified = jwt.decode(assertion, options={"verify_signature": False})
        except jwt.PyJWTError as error:
            raise OAuthRefusalError("invalid_client", "the client_assertion is no JWT") from error
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise OAuthRefusalError("invalid_client", f"sign with one of {', '.join(ALGORITHMS)}")
        if not kid or header.get("typ", "JWT") != "JWT":
            raise OAuthRefusalError("invalid_client", "the JWT header needs kid, and typ JWT")
        client_id = unverified.get("iss")
        if not isinstance(client_id, str) or unverified.get("sub") != client_id:
            raise OAuthRefusalError("invalid_client", "iss and sub both have to be the client id")
        key = self._clients.key(client_id, kid, header.get("jku"))
        try:
            claims = jwt.decode(
                assertion,
                jwt.PyJWK(key, algorithm),
                algorithms=[algorithm],
                audience=token_url,
                options={
                    "require": _REQUIRED_CLAIMS,
                    # The server's clock, not this machine's, judges the times below.
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.InvalidAudienceError as error:
            raise OAuthRefusalError(
                "invalid_client", "aud has to be the URL of the token endpoint"
            ) from error
        except jwt.PyJWTError as error:
            raise OAuthRefusalError(
                "invalid_client", f"the client_assertion is not valid: {error}"
            ) from error
        self._check_manners(client_id, claims)
        return client_id, str(claims["jti"]), float(claims["exp"])

    def _check_manners(self, client_id: str, claims: Mapping[str, Any]) -> None:
        # Times by the server's clock, and what goes beyond the registered claims.
        longest = self._persona.longest_token_id
        now = time.time() + self._clock_offset
        times = [claims["exp"], claims.get("iat", 0), claims.get("nbf", 0)]
        if not all(isinstance(moment, int | float) for moment in times):
            raise OAuthRefusalError("invalid_client", "exp, iat and nbf have to be numbers")
        if claims["exp"] <= now:
            raise OAuthRefusalError("invalid_client", "the client_assertion has expired")
        if max(times[1:]) > now:
            raise OAuthRefusalError("invalid_client", "the client_assertion is not valid yet")
        if claims["exp"] - now > _LONGEST_LIFE:  # E8
            raise OAuthRefusalError("invalid_client", "exp is more than five minutes ahead")
        if longest is not None and len(str(claims["jti"])) > longest:  # E8
            raise OAuthRefusalError("invalid_client", f"jti is longer than {longest} characters")
        if self._persona.jwks_url_only and not self._clients.is_hosted(client_id):  # E7
            raise OAuthRefusalError("invalid_client", "the client has to host its keys at a JWKS URL")

    def _use_once(self, client_id: str, token_id: str, expires: float) -> None:
        with self._lock:
            now = time.time() + self._clock_offset
            self._used = {used: until for used, until in self._used.items() if until >= now}
            if (client_id, token_id) in self._used:
                raise OAuthRefusalError("invalid_client", "this jti was used before")
            self._used[client_id, token_id] = expires


def expired_token() -> RefusalError:
    """What a request with an unknown or expired token is told."""
    challenge = 'Bearer realm="sandbox", error="invalid_token", error_description="The access token expired"'
    return RefusalError(401, "expired", "the access token is not valid", {"WWW-Authenticate": challenge})


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _public_keys(key_set: object) -> list[dict[str, Any]]:
    keys = key_set.get("keys") if isinstance(key_set, Mapping) else None
    if not isinstance(keys, list) or not keys or not all(isinstance(key, dict) for key in keys):
        raise ValueError("a JWK Set is an object with a list 'keys'")
    if any("d" in key or key.get("kty") == "oct" for key in keys):
        raise ValueError("the JWK Set has a private key in it")
    return keys


def _by_kid(keys: list[dict[str, Any]], kid: str) -> dict[str, Any] | None:
    return next((key for key in keys if key.get("kid") == kid), None)


def _fetch_keys(url: str) -> list[dict[str, Any]]:
    try:
        answer = httpx.get(url, timeout=5.0, headers={"Accept": "application/json"})
        return _public_keys(answer.raise_for_status().json())
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise OAuthRefusalError("invalid_client", "the client's JWKS URL cannot be read") from error
