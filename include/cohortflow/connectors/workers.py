"""A few coroutines that share one piece of work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

__all__ = ["run_workers"]


async def run_workers(work: Callable[[], Awaitable[None]], workers: int) -> None:
    """Run ``work`` so many times at once; the first failure ends all of them and is raised as it is."""

    async def run() -> None:
        await work()

    failures: tuple[BaseException, ...] = ()
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(run())
    except* Exception as errors:  # noqa: BLE001  # re-raised below
        failures = errors.exceptions
    if failures:
        raise failures[0]
