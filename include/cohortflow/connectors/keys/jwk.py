"""One JSON Web Key: its material, its algorithm, its thumbprint, its public half.

Source: RFC 7517 (JSON Web Key), RFC 7518 section 6 (key members), RFC 7638 (thumbprint).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from cohortflow.errors import ConfigurationError

__all__ = [
    "ALGORITHMS",
    "SECRET_MEMBERS",
    "Algorithm",
    "PrivateKey",
    "PublicKey",
    "describe_public_key",
    "find_algorithm",
    "generate_private_key",
    "is_signing_key",
    "read_jwk",
    "read_pem",
    "read_private_jwk",
    "thumbprint",
    "write_private_key",
]

Algorithm = Literal["RS384", "ES384"]
ALGORITHMS: tuple[Algorithm, ...] = ("RS384", "ES384")
"""The two that SMART Backend Services asks every client for; a server may know only one of them."""

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey
PublicKey = RSAPublicKey | EllipticCurvePublicKey

SECRET_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""Members of a JWK that no one else may see (RFC 7518, 6.2.2, 6.3.2, 6.4)."""

_MIN_RSA_BITS = 2048
_NEW_RSA_BITS = 3072
_RSA_EXPONENT = 65537


def generate_private_key(algorithm: Algorithm) -> PrivateKey:
    """Make a private key: RSA of 3072 bits, or EC on the curve P-384."""
    if algorithm == "RS384":
        return rsa.generate_private_key(_RSA_EXPONENT, _NEW_RSA_BITS)
    return ec.generate_private_key(ec.SECP384R1())


def read_jwk(jwk: Mapping[str, Any], place: str) -> PrivateKey | PublicKey:
    """Read the key that a JWK holds.

    Args:
        jwk: The JWK.
        place: Where it came from, for the messages.

    Raises:
        ConfigurationError: It is neither an RSA nor an EC key. The message never holds any of it.
    """
    reader = RSAAlgorithm if jwk.get("kty") == "RSA" else ECAlgorithm
    try:
        return _checked(reader.from_jwk(dict(jwk)), place)
    except (ValueError, KeyError, TypeError, AttributeError, UnsupportedAlgorithm, jwt.InvalidKeyError):
        # The errors of libraries may quote the key.
        raise _unreadable(place) from None


def read_private_jwk(jwk: Mapping[str, Any], place: str) -> PrivateKey:
    """Read the private key that a JWK holds.

    Raises:
        ConfigurationError: It is no private RSA or EC key. The message never holds any of it.
    """
    key = read_jwk(jwk, place)
    if not isinstance(key, PrivateKey):
        raise _unreadable(place)
    return key


def read_pem(text: str, place: str) -> PrivateKey:
    """Read a private key in PEM; line ends may be written as backslash-n.

    Raises:
        ConfigurationError: It is no private key, or an encrypted one. The message never holds any of it.
    """
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
    if not isinstance(key, PrivateKey):
        raise _unreadable(place)
    return key


def write_private_key(key: PrivateKey) -> dict[str, Any]:
    """Return a private key as JWK: what it is made of, ``kid`` (its thumbprint), ``alg`` and its use."""
    text = RSAAlgorithm.to_jwk(key) if isinstance(key, RSAPrivateKey) else ECAlgorithm.to_jwk(key)
    material: dict[str, Any] = json.loads(text)
    material.pop("key_ops", None)
    public = describe_public_key(key)
    return {
        "kty": public["kty"],
        "kid": thumbprint(key),
        "alg": _natural_algorithm(key),
        "use": "sig",
        "key_ops": ["sign"],
        **material,
    }


def describe_public_key(key: PrivateKey | PublicKey) -> dict[str, str]:
    """Return the members that make up the public half of a key, and no others.

    They are computed from the key itself, so that nothing else in a JWK can get among them.
    """
    public = key.public_key() if isinstance(key, PrivateKey) else key
    if isinstance(public, RSAPublicKey):
        numbers = public.public_numbers()
        return {"kty": "RSA", "n": _encode(numbers.n), "e": _encode(numbers.e)}
    point = public.public_numbers()
    # RFC 7518, 6.2.1.2: coordinates are as long as the curve's field, leading zeros included.
    length = (public.curve.key_size + 7) // 8
    return {
        "kty": "EC",
        "crv": {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}.get(
            public.curve.name, public.curve.name
        ),
        "x": _encode(point.x, length),
        "y": _encode(point.y, length),
    }


def thumbprint(key: PrivateKey | PublicKey) -> str:
    """Return the key's JWK thumbprint, SHA-256 in base64url (RFC 7638)."""
    text = json.dumps(describe_public_key(key), sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def find_algorithm(key: PrivateKey | PublicKey, place: str) -> Algorithm:
    """Return the algorithm that a key signs with.

    Raises:
        ConfigurationError: The key is too short, or on another curve than P-384.
    """
    if isinstance(key, RSAPrivateKey | RSAPublicKey):
        if key.key_size < _MIN_RSA_BITS:
            raise ConfigurationError(
                f"The RSA key has {key.key_size} bits.",
                place=place,
                remedy=f"Make a key of at least {_MIN_RSA_BITS} bits and register it.",
            )
    elif not isinstance(key.curve, ec.SECP384R1):
        raise ConfigurationError(
            f"The key is on the curve {key.curve.name}.",
            place=place,
            remedy="ES384 needs a key on the curve P-384 (secp384r1).",
        )
    return _natural_algorithm(key)


def is_signing_key(jwk: Mapping[str, Any]) -> bool:
    """Tell whether a JWK is meant for signatures by RS384 or ES384, as far as it says what it is for."""
    return (
        jwk.get("kty") in ("RSA", "EC")
        and jwk.get("use", "sig") == "sig"
        and jwk.get("alg", ALGORITHMS[0]) in ALGORITHMS
    )


def _natural_algorithm(key: PrivateKey | PublicKey) -> Algorithm:
    return "RS384" if isinstance(key, RSAPrivateKey | RSAPublicKey) else "ES384"


def _checked(key: object, place: str) -> PrivateKey | PublicKey:
    if not isinstance(key, PrivateKey | PublicKey):
        raise _unreadable(place)
    return key


def _encode(number: int, length: int = 0) -> str:
    data = number.to_bytes(length or max(1, (number.bit_length() + 7) // 8), "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unreadable(place: str) -> ConfigurationError:
    return ConfigurationError(
        "The private key is neither a PEM private key nor a private JWK of kind RSA or EC.",
        place=place,
        remedy="Put the whole PEM block, JWK or JWK set into the password, or its path into "
        "'private_key_file'.",
    )
