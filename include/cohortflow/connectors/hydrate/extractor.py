"""An extraction with what it leaves out: any ``Extractor``, and a pass over its references."""

from __future__ import annotations

import dataclasses

from cohortflow.connectors.extraction.extractor import (
    Extracted,
    ExtractionStatus,
    Extractor,
    Mode,
    Pending,
    Phase,
    combine_digests,
)
from cohortflow.connectors.extraction.folder import RawFolder
from cohortflow.connectors.extraction.result import CoverageRow
from cohortflow.connectors.hydrate.hydrator import Hydrator
from cohortflow.connectors.hydrate.state import HydrationRequest, HydrationResult
from cohortflow.connectors.transport.client import FhirClient
from cohortflow.model import Progress

__all__ = ["HydratedExtractor", "with_hydration"]


class HydratedExtractor:
    """Extracts, then follows references.

    Args:
        inner: The extraction.
        client: Its server.
        folder: Its folder.
        request: What to fetch by reference.
    """

    def __init__(
        self, inner: Extractor, client: FhirClient, folder: RawFolder, request: HydrationRequest
    ) -> None:
        self._inner = inner
        self._client = client
        self._folder = folder
        self._request = request

    @property
    def mode(self) -> Mode:
        """That of the extraction."""
        return self._inner.mode

    @property
    def request_digest(self) -> str:
        """That of the extraction."""
        return self._inner.request_digest

    async def status(self) -> ExtractionStatus | None:
        """Tell how far it is; what is extracted is ready, not complete, until the pass is."""
        status = await self._inner.status()
        if status is None or status.phase is not Phase.COMPLETE:
            return status
        complete = await self._hydrator(await self._inner.result()).is_complete()
        return status if complete else dataclasses.replace(status, phase=Phase.READY)

    async def start(self) -> None:
        """Begin or go on with the extraction."""
        await self._inner.start()

    async def advance(
        self, progress: Progress | None = None, *, budget_seconds: float | None = None
    ) -> Pending | None:
        """Extract; once that is complete, follow references. A pass of its own gets the budget anew."""
        if (pending := await self._inner.advance(progress, budget_seconds=budget_seconds)) is not None:
            return pending
        hydrator = self._hydrator(await self._inner.result())
        return await hydrator.advance(progress, budget_seconds=budget_seconds)

    async def result(self) -> Extracted:
        """Sum up both."""
        extracted = await self._inner.result()
        return with_hydration(extracted, await self._hydrator(extracted).result())

    async def discard(self) -> None:
        """Make what was extracted void; the pass begins anew with other files."""
        await self._inner.discard()

    async def cancel(self) -> None:
        """Give the extraction up."""
        await self._inner.cancel()

    def _hydrator(self, extracted: Extracted) -> Hydrator:
        return Hydrator(self._client, self._request, self._folder, extracted.result.files)


def with_hydration(extracted: Extracted, hydrated: HydrationResult) -> Extracted:
    """Return an extraction with what came by reference.

    References that led to nothing make their type partial, and are warnings: the extraction itself holds
    all that it was asked for.
    """
    result = extracted.result
    files = dict(result.files)
    resources = dict(result.resources)
    for kind, names in hydrated.files.items():
        files[kind] = (*files.get(kind, ()), *names)
        resources[kind] = resources.get(kind, 0) + hydrated.resources[kind]
    severities = dict(result.severities)
    if missing := sum(sum(counts.values()) for counts in hydrated.missing.values()):
        severities["warning"] = severities.get("warning", 0) + missing
    rows = {row.type: row for row in result.coverage}
    for row in hydrated.coverage:
        rows[row.type] = _join(rows.get(row.type), row)
    whole = dataclasses.replace(
        result,
        files=files,
        resources=resources,
        bytes=result.bytes + hydrated.bytes,
        severities=severities,
        coverage=tuple(row for _, row in sorted(rows.items())),
    )
    return Extracted(whole, combine_digests((extracted.digest, *hydrated.digests)))


def _join(row: CoverageRow | None, more: CoverageRow) -> CoverageRow:
    if row is None or (row.status == "unavailable" and not row.received):
        return more
    # The extraction's own word on its type stands; what references lacked is told beside it.
    return dataclasses.replace(
        row, received=row.received + more.received, files=row.files + more.files, why=(*row.why, *more.why)
    )
