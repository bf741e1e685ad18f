"""Parallel download of an export's files: bounded, checked, resumable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from urllib.parse import urlsplit

from cohortflow.connectors.bulk import BulkExport, InProgress
from cohortflow.connectors.manifest import Manifest
from cohortflow.connectors.state import ExportState, FileState, RawSink, plan_files, settle_state
from cohortflow.connectors.transfer import FileMeter, OutcomeMeter
from cohortflow.errors import (
    ExportExpiredError,
    ExportRejectedError,
    IncompleteDownloadError,
    TransientSourceError,
)
from cohortflow.model import Progress

__all__ = ["Downloader"]

_log = logging.getLogger(__name__)

_CHECKPOINT_SECONDS = 2.0


class Downloader:
    """Downloads the files of one ready export that are missing in its sink."""

    def __init__(self, bulk: BulkExport, sink: RawSink, state: ExportState, progress: Progress) -> None:
        self._state = state
        self._files = {item.name: item for item in state.files}
        self._done = 0
        self._bulk = bulk
        self._sink = sink
        self._progress = progress
        self._clock = bulk.client.clock
        self._writing = asyncio.Lock()
        self._saved_at = self._clock.time()

    @property
    def state(self) -> ExportState:
        """The export's state, with the files that are done so far."""
        return self._state.evolve(files=tuple(self._files.values()))

    async def run(self) -> ExportState:
        """Download all files and return the state that holds them.

        Raises:
            ExportExpiredError: Files are gone, and the manifest does not lead to them any more.
            IncompleteDownloadError: A file kept ending early.
            SourceError: The server failed otherwise.
        """
        await self._verify_done()
        try:
            await self._download_missing()
        except ExportExpiredError:
            if not await self._refresh_addresses():
                raise
            await self._download_missing()
        return self.state

    async def _verify_done(self) -> None:
        """Forget files that the state calls done but that are not whole in the sink."""
        for item in self._files.values():
            if item.done and await self._sink.file_size(item.name) != item.bytes:
                self._files[item.name] = item.model_copy(update={"done": False})

    async def _download_missing(self) -> None:
        waiting = [item for item in self._files.values() if not item.done]
        missing = iter(waiting)
        self._done = len(self._files) - len(waiting)
        self._report()

        async def work() -> None:
            for item in missing:
                fetch = partial(self._fetch, item)
                self._files[item.name] = await self._bulk.client.policy.run(fetch, self._clock)
                self._done += 1
                self._report()
                await self._save(force=False)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._bulk.client.source.concurrency):
                    group.create_task(work())
        except* Exception as errors:  # noqa: BLE001 - re-raised below
            failures = errors.exceptions
        else:
            failures = ()
        finally:
            # Also when cancelled: what is there need not be fetched again.
            await self._save(force=True)
        if failures:
            raise failures[0]

    async def _fetch(self, item: FileState) -> FileState:
        meter = FileMeter()
        outcomes = OutcomeMeter(self._bulk.profile.warning_codes) if item.section == "error" else None
        async with aclosing(self._chunks(item, meter, outcomes)) as chunks:
            await self._sink.write_file(item.name, chunks)
        if outcomes is not None and (ignored := self._bulk.profile.fatal_codes & outcomes.codes):
            raise ExportRejectedError(
                f"The server ignored a part of the request ({', '.join(sorted(ignored))}).",
                place=self._bulk.client.source.host,
                remedy="Leave out the filter or parameter that it does not support.",
            )
        return item.model_copy(
            update={
                "done": True,
                "bytes": meter.bytes,
                "lines": meter.lines,
                "sha256": meter.sha256,
                "severities": outcomes.severities if outcomes else {},
            }
        )

    async def _chunks(
        self, item: FileState, meter: FileMeter, outcomes: OutcomeMeter | None
    ) -> AsyncGenerator[bytes, None]:
        source = self._bulk.download(item.url, private=self.state.requires_access_token)
        async with aclosing(source) as chunks:
            async for chunk in chunks:
                meter.update(chunk)
                if outcomes is not None:
                    outcomes.update(chunk)
                yield chunk
        if outcomes is not None:
            outcomes.finish()
        if self._bulk.profile.trust_counts and item.count is not None:
            _check_count(item.name, item.count, meter.lines)

    def _report(self) -> None:
        self._progress.update("download", self._done, len(self._files), "files")

    async def _save(self, *, force: bool) -> None:
        # The state grows with the number of files: writing it after each would take quadratic time.
        async with self._writing:
            now = self._clock.time()
            if force or now - self._saved_at >= _CHECKPOINT_SECONDS:
                self._saved_at = now
                await settle_state(self._sink, self.state)

    async def _refresh_addresses(self) -> bool:
        """Ask for the manifest again and take over its addresses; ``False`` if it is another export's."""
        answer = await self._bulk.poll(self._state.status_url)
        if isinstance(answer, InProgress) and answer.transient:
            raise TransientSourceError(
                "Addresses of files have expired, and the server is too busy to give new ones.",
                place=self._bulk.client.source.host,
                remedy="Run it again later; what was downloaded is kept.",
                retry_after=answer.retry_after,
            )
        if isinstance(answer, InProgress) or answer.transaction_time != self._state.transaction_time:
            return False
        return self._take_addresses(answer)

    def _take_addresses(self, manifest: Manifest) -> bool:
        # Only the signature in the query may have changed: else it is unknown which file is which.
        urls = {(item.section, _stable(item.url)): item.url for item in plan_files(manifest)}
        known = {name: (item.section, _stable(item.url)) for name, item in self._files.items()}
        changed = any(urls.get(known[name]) != item.url for name, item in self._files.items())
        if not changed or set(known.values()) != set(urls) or len(urls) != len(known):
            return False
        for name, item in self._files.items():
            self._files[name] = item.model_copy(update={"url": urls[known[name]]})
        _log.info("Addresses of files had expired; the manifest gave new ones")
        return True


def _check_count(name: str, announced: int, lines: int) -> None:
    if lines < announced:
        # Raised before the chunks end, so that the sink drops the file.
        raise IncompleteDownloadError(
            f"The file holds {lines} resources, the manifest says {announced}.",
            place=name,
            remedy="Run it again; if the server counts otherwise, its profile needs trust_counts off.",
        )
    if lines > announced:
        # Nothing is missing; a line that is no resource is for the reader of the file to judge.
        _log.warning("%s holds %d lines, the manifest says %d", name, lines, announced)


def _stable(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path}"
