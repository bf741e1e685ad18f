"""Extraction by search: per patient, or per type as a whole; resumable after every part.

A crawl is cut into units of work, and each unit fills one part file per resource type. A part counts
once the state names it, which is written after the files are whole: a worker that is killed in between
leaves files that the next one writes again, so nothing is lost and nothing is there twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import aclosing

from cohortflow.connectors.crawl.patient import PatientCrawler, ends_of
from cohortflow.connectors.crawl.patients import read_patients, resolve_patients, write_patients
from cohortflow.connectors.crawl.plan import CrawlPlan, Unit
from cohortflow.connectors.crawl.request import CrawlLimits, CrawlRequest
from cohortflow.connectors.crawl.result import check_failures, closing_reason, load_crawl, sum_up
from cohortflow.connectors.crawl.state import CrawlState
from cohortflow.connectors.extraction.extractor import Extracted, ExtractionStatus, Mode, Pending, Phase
from cohortflow.connectors.extraction.folder import RawFolder
from cohortflow.connectors.profiles.search import SearchProfile
from cohortflow.connectors.search.client import (
    SearchClient,
    SearchQuery,
    SearchRefusedError,
)
from cohortflow.connectors.search.parts import Collector, PartWriter, Seen
from cohortflow.connectors.search.units import UnitState
from cohortflow.connectors.search.workers import (
    EVERY_TYPE,
    RETRY_SECONDS,
    Budget,
    fetch_part,
    run_workers,
    waiting_times,
)
from cohortflow.connectors.transport.client import FhirClient
from cohortflow.errors import (
    ArtifactNotFoundError,
    AuthorizationError,
    ExportRejectedError,
    TransientSourceError,
)
from cohortflow.model import NoProgress, Progress

__all__ = ["CrawlExtractor"]

_log = logging.getLogger(__name__)


class CrawlExtractor:
    """Fills a folder of the raw zone by search.

    Args:
        client: The server.
        request: What to search for.
        folder: Where to.
        profile: How the server is searched; by its ``ServerProfile`` where absent.
        limits: Size of parts, tolerance of failures.
    """

    def __init__(
        self,
        client: FhirClient,
        request: CrawlRequest,
        folder: RawFolder,
        *,
        profile: SearchProfile | None = None,
        limits: CrawlLimits | None = None,
    ) -> None:
        self.search = SearchClient(client, profile)
        self.plan = CrawlPlan(request, self.search.profile)
        self._client = client
        self._request = request
        self._folder = folder
        self._limits = limits or CrawlLimits()
        self._patients: tuple[str, ...] = ()
        self._crawler = PatientCrawler(self.search, self.plan, (), {})
        self._state = CrawlState(mode=request.mode, server="", request_digest="")
        self._committing = asyncio.Lock()
        self._budget = Budget(client.clock)

    @property
    def mode(self) -> Mode:
        """``crawl`` with patients, else ``search``."""
        return self._request.mode

    @property
    def request_digest(self) -> str:
        """That of the crawl's request."""
        return self._request.digest

    async def status(self) -> ExtractionStatus | None:
        """Tell how far the crawl in the folder is."""
        state = await CrawlState.read(self._folder)
        if state is None:
            return None
        return ExtractionStatus(state.phase, state.server, state.request_digest, state.transaction_time)

    async def start(self) -> None:
        """Find out who the patients are and what time it is there, unless that is known.

        Raises:
            ExportRejectedError: This kind of server cannot answer the request.
            SourceError: The server failed.
        """
        self.plan.check_support(self.search.host)
        server = self._client.source.base_url
        state = await CrawlState.read(self._folder)
        standing = (
            (server, self._request.digest, Phase.RUNNING),
            (server, self._request.digest, Phase.COMPLETE),
        )
        if state is not None and (state.server, state.request_digest, state.phase) in standing:
            _log.info("Going on with a crawl of %s: %s", self.search.host, state.phase)
            return
        fresh = CrawlState(
            mode=self._request.mode,
            server=server,
            request_digest=self._request.digest,
            types=self._request.types,
            skipped=self.plan.skipped,
            phase=Phase.PENDING,
        )
        # The old state must be gone before its files are: it counts on them.
        await fresh.write(self._folder)
        await self._folder.remove_files()
        began = await self.search.server_time()
        if self._request.patients is not None:
            patients = await resolve_patients(self.search, self._request.patients)
            await write_patients(self._folder, patients)
            batch_size = self._limits.batch_size(len(patients))
            fresh = fresh.evolve(patients=len(patients), batch_size=batch_size)
            _log.info("Crawling the records of %d patients on %s", len(patients), self.search.host)
        transaction_time = began.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        await fresh.evolve(phase=Phase.RUNNING, transaction_time=transaction_time).write(self._folder)

    async def advance(
        self, progress: Progress | None = None, *, budget_seconds: float | None = None
    ) -> Pending | None:
        """Search until all is there, the budget is spent, or the server wants to be left alone.

        Raises:
            ExportRejectedError: A filter was ignored, or too many queries failed.
            AuthorizationError: The credentials were refused, or no type is for us.
            TransientSourceError: The server stayed busy or unreachable.
        """
        await self._load()
        if self._state.phase is Phase.COMPLETE:
            return None
        self._budget = Budget(self._client.clock, budget_seconds)
        units = list(self.plan.units(self._state.patients, self._state.batch_size))
        self._report(progress or NoProgress(), units)
        # Patients of one unit are asked for in parallel; so are types that are searched as a whole.
        parallel = 1 if self._request.mode == "crawl" else self._client.source.concurrency
        waiting = deque(unit for unit in units if not self._is_done(unit))

        async def work() -> None:
            while waiting and not self._budget.is_spent() and not self.search.quiet_seconds():
                unit = waiting.popleft()
                if self._is_done(unit) or self._is_waiting(unit.type):
                    continue
                await (self._crawl_batch(unit) if unit.query is None else self._search_type(unit, unit.query))
                await self._judge(unit.type)
                self._report(progress or NoProgress(), units)

        await run_workers(work, parallel)
        left = [unit for unit in units if not self._is_done(unit)]
        if not left:
            await self._finish()
            return None
        if (quiet := self.search.quiet_seconds()) > 0:
            return Pending(quiet, "quiet hours of the server")
        if waits := [until for name in left if (until := self._waits_until(name.type)) is not None]:
            wait = max(1.0, min(waits) - self._client.clock.time())
            if all(self._is_waiting(unit.type) for unit in left):
                return Pending(wait, "the server asked to come back later")
        if self._budget.is_spent():
            return Pending(0.0, "more is to be searched")
        return Pending(RETRY_SECONDS, "some queries failed and are tried once more")

    async def result(self) -> Extracted:
        """Sum up the complete crawl."""
        return await load_crawl(self._folder)

    async def discard(self) -> None:
        """Say that the complete crawl has expired."""
        state = await CrawlState.read(self._folder)
        if state is not None and state.phase is Phase.COMPLETE:
            await state.evolve(phase=Phase.EXPIRED).write(self._folder)

    async def cancel(self) -> None:
        """Give it up; the next ``start`` begins anew."""
        state = await CrawlState.read(self._folder)
        if state is not None and state.phase is Phase.RUNNING:
            await state.evolve(phase=Phase.CANCELLED).write(self._folder)

    async def _load(self) -> None:
        state = await CrawlState.read(self._folder)
        if state is None or state.phase not in (Phase.RUNNING, Phase.COMPLETE):
            raise ArtifactNotFoundError(
                "There is no crawl under way in this folder of the raw zone.",
                remedy="Start one first: the task before this one does.",
            )
        if state.phase is Phase.RUNNING and self._request.patients is not None and not self._patients:
            self._patients = await read_patients(self._folder)
        self._state = state
        self._crawler = PatientCrawler(self.search, self.plan, self._patients, state.survivors)

    def _is_done(self, unit: Unit) -> bool:
        known = self._state.units.get(unit.key)
        return (known is not None and known.done) or unit.type in self._state.closed

    def _waits_until(self, resource_type: str) -> float | None:
        times = [
            self._state.waiting[name] for name in (resource_type, EVERY_TYPE) if name in self._state.waiting
        ]
        return max(times, default=None)

    def _is_waiting(self, resource_type: str) -> bool:
        until = self._waits_until(resource_type)
        return until is not None and until > self._client.clock.time()

    def _report(self, progress: Progress, units: list[Unit]) -> None:
        progress.update("search", sum(map(self._is_done, units)), len(units), "parts")

    # One batch of patients

    async def _crawl_batch(self, unit: Unit) -> None:
        patients = self._crawler
        before = self._state.units.get(unit.key, UnitState())
        positions = before.rest if before.rest is not None else tuple(range(unit.first, unit.last))
        seen = await Seen.of_files(self._folder, before.files)
        writer = self._writer(unit, before)
        collector = Collector(writer, seen, self._request.types)
        ends = Counter[str]()

        async def fetch(batch: tuple[int, ...]) -> None:
            for position in batch:
                ends[await patients.fetch(unit.type, self._patients[position], collector)] += 1

        part = await fetch_part(
            ((position,) for position in positions),
            fetch,
            writer,
            self.search,
            tries=before.tries,
            is_over=lambda: self._budget.is_spent() or self._is_closing(unit.type, ends),
        )
        if part.given_up:
            ends["unavailable"] += part.given_up
        await self._commit(unit, part.end(before), ends, part.stopped)

    # One type as a whole

    async def _search_type(self, unit: Unit, query: SearchQuery) -> None:
        before = self._state.units.get(unit.key, UnitState())
        seen = await Seen.of_files(self._folder, before.files)
        here = before.cursor
        writer = self._writer(unit, before)
        ends = Counter[str]()
        stopped: list[TransientSourceError] = []
        try:
            async with aclosing(self.search.pages(query, start_at=here)) as pages:
                async for page in pages:
                    await Collector(writer, seen, self._request.types).take(page.resources)
                    ends.update(ends_of(page))
                    here = page.next
                    if here and (writer.lines >= self._limits.resources_per_part or self._budget.is_spent()):
                        files = await writer.close()
                        before = before.with_part(files, cursor=here)
                        await self._commit(unit, before, ends)
                        if self._budget.is_spent():
                            return
                        writer, ends = self._writer(unit, before), Counter()
            here = ""
            ends["ok"] += 1
        except SearchRefusedError as error:
            here = ""
            ends[error.reason] += 1
        except TransientSourceError as error:
            stopped.append(error)
        except BaseException:
            await writer.abort()
            raise
        try:
            files = await writer.close()
        except BaseException:
            await writer.abort()
            raise
        after = before.with_part(files, cursor=here, stopped=bool(stopped))
        await self._commit(unit, after, ends, stopped)
        if stopped and stopped[0].retry_after is None:
            raise stopped[0]

    # What both share

    def _writer(self, unit: Unit, before: UnitState) -> PartWriter:
        return PartWriter(self._folder, lambda kind: f"{kind}/{unit.key}.{before.parts + 1:04d}.ndjson")

    def _is_closing(self, resource_type: str, ends: Counter[str]) -> bool:
        known = Counter(self._state.tallies.get(resource_type, {}))
        return bool(closing_reason(known + ends, self._limits.probe_failures))

    async def _commit(
        self,
        unit: Unit,
        after: UnitState,
        ends: Counter[str],
        stopped: Iterable[TransientSourceError] = (),
    ) -> None:
        async with self._committing:
            state = self._state.with_tallies(unit.type, ends)
            state = state.evolve(
                units={**state.units, unit.key: after}, survivors=dict(self._crawler.survivors)
            )
            reason = closing_reason(Counter(state.tallies[unit.type]), self._limits.probe_failures)
            if reason:
                _log.warning("%s lets us have no %s: %s", self.search.host, unit.type, reason)
                state = state.evolve(closed={**state.closed, unit.type: reason})
            waits = waiting_times(stopped, unit.type, self._client.clock.time())
            self._state = state = state.evolve(waiting={**state.waiting, **waits})
            await state.write(self._folder)

    async def _judge(self, resource_type: str) -> None:
        try:
            check_failures(self._state, self.plan, resource_type, self._limits, self.search.host)
        except (ExportRejectedError, AuthorizationError):
            # What failed is to be asked for again once the cause is mended, so the next start begins anew.
            await self._state.evolve(phase=Phase.FAILED).write(self._folder)
            raise

    async def _finish(self) -> None:
        state = self._state
        for name in self.plan.types:
            counts = Counter(state.tallies.get(name, {}))
            if name not in state.closed and (reason := closing_reason(counts, 1)):
                state = state.evolve(closed={**state.closed, name: reason})
        self._state = complete = state.evolve(phase=Phase.COMPLETE, waiting={})
        for name in self.plan.types:
            await self._judge(name)
        await complete.write(self._folder)
        result = sum_up(complete).result
        _log.info("The crawl of %s is complete: %s", self.search.host, dict(result.resources))
