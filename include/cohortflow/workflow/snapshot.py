"""The current set of a run's resources: its chain of exports and the deletions known of their source."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from cohortflow.fhir.deletions import read_deletions
from cohortflow.fhir.snapshot import Snapshot, SnapshotExport
from cohortflow.lake import is_recorded, load_tombstones, record_tombstones

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cohortflow.workflow.run import Run
    from cohortflow.workflow.steps.extract import Extraction

__all__ = ["keep_deletions", "open_snapshot"]


def keep_deletions(run: Run, chain: Sequence[Extraction]) -> int:
    """Keep the deletions that a chain's exports report in the source's tombstones.

    Returns:
        How many the run's own export, the last of the chain, reports.

    Raises:
        MalformedDataError: They cannot be read.
    """
    count = 0
    for extraction in chain:
        identity = (_time(extraction), extraction.digest)
        files = [extraction.export.uri(name) for name in extraction.result.deleted_files]
        own = extraction is chain[-1]
        if not files or (not own and is_recorded(run.raw, _source(run), *identity)):
            continue
        deletions = read_deletions(files, storage_options=run.raw.polars_options)
        record_tombstones(run.raw, _source(run), deletions, *identity)
        count = deletions.height if own else 0
    return count


def open_snapshot(run: Run, chain: Sequence[Extraction]) -> Snapshot:
    """Return what a chain of exports and the source's tombstones say together."""
    exports = tuple(
        SnapshotExport(
            _time(extraction),
            extraction.digest,
            {resource: extraction.uris(resource) for resource in extraction.result.files},
        )
        for extraction in chain
    )
    return Snapshot(exports, load_tombstones(run.raw, _source(run)), run.raw.polars_options)


def _source(run: Run) -> str:
    return run.plan.spec.source.connection


def _time(extraction: Extraction) -> datetime:
    return datetime.fromisoformat(extraction.result.transaction_time)
