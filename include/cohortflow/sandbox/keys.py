"""Key pairs for SMART Backend Services clients."""

from __future__ import annotations

import json
import secrets
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

__all__ = ["generate_client_key"]

_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


def generate_client_key(alg: Literal["ES384", "RS384"] = "ES384") -> tuple[dict[str, Any], dict[str, Any]]:
    """Make a key pair as JSON Web Keys.

    Args:
        alg: Signature algorithm: ECDSA on P-384, or RSA (3072 bits).

    Returns:
        The private JWK, and the public JWK Set ``{"keys": [...]}`` to register. Both carry
        ``kid`` and ``alg``.
    """
    if alg == "ES384":
        private: dict[str, Any] = json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1())))
    else:
        private = json.loads(RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 3072)))
    private |= {"kid": secrets.token_hex(8), "alg": alg}
    private["key_ops"] = ["sign"]
    public = {name: value for name, value in private.items() if name not in _PRIVATE_MEMBERS}
    public["key_ops"] = ["verify"]
    return private, {"keys": [public]}
