"""Keys that clients sign with: JSON Web Keys, files of them, rotation, hosting, checks."""

from cohortflow.connectors.keys.key_set import HostedKey, KeySet
from cohortflow.connectors.keys.signing import SigningKey, load_signing_key

__all__ = [
    "HostedKey",
    "KeySet",
    "SigningKey",
    "load_signing_key",
]
