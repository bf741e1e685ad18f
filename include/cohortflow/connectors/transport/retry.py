"""When to try again: one policy for every request."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Protocol, TypeVar

from cohortflow.errors import IncompleteDownloadError, TransientSourceError

__all__ = ["Clock", "RetryPolicy", "SystemClock", "parse_http_date", "parse_retry_after"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_EPOCH_SECONDS = 1e9
_EPOCH_MILLISECONDS = 1e12


class Clock(Protocol):
    """The time, and waiting; tests bring their own."""

    def time(self) -> float:
        """Return seconds since the epoch."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's clock."""

    def time(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounded exponential backoff with full jitter; the server's ``Retry-After`` goes first.

    Attributes:
        attempts: How often a request is sent at most.
        base: Upper bound of the first wait, seconds; it doubles with every attempt.
        cap: Upper bound of every wait that the server did not ask for, seconds.
        max_retry_after: Longest ``Retry-After`` that is waited for here, seconds. A longer one is
            raised with the error, so that a scheduler can wait without holding a worker.
        random: Returns a number in [0, 1).
    """

    attempts: int = 6
    base: float = 1.0
    cap: float = 60.0
    max_retry_after: float = 600.0
    random: Callable[[], float] = random.random

    def delay(self, attempt: int, retry_after: float | None = None) -> float | None:
        """Return the seconds to wait after failed attempt number ``attempt`` (from 1); ``None``: give up."""
        if attempt >= self.attempts:
            return None
        if retry_after is not None and retry_after > 0:
            return retry_after if retry_after <= self.max_retry_after else None
        # An exponent beyond 64 cannot change the minimum but could overflow a float.
        return self.random() * min(self.cap, self.base * 2.0 ** min(attempt - 1, 64))

    async def run(self, operation: Callable[[], Awaitable[_T]], clock: Clock) -> _T:
        """Await ``operation()`` until it succeeds, fails for good, or the attempts are used up.

        Raises:
            TransientSourceError: The last attempt found the server busy or unreachable.
            IncompleteDownloadError: The last attempt was cut short.
        """
        for attempt in itertools.count(1):
            try:
                return await operation()
            except (TransientSourceError, IncompleteDownloadError) as error:
                retry_after = error.retry_after if isinstance(error, TransientSourceError) else None
                delay = self.delay(attempt, retry_after)
                if delay is None:
                    raise
                _log.info(
                    "Attempt %d of %d failed (%s); next in %.1f s",
                    attempt,
                    self.attempts,
                    type(error).__name__,
                    delay,
                )
            await clock.sleep(delay)
        raise AssertionError  # pragma: no cover - count() does not end


def parse_http_date(value: str | None) -> float | None:
    """Return the seconds since the epoch of an HTTP date (RFC 9110, 5.6.7), or ``None``."""
    try:
        moment = parsedate_to_datetime(value or "")
    except (ValueError, IndexError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def parse_retry_after(value: str | None, now: float, server_date: str | None = None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for (RFC 9110, 10.2.3).

    Args:
        value: The header: seconds or an HTTP date.
        now: Seconds since the epoch, by our clock.
        server_date: The ``Date`` header of the same response: a date in ``Retry-After`` is meant by
            the server's clock, not by ours.

    Returns:
        Seconds, not negative; ``None`` where the header is missing or makes no sense.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        until = parse_http_date(value)
    else:
        if seconds < _EPOCH_SECONDS:
            return max(0.0, seconds) if math.isfinite(seconds) else None
        # Nobody means decades: some servers write the time itself, in seconds or in milliseconds.
        until = seconds if seconds < _EPOCH_MILLISECONDS else seconds / 1000
    if until is None or not math.isfinite(until):
        return None
    server_now = parse_http_date(server_date)
    return max(0.0, until - (now if server_now is None else server_now))
