"""One interface for all ways of extracting: bulk export, per-patient crawl, search.

Each fills a folder of the raw zone with NDJSON per resource type and keeps a state beside it, so that
every call may run in another process and a killed worker costs little. A scheduler calls ``start`` once,
``advance`` until it returns ``None``, and then ``result``.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

from cohortflow.connectors.extraction.result import ExtractionResult
from cohortflow.connectors.transport.retry import Clock
from cohortflow.errors import ArtifactNotFoundError, ExportExpiredError
from cohortflow.model import NoProgress, Progress

__all__ = [
    "Extracted",
    "ExtractionStatus",
    "Extractor",
    "Mode",
    "Pending",
    "Phase",
    "combine_digests",
    "incomplete",
    "run_extractor",
]

_log = logging.getLogger(__name__)

Mode = Literal["bulk", "crawl", "search"]


class Phase(StrEnum):
    """How far an extraction is."""

    PENDING = "pending"
    """To be started."""
    RUNNING = "running"
    """Started: the status URL is known."""
    READY = "ready"
    """The manifest is known: files can be downloaded."""
    COMPLETE = "complete"
    """All files are there."""
    EXPIRED = "expired"
    """The server has forgotten it."""
    FAILED = "failed"
    """The server gave it up."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class ExtractionStatus:
    """What stands in a folder of the raw zone.

    Attributes:
        phase: How far it is.
        server: FHIR base URL that it comes from.
        request_digest: Of what was asked for: see ``Extractor.request_digest``.
        transaction_time: FHIR instant of the server; empty until it is known.
        kicked_off_at: When a bulk export was started, UTC.
    """

    phase: Phase
    server: str
    request_digest: str
    transaction_time: str = ""
    kicked_off_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """An extraction is not complete: call ``advance`` again later.

    Attributes:
        wait_seconds: When; 0: at once.
        note: Why, in a few words without any value.
        prepares: Whether the server works on it meanwhile, so that others have to wait for it, too.
    """

    wait_seconds: float
    note: str = ""
    prepares: bool = False


@dataclass(frozen=True, slots=True)
class Extracted:
    """A complete extraction.

    Attributes:
        result: Files, counts, and what came of each type.
        digest: SHA-256 over the digests of the files: equal extractions have equal ones.
    """

    result: ExtractionResult
    digest: str = ""


class Extractor(Protocol):
    """A way of filling one folder of the raw zone."""

    @property
    def mode(self) -> Mode:
        """Which way it is."""
        ...

    @property
    def request_digest(self) -> str:
        """SHA-256 in hex over what is asked for: the same for requests that mean the same."""
        ...

    async def status(self) -> ExtractionStatus | None:
        """Return what stands in the folder, whatever was asked for; ``None``: nothing was begun.

        Raises:
            SourceError: The state is unreadable.
        """
        ...

    async def start(self) -> None:
        """Begin, unless the folder holds an extraction of the same request, which goes on as it stands.

        Raises:
            SourceError: The server refuses, or the state is unreadable.
        """
        ...

    async def advance(
        self, progress: Progress | None = None, *, budget_seconds: float | None = None
    ) -> Pending | None:
        """Do what can be done now.

        Args:
            progress: Told of counts.
            budget_seconds: Return ``Pending`` after about so long even where more could be done.

        Returns:
            ``None`` once it is complete.

        Raises:
            SourceError: It cannot go on. What is there is kept, and another call goes on from there.
        """
        ...

    async def result(self) -> Extracted:
        """Return what a complete extraction brought.

        Raises:
            ArtifactNotFoundError: It is not complete.
        """
        ...

    async def discard(self) -> None:
        """Make what is complete void, so that ``start`` begins anew."""
        ...

    async def cancel(self) -> None:
        """Give up what is not complete, on the server as well; ``start`` begins anew."""
        ...


async def run_extractor(
    extractor: Extractor,
    clock: Clock,
    progress: Progress | None = None,
    *,
    give_up_on_cancel: bool = False,
) -> Extracted:
    """Extract, waiting where needed; go on with what an earlier run left behind.

    An export that expires is started anew, once.

    Args:
        extractor: The extraction.
        clock: Waits.
        progress: Told of percents while waiting and of files while downloading.
        give_up_on_cancel: Whether being cancelled also cancels the extraction, on the server as well. By
            default it stays, so that the next run goes on with it: a stopped worker looks the same from
            here.

    Raises:
        SourceError: See ``Extractor.start`` and ``Extractor.advance``.
    """
    progress = progress or NoProgress()
    try:
        try:
            return await _run(extractor, clock, progress)
        except ExportExpiredError:
            _log.warning("The export has expired; starting it anew")
            return await _run(extractor, clock, progress)
    except asyncio.CancelledError:
        if give_up_on_cancel:
            await asyncio.shield(extractor.cancel())
        raise


async def _run(extractor: Extractor, clock: Clock, progress: Progress) -> Extracted:
    await extractor.start()
    while (pending := await extractor.advance(progress)) is not None:
        await clock.sleep(pending.wait_seconds)
    return await extractor.result()


def combine_digests(digests: Iterable[str]) -> str:
    """Return one SHA-256 in hex over those of files, whatever their order."""
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def incomplete() -> ArtifactNotFoundError:
    """Return the error for a folder without a complete extraction."""
    return ArtifactNotFoundError(
        "The raw zone holds no complete extraction of this request.", remedy="Run the extraction first."
    )
