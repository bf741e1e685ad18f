"""Extract: a Bulk Data export into the raw zone."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cohortflow.connectors import connect
from cohortflow.errors import ExportExpiredError, SourceBusyError
from cohortflow.registry import open_registry
from cohortflow.workflow.audit import note_start
from cohortflow.workflow.export_plan import Extraction, plan_extraction, read_chain
from cohortflow.workflow.export_turn import ExportTurn, Waiting
from cohortflow.workflow.run import Run, StepResult

if TYPE_CHECKING:
    from cohortflow.workflow.export_plan import ExportPlan

__all__ = [
    "Extraction",
    "Waiting",
    "advance_extraction",
    "cancel_extraction",
    "describe_extraction",
    "extract_bulk",
    "load_chain",
    "load_extraction",
    "plan_extraction",
]

_LOOK_SECONDS = 2.0


def extract_bulk(run: Run, _view: str = "") -> StepResult:
    """Export and download everything that the views read; resumes what an earlier attempt left.

    Raises:
        SourceBusyError: It would have to wait for the server or another run, and ``run.wait`` is off.
    """
    asyncio.run(_extract(run))
    return describe_extraction(run)


async def advance_extraction(run: Run, *, waiting_since: datetime | None = None) -> Waiting | None:
    """Do what can be done of a run's export now; for schedulers that wait elsewhere.

    Args:
        run: The run.
        waiting_since: When the server first refused the run's export.

    Returns:
        ``None`` once everything is downloaded; otherwise what to wait for.

    Raises:
        ExportExpiredError: The server has forgotten it; the next call starts another.
        SourceError: The server failed otherwise.
        RegistryError: The registry cannot be used, or another run has taken over.
    """
    async with _opened(run, hand_over=True, waiting_since=waiting_since) as turn:
        return await turn.take()


async def cancel_extraction(run: Run) -> None:
    """Cancel a run's unfinished export on the server."""
    async with _opened(run) as turn:
        await turn.cancel()


@asynccontextmanager
async def _opened(
    run: Run, *, hand_over: bool = False, waiting_since: datetime | None = None
) -> AsyncIterator[ExportTurn]:
    await asyncio.to_thread(note_start, run)
    plan: ExportPlan = await asyncio.to_thread(plan_extraction, run)
    registry = await asyncio.to_thread(open_registry, run.deployment)
    async with connect(plan.source) as client:
        yield ExportTurn(run, plan, client, registry, hand_over=hand_over, waiting_since=waiting_since)


async def _extract(run: Run) -> None:
    async with _opened(run) as turn:
        restarted = False
        started = turn.client.clock.time()
        while True:
            try:
                waiting = await turn.take()
            except ExportExpiredError:
                if restarted:
                    raise
                restarted = True
                continue
            if waiting is None:
                return
            if waiting.reason == "server":
                await turn.client.clock.sleep(_seconds_until(turn, waiting.until))
                continue
            if not run.wait:
                raise SourceBusyError(
                    f"The export has to wait until {_show(waiting.until)}: {waiting.note}.",
                    place=turn.plan.source.host,
                    remedy="Run it again then, or let it wait; 'cohortflow registry locks' shows what for.",
                )
            await _wait(turn, waiting, started)


async def _wait(turn: ExportTurn, waiting: Waiting, started: float) -> None:
    """Wait with a sign of life; until the next look for another run, to the end for the server."""
    if waiting.reason == "lease":
        waited = int(turn.client.clock.time() - started)
        turn.run.progress.update(f"waiting: {waiting.note}", waited, None, "s")
        await turn.client.clock.sleep(_LOOK_SECONDS)
        return
    total = int(_seconds_until(turn, waiting.until)) + 1
    task = f"waiting until {_show(waiting.until)}: {waiting.note}"
    while (left := _seconds_until(turn, waiting.until)) > 0:
        turn.run.progress.update(task, total - int(left), total, "s")
        await turn.client.clock.sleep(min(left, _LOOK_SECONDS))
        if await asyncio.to_thread(turn.registry.postponed, waiting.subject) is None:
            return  # an operator let it go on
    turn.run.progress.update(task, total, total, "s")


def _seconds_until(turn: ExportTurn, moment: datetime) -> float:
    return max(0.0, moment.timestamp() - turn.client.clock.time())


def _show(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def describe_extraction(run: Run) -> StepResult:
    """Sum up the complete export of a run."""
    chain = load_chain(run)
    result = chain[-1].result
    return StepResult(
        facts={
            "kind": "incremental" if chain[-1].since else "full",
            "exports": len(chain),
            "resources": dict(result.resources),
            "bytes": result.bytes,
            "transaction_time": result.transaction_time,
            "issues": dict(result.severities),
            "partial": result.is_partial,
            "coverage": [dataclasses.asdict(row) for row in result.coverage],
        }
    )


def load_extraction(run: Run) -> Extraction:
    """Return the complete export of a run: the last one of its chain.

    Raises:
        ArtifactNotFoundError: There is none, or it is not complete.
    """
    return load_chain(run)[-1]


def load_chain(run: Run) -> tuple[Extraction, ...]:
    """Return the exports that together give the source's state for a run, oldest first.

    The first is a full export; what follows are incremental ones, ordered by transaction time, up to
    the run's own, which is the last. Of a resource that several hold, the last one's is the valid one.

    Raises:
        ArtifactNotFoundError: One of them is missing or not complete.
    """
    return read_chain(run.raw, plan_extraction(run).export.prefix)
