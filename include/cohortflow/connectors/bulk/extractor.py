"""Bulk Data export as an ``Extractor``."""

from __future__ import annotations

from cohortflow.connectors.bulk.client import BulkExport, ExportRequest, InProgress
from cohortflow.connectors.bulk.export import (
    cancel_export,
    download_all,
    download_available,
    ensure_started,
    poll_once,
)
from cohortflow.connectors.bulk.result import load_export
from cohortflow.connectors.bulk.state import read_state, write_state
from cohortflow.connectors.extraction.extractor import Extracted, ExtractionStatus, Mode, Pending, Phase
from cohortflow.connectors.extraction.folder import RawSink
from cohortflow.model import Progress

__all__ = ["BulkExtractor"]


class BulkExtractor:
    """Exports in bulk into a folder of the raw zone.

    Args:
        bulk: The server.
        request: What to export.
        folder: Where to.
    """

    mode: Mode = "bulk"

    def __init__(self, bulk: BulkExport, request: ExportRequest, folder: RawSink) -> None:
        self._bulk = bulk
        self._request = request
        self._folder = folder

    @property
    def request_digest(self) -> str:
        """That of the export request."""
        return self._request.digest

    async def status(self) -> ExtractionStatus | None:
        """Tell how far the export in the folder is."""
        state = await read_state(self._folder)
        if state is None:
            return None
        return ExtractionStatus(
            state.phase, state.server, state.request_digest, state.transaction_time, state.kicked_off_at
        )

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
            return Pending(answer.retry_after, "the server prepares the export", prepares=True)
        await download_all(self._bulk, self._folder, progress)
        return None

    async def result(self) -> Extracted:
        """Sum up the complete export."""
        return await load_export(self._folder)

    async def discard(self) -> None:
        """Say that the complete export has expired."""
        state = await read_state(self._folder)
        if state is not None and state.phase is Phase.COMPLETE:
            await write_state(self._folder, state.evolve(phase=Phase.EXPIRED))

    async def cancel(self) -> None:
        """Cancel the export on the server."""
        await cancel_export(self._bulk, self._folder)
