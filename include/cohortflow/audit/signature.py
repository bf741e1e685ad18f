"""Signatures of delivered events, by the specification Standard Webhooks (standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import datetime
from typing import Final

from cohortflow.errors import ConfigurationError

__all__ = ["sign"]

_PREFIX: Final = "whsec_"
_SHORTEST, _LONGEST = 24, 64


def sign(secret: str, message_id: str, sent: datetime, body: bytes) -> dict[str, str]:
    """Return the headers of a delivery: ``webhook-id``, ``webhook-timestamp``, ``webhook-signature``.

    Args:
        secret: 24 to 64 random bytes in base64, with or without the prefix ``whsec_``.
        message_id: Id of the event; the same at every attempt, so that a receiver can drop repetitions.
        sent: Time of this attempt.
        body: What is sent.

    Raises:
        ConfigurationError: The secret has another form.
    """
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not _SHORTEST <= len(key) <= _LONGEST:
        raise ConfigurationError(
            f"The secret of the webhook is not base64 of {_SHORTEST} to {_LONGEST} bytes.",
            remedy="Make one with: echo whsec_$(openssl rand -base64 32)",
        )
    timestamp = str(int(sent.timestamp()))
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
