"""A few workers that share the fetching of one unit of work, and what they do when the server fails.

Some servers fail for a single record, time after time, and answer for all others (O14). What finds the
server failing is therefore suspect: set aside, tried again in a later call, and given up after
``_MAX_TRIES``. What is told when to come back stops the unit, and waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from itertools import chain

from cohortflow.connectors.search.client import DailyLimitError, SearchClient
from cohortflow.connectors.search.parts import PartWriter
from cohortflow.connectors.search.units import PartFile, UnitState
from cohortflow.connectors.transport.retry import Clock
from cohortflow.errors import TransientSourceError

__all__ = [
    "EVERY_TYPE",
    "RETRY_SECONDS",
    "Budget",
    "FetchedPart",
    "fetch_part",
    "run_workers",
    "waiting_times",
]

RETRY_SECONDS = 60.0
"""Least pause between tries of what found the server failing."""

EVERY_TYPE = "*"
"""Stands for all types among those that are to wait."""

_MAX_TRIES = 3  # each time with all retries


class Budget:
    """The time that one call may take.

    Args:
        clock: Tells the time.
        seconds: How long; ``None``: no matter how long.
    """

    def __init__(self, clock: Clock, seconds: float | None = None) -> None:
        self._clock = clock
        self._end = None if seconds is None else clock.time() + seconds

    def is_spent(self) -> bool:
        """Tell whether the time is over."""
        return self._end is not None and self._clock.time() >= self._end


@dataclass(frozen=True, slots=True)
class FetchedPart:
    """How far the workers came with a unit.

    Attributes:
        files: What they wrote, one file per type.
        rest: Positions that are left.
        tries: How often suspects were found in the unit so far.
        given_up: How many suspects are not tried any more.
        stopped: Errors that say when to come back.
    """

    files: tuple[PartFile, ...]
    rest: tuple[int, ...]
    tries: int
    given_up: int
    stopped: tuple[TransientSourceError, ...]

    def end(self, before: UnitState) -> UnitState:
        """Return the state of the unit after this part of it."""
        return before.with_part(self.files, rest=self.rest, tries=self.tries, stopped=bool(self.stopped))


async def fetch_part(
    batches: Iterable[tuple[int, ...]],
    fetch: Callable[[tuple[int, ...]], Awaitable[None]],
    writer: PartWriter,
    search: SearchClient,
    *,
    tries: int,
    is_over: Callable[[], bool],
) -> FetchedPart:
    """Fetch batches with as many workers as the source allows, and close the files.

    Args:
        batches: Positions in the unit that are fetched together.
        fetch: Fetches one batch and writes what came.
        writer: Takes it; its files appear at the end, or not at all.
        search: Judges failures of the server.
        tries: How often suspects were found before.
        is_over: Whether to begin no other batch.

    Raises:
        TransientSourceError: The server is down.
        SourceError: ``fetch`` failed otherwise.
    """
    waiting = deque(batches)
    positions = tuple(chain.from_iterable(waiting))
    done = set[int]()
    suspects = set[int]()
    stopped: list[TransientSourceError] = []

    async def work() -> None:
        while waiting and not stopped and not is_over():
            batch = waiting.popleft()
            try:
                await fetch(batch)
            except TransientSourceError as error:
                if error.retry_after is not None:
                    stopped.append(error)
                    return
                await search.judge_outage(error)
                suspects.update(batch)
            else:
                search.note_success()
                done.update(batch)

    try:
        await run_workers(work, search.client.source.concurrency)
        files = await writer.close()
    except BaseException:
        await writer.abort()
        raise
    tries += bool(suspects)
    given_up = suspects if tries >= _MAX_TRIES else set[int]()
    rest = tuple(position for position in positions if position not in done | given_up)
    return FetchedPart(files, rest, tries, len(given_up), tuple(stopped))


def waiting_times(
    stopped: Iterable[TransientSourceError], resource_type: str, now: float
) -> dict[str, float]:
    """Return until when types are to wait, in seconds since the epoch.

    A limit on documents says nothing of other types; a busy server does.
    """
    return {
        resource_type if isinstance(error, DailyLimitError) else EVERY_TYPE: now + error.retry_after
        for error in stopped
        if error.retry_after is not None
    }


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
