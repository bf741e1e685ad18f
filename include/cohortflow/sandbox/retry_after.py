"""The two forms of the ``Retry-After`` header (RFC 9110, section 10.2.3)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Literal

__all__ = ["RetryAfterFormat", "format_retry_after"]

RetryAfterFormat = Literal["seconds", "http-date"]


def format_retry_after(seconds: float, form: RetryAfterFormat) -> str:
    """The value of ``Retry-After``.

    Args:
        seconds: How long to wait.
        form: How to say it.
    """
    if form == "seconds":
        return f"{seconds:g}"
    # A date has whole seconds; rounding up keeps the wait at least as long as asked.
    moment = datetime.now(UTC) + timedelta(seconds=seconds + 0.999999)
    return format_datetime(moment.replace(microsecond=0), usegmt=True)
