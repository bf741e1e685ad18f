"""One interface for all ways of extracting: bulk export, per-patient crawl, search.

Each fills a folder of the raw zone with NDJSON per resource type and keeps a state beside it, so that
every call may run in another process and a killed worker costs little. A scheduler calls ``start`` once,
``advance`` until it returns ``None``, and then ``result``.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from cohortflow.connectors.bulk import BulkExport, ExportRequest, InProgress
from cohortflow.connectors.extraction import (
    cancel_export,
    download_all,
    download_available,
    ensure_started,
    poll_once,
)
from cohortflow.connectors.extraction_result import ExtractionResult
from cohortflow.connectors.retry import Clock
from cohortflow.connectors.state import ExportState, Phase, RawSink, read_state
from cohortflow.errors import ArtifactNotFoundError
from cohortflow.model import NoProgress, Progress

__all__ = [
    "BulkExtractor",
    "Extracted",
    "Extractor",
    "Mode",
    "Pending",
    "RawFolder",
    "combine_digests",
    "run_extractor",
]

Mode = Literal["bulk", "crawl", "search"]


class RawFolder(RawSink, Protocol):
    """A folder of the raw zone that can be read as well."""

    def read_file(self, name: str) -> AsyncIterator[bytes]:
        """Yield the content of a complete file in chunks.

        Raises:
            ArtifactNotFoundError: There is none.
        """
        ...


@dataclass(frozen=True, slots=True)
class Pending:
    """An extraction is not complete: call ``advance`` again later.

    Attributes:
        wait_seconds: When; 0: at once.
        note: Why, in a few words without any value.
    """

    wait_seconds: float
    note: str = ""


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

    async def cancel(self) -> None:
        """Give it up."""
        ...


class BulkExtractor:
    """Bulk Data export as an ``Extractor``."""

    mode: Mode = "bulk"

    def __init__(self, bulk: BulkExport, request: ExportRequest, folder: RawSink) -> None:
        self._bulk = bulk
        self._request = request
        self._folder = folder

    async def start(self) -> None:
        """Kick off, or go on with the export at hand."""
        await ensure_started(self._bulk, self._request, self._folder)

    async def advance(
        self, progress: Progress | None = None, *, budget_seconds: float | None = None
    ) -> Pending | None:
        """Poll once; download what there is, without regard to the budget."""
        del budget_seconds
        answer = await poll_once(self._bulk, self._folder)
        if isinstance(answer, InProgress):
            if progress is not None and answer.percent is not None:
                progress.update("export", answer.percent, 100, "%")
            if answer.waiting_files:
                await download_available(self._bulk, self._folder, progress)
            return Pending(answer.retry_after, "the server prepares the export")
        await download_all(self._bulk, self._folder, progress)
        return None

    async def result(self) -> Extracted:
        """Sum up the complete export."""
        state = await read_state(self._folder)
        if state is None or state.phase is not Phase.COMPLETE:
            raise incomplete()
        return sum_up_export(state)

    async def cancel(self) -> None:
        """Cancel the export on the server."""
        await cancel_export(self._bulk, self._folder)


async def run_extractor(extractor: Extractor, clock: Clock, progress: Progress | None = None) -> Extracted:
    """Start an extraction, wait for it and return what it brought; for callers that may wait."""
    progress = progress or NoProgress()
    await extractor.start()
    while (pending := await extractor.advance(progress)) is not None:
        await clock.sleep(pending.wait_seconds)
    return await extractor.result()


def sum_up_export(state: ExportState) -> Extracted:
    """Return what a complete bulk export brought."""
    digests = (piece.sha256 for item in state.files for piece in item.pieces)
    return Extracted(ExtractionResult.from_state(state), combine_digests(digests))


def combine_digests(digests: Iterable[str]) -> str:
    """Return one SHA-256 in hex over those of files, whatever their order."""
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def incomplete() -> ArtifactNotFoundError:
    """Return the error for a folder without a complete extraction."""
    return ArtifactNotFoundError(
        "The raw zone holds no complete extraction of this request.", remedy="Run the extraction first."
    )
