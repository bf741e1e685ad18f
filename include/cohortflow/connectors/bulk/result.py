"""What a bulk export amounts to, in counts and names."""

from __future__ import annotations

from cohortflow.connectors.bulk.coverage import tabulate_coverage
from cohortflow.connectors.bulk.state import ExportState, read_state
from cohortflow.connectors.extraction.extractor import Extracted, Phase, combine_digests, incomplete
from cohortflow.connectors.extraction.folder import RawSink
from cohortflow.connectors.extraction.result import ExtractionResult

__all__ = ["load_export", "sum_up"]


def sum_up(state: ExportState) -> Extracted:
    """Return what an export brought whose files are downloaded."""
    files: dict[str, tuple[str, ...]] = {}
    resources: dict[str, int] = {}
    severities: dict[str, int] = {}
    for item in state.files:
        for piece in item.pieces if item.section == "output" else ():
            files[piece.type] = (*files.get(piece.type, ()), piece.name)
            resources[piece.type] = resources.get(piece.type, 0) + piece.lines
        for severity, count in item.severities.items():
            severities[severity] = severities.get(severity, 0) + count
    result = ExtractionResult(
        transaction_time=state.transaction_time,
        files=files,
        resources=resources,
        bytes=sum(p.bytes for item in state.files if item.section == "output" for p in item.pieces),
        deleted_files=tuple(item.name for item in state.files if item.section == "deleted"),
        error_files=tuple(item.name for item in state.files if item.section == "error"),
        severities=severities,
        coverage=tabulate_coverage(state),
    )
    return Extracted(result, combine_digests(piece.sha256 for item in state.files for piece in item.pieces))


async def load_export(sink: RawSink) -> Extracted:
    """Return what the complete export of a sink brought.

    Raises:
        ArtifactNotFoundError: There is none.
        SourceError: The state is unreadable.
    """
    state = await read_state(sink)
    if state is None or state.phase is not Phase.COMPLETE:
        raise incomplete()
    return sum_up(state)
