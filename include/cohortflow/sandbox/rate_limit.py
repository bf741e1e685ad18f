"""How many requests a server takes per second."""

from __future__ import annotations

import threading
import time
from collections import deque

__all__ = ["RateLimit"]

_LIMITED = frozenset({"kickoff", "status", "search", "read"})
_SECOND = 1.0


class RateLimit:
    """Counts the requests of the last second.

    Args:
        most: How many there may be; ``None``: any number.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._times: deque[float] = deque()

    def allows(self, path_class: str) -> bool:
        """Whether one more request is answered; one that is not does not count."""
        if self._most is None or path_class not in _LIMITED:
            return True
        now = time.monotonic()
        with self._lock:
            while self._times and self._times[0] <= now - _SECOND:
                self._times.popleft()
            if len(self._times) >= self._most:
                return False
            self._times.append(now)
        return True
