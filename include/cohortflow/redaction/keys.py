"""The project key: one secret per project, from which every pseudonym and date shift is derived.

Sub-keys come from HKDF-SHA256 (RFC 5869), one per purpose, so that what one of them made says nothing
about another:

- ``pseudonym/<kind>`` for the identifiers of one kind, such as ``Patient``;
- ``date-shift`` for the patients' date shifts;
- ``noise/<column>`` for the noise of a column.

A sub-key is used as its 64 hexadecimal digits in ASCII, which is the form that native HMAC
implementations with text keys take; other programs can thus repeat the pseudonyms.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import itertools
import secrets
import string
from typing import Final, NoReturn

from cohortflow.errors import ProjectKeyError

__all__ = ["PSEUDONYM_DIGITS", "SHIFT_DIGITS", "WEEK_DAYS", "ProjectKey", "derive_key"]

WEEK_DAYS: Final = 7

PSEUDONYM_DIGITS: Final = 32
"""Hexadecimal digits of a pseudonym: 128 bits.

Among n ids of a kind two collide with a chance below n^2 / 2^129: for 10^9 ids, 2 in 10^21.
"""

_SALT: Final = b"cohortflow/redaction/v1"
_MINIMUM_BYTES: Final = 32
_MINIMUM_DISTINCT: Final = 16  # 32 random bytes have about 30 distinct values; fewer than 16 is no accident
SHIFT_DIGITS: Final = 15
"""Leading hexadecimal digits that a shift is drawn from: 60 bits, whose remainder has a bias below 2^-48."""

_REMEDY: Final = "Make one with `openssl rand -hex 32` and keep it where your deployment keeps secrets."


def derive_key(key: bytes, purpose: bytes, *, salt: bytes = _SALT) -> bytes:
    """Return the 32-byte sub-key of a purpose: HKDF-SHA256, RFC 5869, one block."""
    extracted = hmac.digest(salt, key, hashlib.sha256)
    return hmac.digest(extracted, purpose + b"\x01", hashlib.sha256)


class ProjectKey:
    """A secret of at least 32 bytes; shows and compares itself by its fingerprint only.

    It cannot be pickled: pass the name of the secret between processes, not the secret.
    """

    __slots__ = ("_secret", "fingerprint")

    fingerprint: str
    """16 hexadecimal digits that tell keys apart and say nothing about them: safe in logs and releases."""

    def __init__(self, secret: bytes) -> None:
        """Take the key.

        Raises:
            ProjectKeyError: It is shorter than 32 bytes, or plainly not random.
        """
        if len(secret) < _MINIMUM_BYTES:
            raise ProjectKeyError(
                f"The project key has {len(secret)} bytes; it needs at least {_MINIMUM_BYTES}.",
                remedy=_REMEDY,
            )
        if _looks_regular(secret):
            raise ProjectKeyError("The project key is not random: its bytes repeat or count.", remedy=_REMEDY)
        self._secret = secret
        self.fingerprint = derive_key(secret, b"fingerprint").hex()[:16]

    @classmethod
    def from_text(cls, text: str | None, *, place: str = "") -> ProjectKey:
        """Read a key from hexadecimal or base64 text (also the URL-safe alphabet).

        Args:
            text: The text; white space around it is ignored.
            place: Where the text came from, such as a variable's name, for the error message.

        Raises:
            ProjectKeyError: It is missing, neither of the two, too short or not random.
        """
        if text is None or not text.strip():
            raise ProjectKeyError("There is no project key.", remedy=_REMEDY, place=place)
        try:
            return cls(_decode(text.strip()))
        except ProjectKeyError as error:
            error.place = place
            raise

    @staticmethod
    def generate_text() -> str:
        """Return a new random key of 32 bytes as hexadecimal text."""
        return secrets.token_hex(_MINIMUM_BYTES)

    def require_fingerprint(self, fingerprint: str) -> None:
        """Check that this is the key that made a dataset.

        Raises:
            ProjectKeyError: It is another key: pseudonyms would no longer match.
        """
        if not hmac.compare_digest(self.fingerprint.encode(), fingerprint.encode()):
            raise ProjectKeyError(
                f"The dataset was made with project key {fingerprint}, but this is {self.fingerprint}.",
                remedy="Give the dataset's key, or publish under another name.",
            )

    def pseudonym_key(self, kind: str) -> str:
        """Return the sub-key for identifiers of a kind: 64 hexadecimal digits, a secret."""
        return derive_key(self._secret, f"pseudonym/{kind}".encode()).hex()

    def shift_key(self) -> str:
        """Return the sub-key for date shifts: 64 hexadecimal digits, a secret."""
        return derive_key(self._secret, b"date-shift").hex()

    def pseudonym(self, kind: str, value: str) -> str:
        """Return the pseudonym of one identifier: what the kernel computes for a whole column."""
        digest = hmac.new(self.pseudonym_key(kind).encode(), value.encode(), hashlib.sha256)
        return digest.hexdigest()[:PSEUDONYM_DIGITS]

    def noise_key(self, column: str) -> str:
        """Return the sub-key for the noise of a column: 64 hexadecimal digits, a secret."""
        return derive_key(self._secret, f"noise/{column}".encode()).hex()

    def shift_days(self, subject: str, window: int, *, weeks: bool = False) -> int:
        """Return the date shift of one patient: whole days in [-window, window] without 0.

        Args:
            subject: The patient's id.
            window: Greatest shift in days.
            weeks: Whether it is a whole number of weeks.
        """
        digest = hmac.new(self.shift_key().encode(), subject.encode(), hashlib.sha256).hexdigest()
        unit = WEEK_DAYS if weeks else 1
        steps = window // unit
        drawn = int(digest[:SHIFT_DIGITS], 16) % (2 * steps) - steps
        return unit * (drawn if drawn < 0 else drawn + 1)

    def __repr__(self) -> str:
        return f"ProjectKey(fingerprint='{self.fingerprint}')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProjectKey) and hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __reduce__(self) -> NoReturn:
        msg = "A project key is not pickled; pass the name of the secret instead."
        raise TypeError(msg)


def _decode(text: str) -> bytes:
    if len(text) % 2 == 0 and all(letter in string.hexdigits for letter in text):
        return bytes.fromhex(text)
    try:
        standard = text.replace("-", "+").replace("_", "/")
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (ValueError, binascii.Error):
        # "from None": the cause could quote the text.
        raise ProjectKeyError("The project key is neither hexadecimal nor base64.", remedy=_REMEDY) from None


def _looks_regular(secret: bytes) -> bool:
    if len(set(secret)) < _MINIMUM_DISTINCT:
        return True
    steps = {(after - before) % 256 for before, after in itertools.pairwise(secret)}
    periodic = any(secret[period:] == secret[:-period] for period in range(1, len(secret) // 2 + 1))
    return len(steps) == 1 or periodic
