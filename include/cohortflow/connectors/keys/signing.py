"""The private key that signs client assertions."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt

from cohortflow.connectors.keys.jwk import (
    ALGORITHMS,
    Algorithm,
    PrivateKey,
    find_algorithm,
    is_signing_key,
    read_pem,
    read_private_jwk,
    thumbprint,
)
from cohortflow.connectors.keys.key_set import KeyTimes, order_for_signing, read_times
from cohortflow.errors import ConfigurationError

__all__ = ["Algorithm", "SigningKey", "load_signing_key"]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key; ``repr`` shows its algorithm and id only.

    Attributes:
        algorithm: ``RS384`` or ``ES384``, the two that SMART Backend Services asks every client for.
        kid: Id of the public key in the client's key set.
        private: The key itself.
        signs_from: Seconds since the epoch from which on it signs; 0 for ever.
        successors: The keys of the same set that take over later, in this order.
    """

    algorithm: Algorithm
    kid: str
    private: PrivateKey = field(repr=False, compare=False)
    signs_from: float = 0.0
    successors: tuple[SigningKey, ...] = ()

    def at(self, now: float) -> SigningKey:
        """Return the key that signs at a time: this one, or the last successor that has begun."""
        begun = [key for key in self.successors if key.signs_from <= now]
        return begun[-1] if begun else self

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a signed JSON Web Token."""
        headers = {"kid": self.kid} if self.kid else None
        return jwt.encode(dict(claims), self.private, algorithm=self.algorithm, headers=headers)


def load_signing_key(
    text: str, *, algorithm: str = "", kid: str = "", place: str, now: float | None = None
) -> SigningKey:
    """Read a private key.

    Of a JWK set the newest key is taken whose time has come (``nbf``) and which is not on its way out
    (``exp``); keys that wait become its successors. See `cohortflow.connectors.keys.key_set`.

    Args:
        text: PEM, a JWK, or a JWK set.
        algorithm: ``RS384`` or ``ES384``; empty: by the kind of key.
        kid: Id of the key, which pins a JWK set to one key; empty: the JWK's own, or else its thumbprint.
        place: Where the text came from, for the messages.
        now: Seconds since the epoch; the machine's clock by default.

    Raises:
        ConfigurationError: The text is no such key. The message never holds any of it.
    """
    if algorithm not in ("", *ALGORITHMS):
        raise ConfigurationError(
            "The field 'algorithm' is neither RS384 nor ES384.",
            place=place,
            remedy="Use the algorithm of the registered key.",
        )
    if not text.lstrip().startswith("{"):
        return _make(read_pem(text, place), kid, KeyTimes(), algorithm, place)
    now = time.time() if now is None else now
    entries = _private_entries(text, kid, algorithm, place)
    ordered = order_for_signing([(read_times(entry, place), entry) for entry in entries], now)
    if not ordered:
        raise ConfigurationError(
            "Every private key of the key set has been retired.",
            place=place,
            remedy="Make a new key with 'cohortflow jwks generate' and register it.",
        )
    keys = [
        _make(read_private_jwk(entry, place), kid or str(entry.get("kid", "")), times, algorithm, place)
        for times, entry in ordered
    ]
    first = keys[0]
    return SigningKey(first.algorithm, first.kid, first.private, first.signs_from, tuple(keys[1:]))


def _private_entries(text: str, kid: str, algorithm: str, place: str) -> list[Mapping[str, Any]]:
    try:
        value = json.loads(text)
        entries = [entry for entry in value.get("keys", [value]) if "d" in entry]
        fitting = [entry for entry in entries if kid in ("", entry.get("kid", kid))]
    except (ValueError, TypeError, AttributeError):
        raise ConfigurationError(
            "The private key is no JWK and no JWK set.",
            place=place,
            remedy="Give the whole JSON text, as 'cohortflow jwks generate' prints it.",
        ) from None
    if not fitting:
        raise ConfigurationError(
            "The key set holds no private key" + (f" with kid '{kid}'." if kid else "."),
            place=place,
            remedy=(
                "Leave the field 'kid' out: a key set that is rotated names the key itself."
                if entries
                else "Give the private JWK (the one with 'd'), not the public one that the server reads."
            ),
        )
    # A set may hold keys for other purposes; where nothing else is left, reading it says what is wrong.
    signing = [entry for entry in fitting if is_signing_key(entry)] or fitting[:1]
    kind = {"RS384": "RSA", "ES384": "EC"}.get(algorithm)
    return [entry for entry in signing if entry.get("kty") == kind] or signing


def _make(key: PrivateKey, kid: str, times: KeyTimes, algorithm: str, place: str) -> SigningKey:
    natural = find_algorithm(key, place)
    if algorithm and algorithm != natural:
        raise ConfigurationError(
            f"The key signs with {natural}, but the field 'algorithm' says {algorithm}.",
            place=place,
            remedy=f"Set 'algorithm' to {natural}, or give the other key.",
        )
    # SMART: the header 'kid' is required, so a key that has none gets the one that we would publish.
    return SigningKey(natural, kid or thumbprint(key), key, times.signs_from)
