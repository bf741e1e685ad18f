"""A whole bulk export into the raw zone, resumable at every point.

``run_export`` does all of it. A scheduler that must not hold a worker while the server prepares the
files calls ``ensure_started``, then ``poll_once`` from time to time, then ``download_all``; each reads
where things stand from the sink and may run in another process.

The phases of ``ExportState``::

    PENDING -> RUNNING -> READY -> COMPLETE
                  |         |
                  +---------+--> EXPIRED | FAILED | CANCELLED -> (ensure_started) PENDING
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from cohortflow.connectors.bulk import BulkExport, ExportRequest, InProgress
from cohortflow.connectors.download import Downloader
from cohortflow.connectors.state import (
    ExportState,
    Phase,
    RawSink,
    plan_files,
    read_state,
    settle_state,
    write_state,
)
from cohortflow.errors import (
    ArtifactNotFoundError,
    ExportExpiredError,
    ExportRejectedError,
    TransientSourceError,
)
from cohortflow.model import NoProgress, Progress

__all__ = [
    "ExtractionResult",
    "cancel_export",
    "download_all",
    "ensure_started",
    "poll_once",
    "run_export",
]

_log = logging.getLogger(__name__)

_ENDED = (Phase.PENDING, Phase.EXPIRED, Phase.FAILED, Phase.CANCELLED)


@dataclass(frozen=True, slots=True)
class ExtractionResult:
    """What an export brought; counts and names only, so it may travel through XCom and logs.

    Attributes:
        transaction_time: FHIR instant: the ``since`` of the next export.
        files: Names in the sink by resource type, in the manifest's order.
        resources: Number of resources by type.
        bytes: Size of the resource files.
        deleted_files: Names of the files with Bundles of deletions.
        error_files: Names of the files with OperationOutcomes.
        severities: Issues in the error files by severity.
    """

    transaction_time: str
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    resources: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0
    deleted_files: tuple[str, ...] = ()
    error_files: tuple[str, ...] = ()
    severities: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_partial(self) -> bool:
        """Whether the server reported errors, so that resources may be missing; warnings do not count."""
        return any(self.severities.get(severity, 0) for severity in ("fatal", "error"))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ExtractionResult:
        """Read what ``to_dict`` wrote, also after a round trip through JSON."""
        return cls(
            **{
                **value,
                "files": {kind: tuple(names) for kind, names in value["files"].items()},
                "deleted_files": tuple(value["deleted_files"]),
                "error_files": tuple(value["error_files"]),
            }
        )

    @classmethod
    def from_state(cls, state: ExportState) -> ExtractionResult:
        """Sum up a complete export."""
        files: dict[str, tuple[str, ...]] = {}
        resources: dict[str, int] = {}
        severities: dict[str, int] = {}
        for item in state.files:
            if item.section == "output":
                files[item.type] = (*files.get(item.type, ()), item.name)
                resources[item.type] = resources.get(item.type, 0) + item.lines
            for severity, count in item.severities.items():
                severities[severity] = severities.get(severity, 0) + count
        return cls(
            transaction_time=state.transaction_time,
            files=files,
            resources=resources,
            bytes=sum(item.bytes for item in state.files if item.section == "output"),
            deleted_files=tuple(item.name for item in state.files if item.section == "deleted"),
            error_files=tuple(item.name for item in state.files if item.section == "error"),
            severities=severities,
        )


async def ensure_started(bulk: BulkExport, request: ExportRequest, sink: RawSink) -> ExportState:
    """Start an export unless this sink holds one of the same request from the same server.

    A running, ready or complete export is returned as it stands. One that expired, failed or was
    cancelled, or that answers another request, is discarded with its files.

    Raises:
        SourceError: See ``BulkExport.kick_off``; the state is unreadable.
    """
    server = bulk.client.source.base_url
    state = await read_state(sink)
    if state is not None:
        same = (state.server, state.request_digest) == (server, request.digest)
        if same and state.phase not in _ENDED:
            _log.info("Going on with an export on %s: %s", bulk.client.source.host, state.phase)
            return state
        if not same and state.server == server and state.phase in (Phase.RUNNING, Phase.READY):
            await bulk.delete(state.status_url)
    # The old state must be gone before its files are: it calls them done.
    fresh = ExportState(server=server, request_digest=request.digest)
    if (standing := await settle_state(sink, fresh)) is not fresh:
        return standing
    await sink.remove_files()
    status_url = await bulk.kick_off(request)
    state = fresh.evolve(phase=Phase.RUNNING, status_url=status_url, kicked_off_at=_now(bulk))
    try:
        await write_state(sink, state)
    except BaseException:
        # Without its state nobody would ever find the export again.
        await bulk.delete(status_url)
        raise
    return state


async def poll_once(bulk: BulkExport, sink: RawSink) -> InProgress | ExportState:
    """Ask once how the export of a sink is going; return its state once files can be downloaded.

    Raises:
        ExportExpiredError: The server has forgotten the export; ``ensure_started`` will start another.
        ExportRejectedError: The export failed; ``ensure_started`` will start another.
        AuthorizationError: Credentials or scopes do not suffice.
        TransientSourceError: The export takes longer, or the server is unreachable for longer, than
            the profile allows. The export is kept: polling may go on.
        ArtifactNotFoundError: No export was started.
    """
    state = await _started(sink)
    if state.phase in (Phase.READY, Phase.COMPLETE):
        return state
    try:
        answer = await bulk.poll(state.status_url)
    except ExportExpiredError:
        return await _end(sink, state, Phase.EXPIRED)
    except ExportRejectedError:
        return await _end(sink, state, Phase.FAILED)
    if isinstance(answer, InProgress):
        await _note_outage(bulk, sink, state, answer)
        _check_patience(bulk, state)
        return answer
    ready = state.evolve(
        phase=Phase.READY,
        unreachable_since=None,
        transaction_time=answer.transaction_time,
        requires_access_token=answer.requires_access_token,
        files=plan_files(answer),
    )
    ready = await settle_state(sink, ready)
    _log.info("The export on %s is ready: %d files", bulk.client.source.host, len(ready.files))
    return ready


async def download_all(bulk: BulkExport, sink: RawSink, progress: Progress | None = None) -> ExtractionResult:
    """Download what is missing of a ready export, mark it complete, and let the server remove it.

    Files that are complete in the sink are not fetched again. When addresses of files have expired,
    the manifest is asked for once more; only if that does not help has the export expired.

    Raises:
        ExportExpiredError: The files are gone; ``ensure_started`` will start another export.
        IncompleteDownloadError: A file kept ending early, or kept differing from its announced count.
        SourceError: The server failed otherwise.
        ArtifactNotFoundError: The export is not ready.
    """
    state = await _started(sink)
    if state.phase is Phase.COMPLETE:
        return ExtractionResult.from_state(state)
    if state.phase is not Phase.READY:
        raise ArtifactNotFoundError(
            "The export is not ready for download.", remedy="Poll it until it is, then download."
        )
    downloader = Downloader(bulk, sink, state, progress or NoProgress())
    try:
        ready = await downloader.run()
    except ExportExpiredError:
        return ExtractionResult.from_state(await _end(sink, downloader.state, Phase.EXPIRED))
    # Addresses may be signed: they are not kept longer than needed.
    files = tuple(item.model_copy(update={"url": ""}) for item in ready.files)
    complete = ready.evolve(phase=Phase.COMPLETE, files=files)
    await write_state(sink, complete)
    result = ExtractionResult.from_state(complete)
    _log.info(
        "The export from %s is complete: %s; issues: %s",
        bulk.client.source.host,
        dict(result.resources),
        dict(result.severities) or "none",
    )
    # Only once the data are safe; patient data should not lie on the server longer than needed.
    await bulk.delete(state.status_url)
    return result


async def cancel_export(bulk: BulkExport, sink: RawSink) -> None:
    """Cancel an unfinished export on the server, as far as it agrees, and remember that."""
    state = await read_state(sink)
    if state is None or state.phase not in (Phase.RUNNING, Phase.READY):
        return
    await write_state(sink, state.evolve(phase=Phase.CANCELLED))
    await bulk.delete(state.status_url)


async def run_export(
    bulk: BulkExport,
    request: ExportRequest,
    sink: RawSink,
    progress: Progress | None = None,
    *,
    delete_on_cancel: bool = False,
) -> ExtractionResult:
    """Export, wait and download; go on with what an earlier run left behind.

    An export that expires is started anew, once.

    Args:
        bulk: The server.
        request: What to export.
        sink: Where to.
        progress: Told of percents while waiting and of files while downloading.
        delete_on_cancel: Whether being cancelled also cancels the export on the server. By default
            it stays, so that the next run goes on with it: a stopped worker looks the same from here.

    Raises:
        SourceError: See ``ensure_started``, ``poll_once`` and ``download_all``.
    """
    progress = progress or NoProgress()
    try:
        try:
            return await _run(bulk, request, sink, progress)
        except ExportExpiredError:
            _log.warning("The export on %s has expired; starting it anew", bulk.client.source.host)
            return await _run(bulk, request, sink, progress)
    except asyncio.CancelledError:
        if delete_on_cancel:
            await asyncio.shield(cancel_export(bulk, sink))
        raise


async def _run(
    bulk: BulkExport, request: ExportRequest, sink: RawSink, progress: Progress
) -> ExtractionResult:
    await ensure_started(bulk, request, sink)
    while isinstance(answer := await poll_once(bulk, sink), InProgress):
        if answer.percent is not None:
            progress.update("export", answer.percent, 100, "%")
        await bulk.client.clock.sleep(answer.retry_after)
    return await download_all(bulk, sink, progress)


async def _end(sink: RawSink, state: ExportState, phase: Phase) -> ExportState:
    """Remember that an export ended badly, and raise on; return it if another run completed it instead.

    A run that completes an export removes it from the server, so that others find it gone.
    """
    standing = await settle_state(sink, state.evolve(phase=phase))
    if standing.phase is Phase.COMPLETE:
        return standing
    raise  # noqa: PLE0704  # called while the server's answer is being handled


async def _started(sink: RawSink) -> ExportState:
    state = await read_state(sink)
    if state is None or state.phase in _ENDED:
        raise ArtifactNotFoundError(
            "There is no running export in this folder of the raw zone.",
            remedy="Start one first: the task before this one does.",
        )
    return state


async def _note_outage(bulk: BulkExport, sink: RawSink, state: ExportState, answer: InProgress) -> None:
    if not answer.transient:
        if state.unreachable_since is not None:
            await settle_state(sink, state.evolve(unreachable_since=None))
        return
    now = _now(bulk)
    if state.unreachable_since is None:
        await settle_state(sink, state.evolve(unreachable_since=now))
    elif (now - state.unreachable_since).total_seconds() > bulk.profile.max_outage_seconds:
        # The next run starts counting again.
        await settle_state(sink, state.evolve(unreachable_since=None))
        raise TransientSourceError(
            f"The server has been unreachable for {_hours(bulk.profile.max_outage_seconds)}.",
            place=bulk.client.source.host,
            remedy="Run it again once the server is back; the export goes on.",
        )


def _check_patience(bulk: BulkExport, state: ExportState) -> None:
    if state.kicked_off_at is None:
        return
    waited = (_now(bulk) - state.kicked_off_at).total_seconds()
    if waited > bulk.profile.max_wait_seconds:
        raise TransientSourceError(
            f"The export is not ready after {_hours(bulk.profile.max_wait_seconds)}.",
            place=bulk.client.source.host,
            remedy="Ask the server's operator, or cancel it and export a smaller group or fewer types.",
        )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:g} hours"


def _now(bulk: BulkExport) -> datetime:
    return datetime.fromtimestamp(bulk.client.clock.time(), tz=UTC)
