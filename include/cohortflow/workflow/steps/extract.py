"""Extract: a Bulk Data export into the raw zone."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
from datetime import datetime

from cohortflow.connectors import (
    BulkExport,
    ExportRequest,
    ExportState,
    ExtractionResult,
    FhirSource,
    InProgress,
    Phase,
    connect,
    download_all,
    ensure_started,
    poll_once,
    run_export,
)
from cohortflow.connectors.state import read_state, write_state
from cohortflow.errors import ArtifactNotFoundError
from cohortflow.lake import RawExport
from cohortflow.workflow.datasets import views_to_read
from cohortflow.workflow.run import Run, StepResult

__all__ = [
    "Extraction",
    "advance_extraction",
    "describe_extraction",
    "extract_bulk",
    "load_extraction",
    "plan_extraction",
]

_log = logging.getLogger(__name__)

_SECONDS_PER_HOUR = 3600


@dataclasses.dataclass(frozen=True, slots=True)
class Extraction:
    """A complete export.

    Attributes:
        export: Its folder in the raw zone.
        result: Files and counts.
        digest: SHA-256 over the files' digests: equal exports have equal ones.
    """

    export: RawExport
    result: ExtractionResult
    digest: str

    def uris(self, resource: str) -> list[str]:
        """Return the URIs of a resource type's files."""
        return [self.export.uri(name) for name in self.result.files.get(resource, ())]


def plan_extraction(run: Run) -> tuple[FhirSource, ExportRequest, RawExport]:
    """Return the server, the request and the folder of a run's export.

    The folder depends on the request and the interval and not on the run, so that a run repeated
    later works on the data that the interval had; ``fresh_export`` asks for new ones. An export taken
    before the interval ended is not used again.

    Raises:
        ConfigurationError: The connection is missing or wrong.
        ProjectKeyError: The project key is; checked here, before patient data are fetched.
    """
    run.key.fingerprint  # noqa: B018  # reading it checks the key
    spec = run.plan.spec.source
    source = FhirSource.from_connection(run.deployment.connection(spec.connection))
    patience = dataclasses.replace(source.profile, max_wait_seconds=spec.max_wait_hours * _SECONDS_PER_HOUR)
    source = dataclasses.replace(source, profile=patience)
    views = (run.plan.datasets[name].view for name in views_to_read(run.plan.spec))
    resources = {view.resource for view in views if view is not None}
    request = ExportRequest(
        level=spec.level,
        group_id=spec.group or "",
        types=tuple(sorted(resources | set(spec.resource_types))),
        type_filters=spec.type_filters,
    )
    folder = request.digest[:16]
    if run.fresh_export:
        folder += "-" + hashlib.sha256(run.run_id.encode()).hexdigest()[:8]
    prefix = f"{spec.connection}/{run.plan.study}/{run.interval.key}/{folder}"
    return source, request, RawExport(run.raw, prefix)


def extract_bulk(run: Run, _view: str = "") -> StepResult:
    """Export and download everything that the views read; resumes what an earlier attempt left."""
    source, request, export = plan_extraction(run)

    async def extract() -> None:
        await _discard_early_export(run, export)
        async with connect(source) as client:
            await run_export(BulkExport(client), request, export, run.progress)

    asyncio.run(extract())
    return describe_extraction(run)


async def advance_extraction(run: Run) -> RawExport | None:
    """Start or resume a run's export and download it if it is ready.

    Returns:
        ``None`` once everything is downloaded; the export's folder while the server prepares it.

    Raises:
        ExportExpiredError: The server has forgotten it; the next call starts another.
        SourceError: The server failed otherwise.
    """
    source, request, export = plan_extraction(run)
    await _discard_early_export(run, export)
    async with connect(source) as client:
        bulk = BulkExport(client)
        await ensure_started(bulk, request, export)
        if isinstance(await poll_once(bulk, export), InProgress):
            return export
        await download_all(bulk, export, run.progress)
    return None


async def _discard_early_export(run: Run, export: RawExport) -> None:
    """Make a complete export void that was taken before the interval ended: it lacks what came after."""
    state = await read_state(export)
    if state is None or state.phase is not Phase.COMPLETE:
        return
    if datetime.fromisoformat(state.transaction_time) < run.interval.end:
        _log.info("The export at hand was taken before the interval ended; exporting again")
        await write_state(export, state.evolve(phase=Phase.EXPIRED))


def describe_extraction(run: Run) -> StepResult:
    """Sum up the complete export of a run."""
    extraction = load_extraction(run)
    result = extraction.result
    return StepResult(
        facts={
            "resources": dict(result.resources),
            "bytes": result.bytes,
            "transaction_time": result.transaction_time,
            "issues": dict(result.severities),
            "partial": result.is_partial,
        }
    )


def load_extraction(run: Run) -> Extraction:
    """Return the complete export of a run.

    Raises:
        ArtifactNotFoundError: There is none, or it is not complete.
    """
    _, _, export = plan_extraction(run)
    state: ExportState | None = asyncio.run(read_state(export))
    if state is None or state.phase is not Phase.COMPLETE:
        raise ArtifactNotFoundError(
            "The raw zone holds no complete export of this interval.",
            place=export.store.child(export.prefix),
            remedy="Run the extraction first.",
        )
    digest = hashlib.sha256("".join(sorted(item.sha256 for item in state.files)).encode())
    return Extraction(export, ExtractionResult.from_state(state), digest.hexdigest())
