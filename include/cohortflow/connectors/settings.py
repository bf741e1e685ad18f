"""Settings of a FHIR server, read from a connection."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast, get_args
from urllib.parse import urlsplit

from cohortflow.connectors.keys.signing import SigningKey, load_signing_key
from cohortflow.connectors.loopback import is_loopback
from cohortflow.connectors.profiles.server import GENERIC, PROFILES, ServerProfile
from cohortflow.errors import ConfigurationError
from cohortflow.model import Connection

__all__ = ["CONNECTION_TYPES", "AuthMode", "FhirSource"]

AuthMode = Literal["backend_services", "client_secret", "basic", "none"]

CONNECTION_TYPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"fhir": tuple(PROFILES), "epic": ("epic",), "cerner": ("cerner", "soarian", "hdr")}
)
"""Profiles that a connection of a type may have; the first is the one that it has without being told."""

_MAX_CONCURRENCY = 32
_FIELDS = frozenset(
    {
        "algorithm",
        "allow_insecure",
        "audience",
        "auth",
        "base_path",
        "ca_bundle",
        "concurrency",
        "headers",
        "jwks_url",
        "kid",
        "private_key_env",
        "private_key_file",
        "profile",
        "profile_overrides",
        "scopes",
        "timeout",
        "token_url",
        "verify",
    }
)


@dataclass(frozen=True, slots=True)
class FhirSource:
    """How to reach one FHIR server; ``repr`` holds no secret.

    Attributes:
        conn_id: The connection's id, for messages.
        base_url: FHIR base URL without a slash at the end.
        auth: How requests are authorized.
        client_id: OAuth client id, or the user name of ``basic``.
        key: Private key of ``backend_services``, with those that take over from it.
        jwks_url: Where the public keys are published, for comparing only.
        secret: Client secret of ``client_secret``, or password of ``basic``.
        token_url: OAuth token endpoint; empty: discovered.
        audience: What assertions name as their audience; empty: the token endpoint.
        scopes: Scopes to ask for.
        headers: Sent with every request that carries credentials, such as ``Epic-Client-ID``.
        verify: Whether the server's certificate is checked.
        ca_bundle: File with the certificates to trust instead of the public ones; empty: the public ones.
        concurrency: Parallel downloads.
        timeout: Seconds without a byte before a request is given up.
        allow_insecure: Whether plain http and unchecked certificates are allowed beyond this machine.
        profile: What sets this kind of server apart.
    """

    conn_id: str
    base_url: str
    auth: AuthMode = "none"
    client_id: str = ""
    key: SigningKey | None = field(default=None, repr=False)
    jwks_url: str = ""
    secret: str = field(default="", repr=False)
    token_url: str = ""
    audience: str = ""
    scopes: tuple[str, ...] = ("system/*.read",)
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    verify: bool = True
    ca_bundle: str = ""
    concurrency: int = 4
    timeout: float = 120.0
    allow_insecure: bool = False
    profile: ServerProfile = GENERIC

    @property
    def host(self) -> str:
        """Host name, the only part of an address that messages and logs show."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def own_headers(self) -> dict[str, str]:
        """Headers of every request that carries credentials, the client id among them if it is wanted."""
        headers = dict(self.headers)
        name = self.profile.client_id_header
        if name and self.client_id and name.lower() not in {key.lower() for key in headers}:
            headers[name] = self.client_id
        return headers

    def allows(self, url: str) -> bool:
        """Tell whether a request may go to this URL: https, or http where the base URL itself may use it."""
        parts = urlsplit(url)
        if parts.scheme == "https":
            return True
        plain = self.base_url.startswith("http:") and is_loopback(parts.hostname or "")
        return parts.scheme == "http" and (self.allow_insecure or plain)

    @classmethod
    def from_connection(cls, connection: Connection, environ: Mapping[str, str] | None = None) -> FhirSource:
        """Read the settings of a connection of type ``fhir``, ``epic`` or ``cerner``.

        Fields of the connection: ``host`` is the FHIR base URL, or a host name with ``port`` and
        ``schema`` (``http`` or ``https``; anything else is a path) and the extra ``base_path``;
        ``login`` is the client id; ``password`` is the private key as PEM, JWK or JWK set, the client
        secret or the password. Extras: ``auth``, ``token_url``, ``audience``, ``algorithm``, ``kid``,
        ``jwks_url``, ``scopes`` (text or list), ``private_key_file``, ``private_key_env``, ``verify``,
        ``ca_bundle``, ``headers`` (mapping), ``concurrency``, ``timeout``, ``allow_insecure``, ``profile``,
        ``profile_overrides`` (mapping). Without ``profile``, the connection's type is the profile, and
        ``fhir`` is a generic server. Extras without a value (``null``, an empty text) count as left out, as
        Airflow's form writes them so; mappings may be given as JSON in a text, as a URI has no others.

        Args:
            connection: The connection.
            environ: Where ``private_key_env`` is looked up; the process's environment by default.

        Raises:
            ConfigurationError: A field is missing or wrong; the message names it and holds no secret.
        """
        given = {name: value for name, value in connection.extra.items() if value not in (None, "")}
        connection = dataclasses.replace(connection, extra=given)
        return _Reader(connection, os.environ if environ is None else environ).read()


def _type_of(profile: str) -> str:
    """Return the most telling connection type that may have a profile."""
    return min(
        (kind for kind, profiles in CONNECTION_TYPES.items() if profile in profiles),
        key=lambda kind: len(CONNECTION_TYPES[kind]),
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    connection: Connection
    environ: Mapping[str, str]

    def read(self) -> FhirSource:
        self._check_fields()
        allow_insecure = self._flag("allow_insecure", default=False)
        base_url = self._base_url()
        local = is_loopback(urlsplit(base_url).hostname or "")
        if base_url.startswith("http:") and not (local or allow_insecure):
            raise self._wrong(
                "host", "asks for plain http", "Use https: patient data must not travel unencrypted."
            )
        verify = self._flag("verify", default=True)
        if not verify and not (local or allow_insecure):
            raise self._wrong(
                "verify",
                "switches certificate checks off",
                "Name the hospital's certificates in 'ca_bundle'.",
            )
        ca_bundle = self._text("ca_bundle")
        if ca_bundle and not Path(ca_bundle).is_file():
            raise self._wrong("ca_bundle", "names no file", "Give the path of a PEM file.")
        auth = self._auth()
        key = self._key() if auth == "backend_services" else None
        profile = self._profile()
        source = FhirSource(
            conn_id=self.connection.conn_id,
            base_url=base_url,
            auth=auth,
            client_id=self.connection.login,
            key=key,
            jwks_url=self._text("jwks_url"),
            secret=self.connection.password if auth in ("client_secret", "basic") else "",
            token_url=self._text("token_url"),
            audience=self._text("audience"),
            scopes=self._scopes(profile, auth),
            headers=self._headers(),
            verify=verify,
            ca_bundle=ca_bundle,
            concurrency=int(self._number("concurrency", 4, 1, _MAX_CONCURRENCY)),
            timeout=self._number("timeout", 120.0, 1.0, 3600.0),
            allow_insecure=allow_insecure,
            profile=profile,
        )
        if source.token_url and not source.allows(source.token_url):
            raise self._wrong(
                "token_url", "is not an https address", "Give the token endpoint's whole https URL."
            )
        return source

    def _check_fields(self) -> None:
        connection = self.connection
        if connection.conn_type not in CONNECTION_TYPES:
            types = ", ".join(CONNECTION_TYPES)
            raise self._wrong("conn_type", f"is '{connection.conn_type}'", f"Use one of {types}.")
        for name in connection.extra:
            near = difflib.get_close_matches(name, _FIELDS, n=1, cutoff=0.8)
            if name not in _FIELDS and near:
                raise self._wrong(name, "is not a known extra", f"Did you mean '{near[0]}'?")

    def _base_url(self) -> str:
        connection = self.connection
        host = connection.host.strip()
        if not host:
            raise self._wrong(
                "host", "is empty", "Set it to the FHIR base URL, such as https://host/fhir/R4."
            )
        if "://" in host:
            url = host
        else:
            scheme, path = connection.schema or "https", self._text("base_path")
            if scheme not in ("http", "https"):
                scheme, path = "https", connection.schema
            port = f":{connection.port}" if connection.port else ""
            url = f"{scheme}://{host}{port}/{path.strip('/')}"
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or parts.query or parts.fragment:
            raise self._wrong(
                "host", "is not a URL", "Set it to the FHIR base URL, such as https://host/fhir/R4."
            )
        if parts.username or parts.password:
            raise self._wrong("host", "holds credentials", "Put them into login and password.")
        return url.rstrip("/")

    def _auth(self) -> AuthMode:
        text = self._text("auth") or ("backend_services" if self.connection.login else "none")
        if text not in get_args(AuthMode):
            raise self._wrong("auth", "is unknown", f"Use one of {', '.join(get_args(AuthMode))}.")
        if text != "none" and not self.connection.login:
            raise self._wrong("login", "is empty", "Set it to the client id that the server registered.")
        if text in ("client_secret", "basic") and not self.connection.password:
            raise self._wrong("password", "is empty", f"The mode '{text}' needs a secret.")
        return cast("AuthMode", text)

    def _key(self) -> SigningKey:
        text, name = self.connection.password, "password"
        if path := self._text("private_key_file"):
            name = "private_key_file"
            try:
                text = Path(path).read_text(encoding="utf-8")
            except (OSError, ValueError):
                raise self._wrong(name, "cannot be read", "Give the path of a PEM or JWK file.") from None
        elif variable := self._text("private_key_env"):
            name = "private_key_env"
            text = self.environ.get(variable, "")
        if not text:
            raise self._wrong(
                name,
                "holds no private key",
                "Put the PEM or JWK into the password, or use 'private_key_file'.",
            )
        place = f"connection '{self.connection.conn_id}', field '{name}'"
        return load_signing_key(text, algorithm=self._text("algorithm"), kid=self._text("kid"), place=place)

    def _profile(self) -> ServerProfile:
        kind = self.connection.conn_type
        fitting = CONNECTION_TYPES[kind]
        name = self._text("profile") or fitting[0]
        if name not in PROFILES:
            raise self._wrong("profile", "is unknown", f"Use one of {', '.join(fitting)}.")
        if name not in fitting:
            raise self._wrong(
                "profile",
                f"is '{name}', which is no kind of '{kind}'",
                f"Use one of {', '.join(fitting)}, or a connection of type '{_type_of(name)}'.",
            )
        overrides = self._mapping("profile_overrides", 'Write it as {"poll_seconds": 600}.')
        try:
            return PROFILES[name].with_overrides(overrides)
        except ConfigurationError as error:
            error.place = f"connection '{self.connection.conn_id}', {error.place}"
            raise

    def _scopes(self, profile: ServerProfile, auth: AuthMode) -> tuple[str, ...]:
        value = self.connection.extra.get("scopes") or "system/*.read"
        items = value.split() if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
            raise self._wrong("scopes", "is no list of texts", "Write the scopes with spaces between them.")
        asks_token = auth in ("backend_services", "client_secret")
        if asks_token and not profile.wildcard_scopes and any("/*." in item for item in items):
            raise self._wrong(
                "scopes",
                "asks for all types at once (so it does when left out), which servers of the profile "
                f"'{profile.name}' refuse",
                "Name one per resource type that the client is registered for, such as "
                "'system/Patient.read system/Encounter.read system/Group.read'.",
            )
        return tuple(items)

    def _headers(self) -> Mapping[str, str]:
        remedy = 'Write it as {"Epic-Client-ID": "..."}.'
        value = self._mapping("headers", remedy)
        if not all(isinstance(item, str) for item in value.values()):
            raise self._wrong("headers", "is no mapping of texts", remedy)
        if any(name.lower() == "authorization" for name in value):
            raise self._wrong("headers", "sets Authorization", "Use login, password and 'auth' instead.")
        return MappingProxyType(dict(value))

    def _mapping(self, name: str, remedy: str) -> Mapping[str, Any]:
        value: Any = self.connection.extra.get(name, {})
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                value = None
        if not isinstance(value, Mapping):
            raise self._wrong(name, "is no object", remedy)
        return value

    def _text(self, name: str) -> str:
        value = self.connection.extra.get(name)
        if value is not None and not isinstance(value, str):
            raise self._wrong(name, "is no text", "Write it in quotes.")
        return (value or "").strip()

    def _flag(self, name: str, *, default: bool) -> bool:
        value: Any = self.connection.extra.get(name, default)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool):
            raise self._wrong(name, "is neither true nor false", "Set it to true or false.")
        return value

    def _number(self, name: str, default: float, low: float, high: float) -> float:
        value: Any = self.connection.extra.get(name, default)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not low <= number <= high:
            raise self._wrong(name, "is out of range", f"Use a number from {low:g} to {high:g}.")
        return number

    def _wrong(self, name: str, fault: str, remedy: str) -> ConfigurationError:
        return ConfigurationError(
            f"The field '{name}' {fault}.", place=f"connection '{self.connection.conn_id}'", remedy=remedy
        )
