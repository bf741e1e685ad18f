"""Whether the process that holds a lease is still there, as far as this machine can tell."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from functools import cache
from pathlib import Path

__all__ = ["is_dead", "name_machine"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


@cache
def name_machine() -> str:
    """Return 32 hex digits for where a process id means the same process: host, boot, PID namespace.

    Empty where the system does not tell; then no process counts as dead.
    """
    try:
        text = f"{platform.node()}\n{_BOOT.read_text(encoding='ascii')}\n{_NAMESPACE.readlink()}"
    except OSError:
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def is_dead(machine: str, process: int) -> bool:
    """Tell whether a process is gone for sure; one of another machine never is.

    An id that another process has got meanwhile counts as alive: the lease then has to expire.
    """
    if not machine or process <= 0 or machine != name_machine():
        return False
    with contextlib.suppress(PermissionError):  # another user's: alive
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
    return False
