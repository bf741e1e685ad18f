"""The private key that signs client assertions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from cohortflow.errors import ConfigurationError

__all__ = ["Algorithm", "SigningKey", "load_signing_key"]

Algorithm = Literal["RS384", "ES384"]

_PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey
_MIN_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key; ``repr`` shows its algorithm and id only.

    Attributes:
        algorithm: ``RS384`` or ``ES384``, the two that SMART Backend Services asks every server for.
        kid: Id of the public key in the client's key set; empty: not sent.
    """

    algorithm: Algorithm
    kid: str
    private: _PrivateKey = field(repr=False, compare=False)

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a signed JSON Web Token."""
        headers = {"kid": self.kid} if self.kid else None
        return jwt.encode(dict(claims), self.private, algorithm=self.algorithm, headers=headers)


def load_signing_key(text: str, *, algorithm: str = "", kid: str = "", place: str) -> SigningKey:
    """Read a private key.

    Args:
        text: PEM, a JWK, or a JWK set, of which the key named ``kid`` or else the first fitting
            private key is taken.
        algorithm: ``RS384`` or ``ES384``; empty: by the kind of key.
        kid: Id of the key; empty: the JWK's own.
        place: Where the text came from, for the messages.

    Raises:
        ConfigurationError: The text is no such key. The message never holds any of it.
    """
    if algorithm not in ("", "RS384", "ES384"):
        raise ConfigurationError(
            "The field 'algorithm' is neither RS384 nor ES384.",
            place=place,
            remedy="Use the algorithm of the registered key.",
        )
    private, kid = (
        _read_jwk(text, kid, place) if text.lstrip().startswith("{") else (_read_pem(text, place), kid)
    )
    natural = _algorithm_of(private, place)
    if algorithm and algorithm != natural:
        raise ConfigurationError(
            f"The key signs with {natural}, but the field 'algorithm' says {algorithm}.",
            place=place,
            remedy=f"Set 'algorithm' to {natural}, or give the other key.",
        )
    return SigningKey(natural, kid, private)


def _read_pem(text: str, place: str) -> _PrivateKey:
    # Environment variables and JSON often carry line ends as backslash-n.
    pem = text.replace("\\n", "\n").strip().encode()
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise ConfigurationError(
            "The private key is encrypted.",
            place=place,
            remedy="Store it decrypted in a secrets backend, or in the file that 'private_key_file' names.",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise _unreadable(place) from None
    if not isinstance(key, _PrivateKey):
        raise _unreadable(place)
    return key


def _read_jwk(text: str, kid: str, place: str) -> tuple[_PrivateKey, str]:
    try:
        value = json.loads(text)
        candidates = value.get("keys", [value])
        private = [item for item in candidates if "d" in item and kid in ("", item.get("kid", kid))]
        if not private:
            raise ConfigurationError(
                "The key set holds no private key" + (f" with kid '{kid}'." if kid else "."),
                place=place,
                remedy="Give the private JWK (the one with 'd'), not the public one that the server reads.",
            )
        # jwt's own errors are replaced: they may quote the key.
        reader = RSAAlgorithm if private[0].get("kty") == "RSA" else ECAlgorithm
        key = reader.from_jwk(private[0])
    except (ValueError, KeyError, TypeError, AttributeError, jwt.InvalidKeyError):
        raise _unreadable(place) from None
    if not isinstance(key, _PrivateKey):
        raise _unreadable(place)
    return key, kid or str(private[0].get("kid", ""))


def _algorithm_of(key: _PrivateKey, place: str) -> Algorithm:
    if isinstance(key, RSAPrivateKey):
        if key.key_size < _MIN_RSA_BITS:
            raise ConfigurationError(
                f"The RSA key has {key.key_size} bits.",
                place=place,
                remedy=f"Make a key of at least {_MIN_RSA_BITS} bits and register it.",
            )
        return "RS384"
    if not isinstance(key.curve, SECP384R1):
        raise ConfigurationError(
            f"The key is on the curve {key.curve.name}.",
            place=place,
            remedy="ES384 needs a key on the curve P-384 (secp384r1).",
        )
    return "ES384"


def _unreadable(place: str) -> ConfigurationError:
    return ConfigurationError(
        "The private key is neither a PEM private key nor a private JWK of kind RSA or EC.",
        place=place,
        remedy="Put the whole PEM block or JWK into the password, or its path into 'private_key_file'.",
    )
