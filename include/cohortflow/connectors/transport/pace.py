"""How often a host is asked: a token bucket for each."""

from __future__ import annotations

from urllib.parse import urlsplit

from cohortflow.connectors.transport.retry import Clock

__all__ = ["Pace"]


class Pace:
    """Spaces requests so that no host gets more than so many a second.

    A bucket holds as many requests as a second allows, so short bursts pass at once.

    Args:
        rate: Requests per second and host; 0: no limit.
        clock: The time.
    """

    def __init__(self, rate: float, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._burst = max(1.0, rate)
        # Host to the time at which its bucket is full again.
        self._full_at: dict[str, float] = {}

    async def wait(self, url: str) -> None:
        """Return when a request to this URL may be sent."""
        if not self._rate:
            return
        host = urlsplit(url).netloc
        now = self._clock.time()
        # The place is taken before waiting, so that requests at the same time queue up.
        full_at = max(self._full_at.get(host, now), now) + 1 / self._rate
        self._full_at[host] = full_at
        if (delay := full_at - now - self._burst / self._rate) > 0:
            await self._clock.sleep(delay)
