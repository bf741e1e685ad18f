"""Parallel download of an export's files: bounded, checked, resumable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from cohortflow.connectors.bulk.client import BulkExport, InProgress
from cohortflow.connectors.bulk.organized import TypeSplitter
from cohortflow.connectors.bulk.state import ExportState, FileState, plan_files, settle_state
from cohortflow.connectors.bulk.transfer import FileMeter, OutcomeMeter
from cohortflow.connectors.extraction.folder import RawSink
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
    """Downloads the known files of one export that are missing in its sink."""

    def __init__(self, bulk: BulkExport, sink: RawSink, state: ExportState, progress: Progress) -> None:
        self._state = state
        self._files = {item.name: item for item in state.files}
        self._done = 0
        self._bulk = bulk
        self._sink = sink
        self._progress = progress
        self._clock = bulk.client.clock
        self._writing = asyncio.Lock()
        # Parting a file keeps an upload open for each type: one such file at a time bounds the memory.
        self._splitting = asyncio.Lock()
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
        while True:
            done = self._count_done()
            try:
                await self._download_missing()
            except ExportExpiredError:
                # Signatures may live shorter than the whole download takes: new ones are asked for as
                # long as each set of them brings at least one file.
                if not await self._refresh_addresses(progressed=self._count_done() > done):
                    raise
            else:
                return self.state

    def _count_done(self) -> int:
        return sum(item.done for item in self._files.values())

    async def _verify_done(self) -> None:
        """Forget files that the state calls done but that are not whole in the sink."""
        for item in self._files.values():
            for piece in item.pieces:
                if await self._sink.file_size(piece.name) != piece.bytes:
                    self._files[item.name] = item.model_copy(update={"done": False, "parts": ()})
                    break

    async def _download_missing(self) -> None:
        waiting = [item for item in self._files.values() if not item.done]
        missing = iter(waiting)
        self._done = len(self._files) - len(waiting)
        self._report()

        async def work() -> None:
            for item in missing:
                if self._is_quiet_time():
                    return  # what is under way ends; nothing new begins
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
        if self._count_done() < len(self._files):
            self._bulk.check_quiet_hours()

    async def _fetch(self, item: FileState) -> FileState:
        if not item.type:
            return await self._fetch_mixed(item)
        profile = self._bulk.profile
        meter = FileMeter()
        outcomes = OutcomeMeter(profile.codes, self._state.parameters) if item.section == "error" else None
        async with aclosing(self._chunks(item, meter, outcomes)) as chunks:
            await self._sink.write_file(item.name, chunks)
        if outcomes is not None and outcomes.ignored:
            raise ExportRejectedError(
                f"The server ignored a part of the request ({', '.join(sorted(outcomes.ignored))}).",
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
                "reasons": outcomes.reasons if outcomes else (),
            }
        )

    async def _fetch_mixed(self, item: FileState) -> FileState:
        splitter = TypeSplitter(self._sink, item.name, self._state.organized_by)
        meter = FileMeter()

        def check() -> None:
            # Whether the headers of blocks count as resources, the specification leaves open.
            self._check_count(item, splitter.lines + splitter.headers)

        async with self._splitting, aclosing(self._chunks(item, meter, None)) as chunks:
            parts = await splitter.write(chunks, check)
        return item.model_copy(
            update={
                "done": True,
                "bytes": meter.bytes,
                "lines": splitter.lines,
                "sha256": meter.sha256,
                "parts": parts,
            }
        )

    async def _chunks(
        self, item: FileState, meter: FileMeter, outcomes: OutcomeMeter | None
    ) -> AsyncGenerator[bytes, None]:
        source = self._bulk.download(item.url, private=self.state.requires_access_token)
        async with aclosing(source) as chunks:
            async for chunk in chunks:
                # Hashing leaves the event loop, and the lock of Python, to the other downloads.
                await asyncio.to_thread(meter.update, chunk)
                if outcomes is not None:
                    outcomes.update(chunk)
                yield chunk
        if outcomes is not None:
            outcomes.finish()
        excess = item.count is not None and meter.lines > item.count
        if meter.ends_within_object and not excess:
            # What a server cut short itself comes with the right length.
            raise IncompleteDownloadError(
                "The file ends within a line.",
                place=item.name,
                remedy="Run it again; if it stays so, ask the server's operator for the file's last line.",
            )
        if item.type:
            self._check_count(item, meter.lines)

    def _check_count(self, item: FileState, lines: int) -> None:
        if item.count is None or not self._bulk.profile.trust_counts:
            return
        if lines < item.count and item.section == "output":
            # Raised before the chunks end, so that the sink drops the file.
            raise IncompleteDownloadError(
                f"The file holds {lines} resources, the manifest says {item.count}.",
                place=item.name,
                remedy="Run it again; if the server counts otherwise, its profile needs trust_counts off.",
            )
        if lines != item.count and item.type:
            # Nothing is missing: a line that is no resource is for the reader of the file to judge, and
            # of deletions and outcomes some servers count the entries and not the lines.
            _log.warning("%s holds %d lines, the manifest says %d", item.name, lines, item.count)

    def _is_quiet_time(self) -> bool:
        try:
            self._bulk.check_quiet_hours()
        except TransientSourceError:
            return True
        return False

    def _report(self) -> None:
        self._progress.update("download", self._done, len(self._files), "files")

    async def _save(self, *, force: bool) -> None:
        # The state grows with the number of files: writing it after each would take quadratic time.
        async with self._writing:
            now = self._clock.time()
            if force or now - self._saved_at >= _CHECKPOINT_SECONDS:
                self._saved_at = now
                await settle_state(self._sink, self.state)

    async def _refresh_addresses(self, *, progressed: bool) -> bool:
        """Ask for the manifest again and take over its addresses; ``False`` if that leads nowhere."""
        answer = await self._bulk.poll(self._state.status_url)
        if isinstance(answer, InProgress) and answer.transient:
            raise TransientSourceError(
                "Addresses of files have expired, and the server is too busy to give new ones.",
                place=self._bulk.client.source.host,
                remedy="Run it again later; what was downloaded is kept.",
                retry_after=answer.retry_after,
            )
        manifest = answer.manifest if isinstance(answer, InProgress) else answer
        if manifest is None or manifest.transaction_time != self._state.transaction_time:
            return False
        files = plan_files(manifest, tuple(self._files.values()))
        # Files that came to a running export meanwhile are left to the next poll.
        renewed = [item for item in files or () if item.name in self._files]
        if not renewed or not (progressed or any(self._files[item.name].url != item.url for item in renewed)):
            return False
        self._files = {item.name: item for item in renewed}
        _log.info("Addresses of files had expired; the manifest gave new ones")
        return True
