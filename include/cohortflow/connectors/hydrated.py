"""An extraction with what it leaves out: any ``Extractor``, and a pass over its references."""

from __future__ import annotations

import dataclasses

from cohortflow.connectors.client import FhirClient
from cohortflow.connectors.coverage import CoverageRow
from cohortflow.connectors.extraction_result import ExtractionResult
from cohortflow.connectors.extractor import (
    Extracted,
    Extractor,
    Mode,
    Pending,
    RawFolder,
    combine_digests,
)
from cohortflow.connectors.hydrate import Hydrator
from cohortflow.connectors.hydrate_state import HydrationRequest, HydrationResult
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
        hydrated = await self._hydrator(extracted).result()
        digest = combine_digests((extracted.digest, *hydrated.digests))
        return Extracted(with_hydration(extracted.result, hydrated), digest)

    async def cancel(self) -> None:
        """Give the extraction up."""
        await self._inner.cancel()

    def _hydrator(self, extracted: Extracted) -> Hydrator:
        return Hydrator(self._client, self._request, self._folder, extracted.result.files)


def with_hydration(result: ExtractionResult, hydrated: HydrationResult) -> ExtractionResult:
    """Return the result of an extraction with what came by reference.

    References that led to nothing make their type partial, and are warnings: the extraction itself holds
    all that it was asked for.
    """
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
    return dataclasses.replace(
        result,
        files=files,
        resources=resources,
        bytes=result.bytes + hydrated.bytes,
        severities=severities,
        coverage=tuple(row for _, row in sorted(rows.items())),
    )


def _join(row: CoverageRow | None, more: CoverageRow) -> CoverageRow:
    if row is None or (row.status == "unavailable" and not row.received):
        return more
    # The extraction's own word on its type stands; what references lacked is told beside it.
    return dataclasses.replace(
        row, received=row.received + more.received, files=row.files + more.files, why=(*row.why, *more.why)
    )
