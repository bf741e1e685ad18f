"""A whole bulk export into the raw zone, resumable at every point.

``ensure_started`` comes first, then ``poll_once`` from time to time, then ``download_all``; each reads
where things stand from the sink and may run in another process.

The phases of ``ExportState``::

    PENDING -> RUNNING -> READY -> COMPLETE
                  |         |
                  +---------+--> EXPIRED | FAILED | CANCELLED -> (ensure_started) PENDING
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from cohortflow.connectors.bulk.client import BulkExport, ExportRequest, InProgress
from cohortflow.connectors.bulk.coverage import COVERAGE_FILE, describe_coverage
from cohortflow.connectors.bulk.download import Downloader
from cohortflow.connectors.bulk.manifest import Manifest
from cohortflow.connectors.bulk.result import sum_up
from cohortflow.connectors.bulk.state import (
    ExportState,
    plan_files,
    read_state,
    settle_state,
    write_state,
)
from cohortflow.connectors.extraction.extractor import Phase
from cohortflow.connectors.extraction.folder import RawSink
from cohortflow.connectors.extraction.result import ExtractionResult
from cohortflow.errors import (
    ArtifactNotFoundError,
    ExportExpiredError,
    ExportRejectedError,
    IncompleteDownloadError,
    TransientSourceError,
)
from cohortflow.model import NoProgress, Progress

__all__ = [
    "cancel_export",
    "download_all",
    "download_available",
    "ensure_started",
    "poll_once",
]

_log = logging.getLogger(__name__)

_ENDED = (Phase.PENDING, Phase.EXPIRED, Phase.FAILED, Phase.CANCELLED)


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
    fresh = ExportState(
        server=server,
        request_digest=request.digest,
        types=request.types,
        parameters=request.parameter_names,
        absent=tuple(sorted(bulk.profile.not_exported)),
    )
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
        state = await _note_outage(bulk, sink, state, answer)
        if answer.manifest is not None:
            state = await _take_manifest(sink, state, answer.manifest)
        _check_patience(bulk, state)
        waiting = sum(not item.done for item in state.files)
        return dataclasses.replace(answer, waiting_files=waiting)
    ready = await _take_manifest(sink, state.evolve(phase=Phase.READY, unreachable_since=None), answer)
    _log.info("The export on %s is ready: %d files", bulk.client.source.host, len(ready.files))
    return ready


async def _take_manifest(sink: RawSink, state: ExportState, manifest: Manifest) -> ExportState:
    """Remember the files of a manifest, with what is downloaded of them already."""
    known = state.files if state.transaction_time == manifest.transaction_time else ()
    files = plan_files(manifest, known)
    if files is None:
        _log.warning("The manifest has lost files that it had before; all files are fetched anew")
        files = plan_files(manifest) or ()
    changes = {
        "transaction_time": manifest.transaction_time,
        "requires_access_token": manifest.requires_access_token,
        "organized_by": manifest.organized_by,
        "files": files,
    }
    changed = state.evolve(**changes)
    return await settle_state(sink, changed) if changed != await read_state(sink) else changed


async def download_available(bulk: BulkExport, sink: RawSink, progress: Progress | None = None) -> int:
    """Download what a running export offers already, and return the number of its files that are there.

    It is never needed, but saves time: ``download_all`` fetches what is left, and tells what keeps failing.

    Raises:
        SourceError: A file is refused for good, or the server ignored a part of the request.
    """
    state = await _started(sink)
    if state.phase is not Phase.RUNNING or not state.files:
        return 0
    downloader = Downloader(bulk, sink, state, progress or NoProgress())
    try:
        state = await downloader.run()
    except (ExportExpiredError, IncompleteDownloadError, TransientSourceError) as error:
        # There is time: the next poll finds new addresses, or that the export is gone.
        _log.info("Not all files could be downloaded yet (%s)", type(error).__name__)
        state = downloader.state
    return sum(item.done for item in state.files)


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
        return sum_up(state).result
    if state.phase is not Phase.READY:
        raise ArtifactNotFoundError(
            "The export is not ready for download.", remedy="Poll it until it is, then download."
        )
    downloader = Downloader(bulk, sink, state, progress or NoProgress())
    try:
        ready = await downloader.run()
    except ExportExpiredError:
        return sum_up(await _end(sink, downloader.state, Phase.EXPIRED)).result
    await sink.write_file(COVERAGE_FILE, _once(describe_coverage(ready)))
    # Addresses may be signed: they are not kept longer than needed.
    files = tuple(item.model_copy(update={"url": ""}) for item in ready.files)
    complete = ready.evolve(phase=Phase.COMPLETE, files=files)
    await write_state(sink, complete)
    result = sum_up(complete).result
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


async def _note_outage(
    bulk: BulkExport, sink: RawSink, state: ExportState, answer: InProgress
) -> ExportState:
    if not answer.transient:
        if state.unreachable_since is not None:
            return await settle_state(sink, state.evolve(unreachable_since=None))
        return state
    now = _now(bulk)
    if state.unreachable_since is None:
        return await settle_state(sink, state.evolve(unreachable_since=now))
    if (now - state.unreachable_since).total_seconds() > bulk.profile.max_outage_seconds:
        # The next run starts counting again.
        await settle_state(sink, state.evolve(unreachable_since=None))
        raise TransientSourceError(
            f"The server has been unreachable for {_hours(bulk.profile.max_outage_seconds)}.",
            place=bulk.client.source.host,
            remedy="Run it again once the server is back; the export goes on.",
        )
    return state


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


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
