"""Compares the keys that a connection signs with to the key set that servers fetch.

Nearly every ``invalid_client`` comes from a difference between these two.
Source: SMART App Launch 2.2, "Client Authentication: Asymmetric", https://hl7.org/fhir/smart-app-launch/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
import orjson

from cohortflow.connectors.keys.jwk import SECRET_MEMBERS, describe_public_key, read_jwk, thumbprint
from cohortflow.connectors.keys.signing import SigningKey
from cohortflow.connectors.loopback import is_loopback
from cohortflow.errors import ConfigurationError

__all__ = ["Finding", "check_algorithm", "check_published_keys", "compare_keys"]

_MAX_BYTES = 1_000_000
_TIMEOUT_SECONDS = 15.0
_MAX_AGE = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?(\d+)")


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one point.

    Attributes:
        severity: ``error``: tokens are, or will be, refused; ``warning``: some servers may refuse.
        text: What was found.
        remedy: What to do about it.
    """

    severity: Literal["ok", "warning", "error"]
    text: str
    remedy: str = ""


async def check_published_keys(
    key: SigningKey, url: str, *, now: float, transport: httpx.AsyncBaseTransport | None = None
) -> list[Finding]:
    """Fetch a key set as a server does, and compare it to the keys that sign.

    Args:
        key: The key that signs, with those that take over from it.
        url: The registered JWKS URL.
        now: Seconds since the epoch.
        transport: Replaces the network in tests.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        return [
            Finding("error", "The address is not https.", "SMART demands TLS: put it in front of the server.")
        ]
    # Neither credentials nor a proxy's own headers: a server that fetches the set has none.
    client = httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, follow_redirects=True, transport=transport)
    try:
        async with client:
            response = await client.get(url, headers={"Accept": "application/json"})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return [
            Finding(
                "error",
                f"The address cannot be fetched ({type(error).__name__}).",
                "Check name, firewall and certificate. It has to be reachable from the server, too.",
            )
        ]
    if response.status_code != httpx.codes.OK:
        return [
            Finding(
                "error",
                f"The address answers with HTTP {response.status_code}.",
                "It has to answer 200 to everyone, without authorization.",
            )
        ]
    findings = []
    if response.history:
        findings.append(
            Finding(
                "warning",
                f"The address redirects to {response.url.host}.",
                "Some servers follow no redirect: register the final address.",
            )
        )
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        findings.append(
            Finding(
                "warning",
                f"The content type is '{kind}'.",
                "Serve it as application/json: servers ask for that.",
            )
        )
    entries = _read_entries(response.content[:_MAX_BYTES])
    if entries is None:
        text = "What the address answers is no JWK set."
        return [*findings, Finding("error", text, "Publish it with 'cohortflow jwks publish'.")]
    findings += compare_keys(key, entries)
    return findings + _check_caching(key, response.headers.get("Cache-Control", ""), now)


def compare_keys(key: SigningKey, entries: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Compare the keys that sign, now or later, to the entries of a published set."""
    findings = []
    if any(SECRET_MEMBERS.intersection(entry) for entry in entries):
        findings.append(
            Finding(
                "error",
                "The published set holds a PRIVATE key. Everyone can get tokens with it.",
                "Take it down, then: cohortflow jwks rotate --overlap 0, and publish the new set.",
            )
        )
    for one in (key, *key.successors):
        role = "signs" if one is key else f"signs from {_moment(one.signs_from)}"
        findings.append(_compare(one, role, entries))
    return findings


def check_algorithm(key: SigningKey, supported: object) -> Finding | None:
    """Compare the key's algorithm to a server's ``token_endpoint_auth_signing_alg_values_supported``."""
    if not isinstance(supported, list) or not supported:
        return None
    if key.algorithm in supported:
        return Finding("ok", f"The server accepts {key.algorithm}.")
    known = ", ".join(name for name in ("RS384", "ES384") if name in supported) or "neither RS384 nor ES384"
    return Finding(
        "error",
        f"The key signs with {key.algorithm}, but the server names {known}.",
        "Add a key of another kind: cohortflow jwks rotate --alg.",
    )


def _read_entries(body: bytes) -> list[dict[str, Any]] | None:
    try:
        entries = orjson.loads(body)["keys"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    whole = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    return entries if whole else None


def _compare(key: SigningKey, role: str, entries: Sequence[Mapping[str, Any]]) -> Finding:
    name = f"The key '{key.kid}', which {role},"
    found = [entry for entry in entries if entry.get("kid") == key.kid]
    if not found:
        other = _find_by_material(key, entries)
        if other is not None:
            return Finding(
                "error",
                f"{name} is published under another kid: '{other}'.",
                f"Set the connection's extra 'kid' to '{other}', or publish the key set again.",
            )
        return Finding(
            "error",
            f"{name} is not in the published set.",
            "Publish the set again: cohortflow jwks publish. Then wait as long as servers keep their copy.",
        )
    if len(found) > 1:
        return Finding(
            "error", f"{name} is in the published set {len(found)} times.", "Servers refuse both: remove one."
        )
    [entry] = found
    if not _same_material(key, entry):
        return Finding(
            "error",
            f"{name} has another public key in the published set.",
            "Publish the set again, from the key that the connection holds.",
        )
    wrong = [
        member
        for member, fits in (
            ("alg", entry.get("alg", key.algorithm) == key.algorithm),
            ("use", entry.get("use", "sig") == "sig"),
            ("key_ops", "verify" in entry.get("key_ops", ["verify"])),
        )
        if not fits
    ]
    if wrong:
        return Finding(
            "error",
            f"{name} is published for other uses: see {', '.join(wrong)}.",
            f"It needs alg {key.algorithm}, use sig, key_ops verify, or none of them.",
        )
    return Finding("ok", f"{name} is published.")


def _same_material(key: SigningKey, entry: Mapping[str, Any]) -> bool:
    expected = describe_public_key(key.private)
    return {name: entry.get(name) for name in expected} == expected


def _find_by_material(key: SigningKey, entries: Iterable[Mapping[str, Any]]) -> str | None:
    wanted = thumbprint(key.private)
    for entry in entries:
        try:
            if thumbprint(read_jwk(entry, "published")) == wanted and isinstance(entry.get("kid"), str):
                return str(entry["kid"])
        except ConfigurationError:
            continue
    return None


def _check_caching(key: SigningKey, cache_control: str, now: float) -> list[Finding]:
    match = _MAX_AGE.search(cache_control.lower())
    if match is None:
        remedy = "Send Cache-Control with max-age, so that servers know when to fetch it again."
        return [Finding("warning", "The answer does not say how long it may be kept.", remedy)]
    seconds = int(match[1])
    if key.successors and seconds > key.successors[0].signs_from - now:
        return [
            Finding(
                "warning",
                f"Servers may keep the set for {seconds} s, beyond the next key's first signature.",
                "Rotate with a longer --overlap, or publish with a shorter --max-age.",
            )
        ]
    return [Finding("ok", f"Servers may keep the set for {seconds} s.")]


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
