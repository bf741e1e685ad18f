"""The ways to fill a folder of the raw zone, behind one interface: bulk export and search.

Either may be followed by a pass over the references in what came.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from cohortflow.connectors import (
    BulkExport,
    InProgress,
    Phase,
    cancel_export,
    download_all,
    download_available,
    ensure_started,
    poll_once,
)
from cohortflow.connectors.crawl import CrawlExtractor
from cohortflow.connectors.crawl_state import CrawlRequest, CrawlState, PatientSelection
from cohortflow.connectors.extractor import Pending
from cohortflow.connectors.hydrate import Hydrator
from cohortflow.connectors.modes import choose_mode, load_extracted
from cohortflow.connectors.state import ExportState, read_state, write_state
from cohortflow.errors import ConfigurationError

if TYPE_CHECKING:
    from cohortflow.connectors import FhirClient
    from cohortflow.connectors.extractor import Mode
    from cohortflow.connectors.hydrate_state import HydrationRequest
    from cohortflow.model import Progress
    from cohortflow.workflow.export_plan import ExportLink, ExportPlan

__all__ = ["BulkWay", "ExportWay", "HydratedWay", "SearchWay", "choose_way"]


class ExportWay(Protocol):
    """A way to fill a plan's folder."""

    @property
    def prepares(self) -> bool:
        """Whether the server works on it while nobody asks."""
        ...

    async def read_state(self) -> ExportState | CrawlState | None:
        """Return how far it is; ``None``: nothing was begun."""
        ...

    def digest(self, link: ExportLink) -> str:
        """Return the digest that a state of the plan's request has."""
        ...

    async def discard(self) -> None:
        """Make what is complete void, so that ``start`` begins anew."""
        ...

    async def start(self, link: ExportLink) -> None:
        """Begin, or go on with what was begun."""
        ...

    async def advance(self, link: ExportLink, progress: Progress) -> Pending | None:
        """Do what can be done now; ``None`` once everything is there."""
        ...

    async def cancel(self) -> None:
        """Give it up."""
        ...


async def choose_way(plan: ExportPlan, client: FhirClient) -> ExportWay:
    """Return the way that a study asks for or, with ``auto``, that fits the server.

    Raises:
        ConfigurationError: A Group cannot be searched for as a whole.
        SourceError: The server offers neither, or failed.
    """
    request = plan.request
    mode = await choose_mode(client, plan.export, plan.mode, types=request.types, level=request.level)
    way = _make_way(mode, plan, client)
    return way if plan.hydration is None else HydratedWay(way, plan, client, plan.hydration)


def _make_way(mode: Mode, plan: ExportPlan, client: FhirClient) -> ExportWay:
    request = plan.request
    if mode == "bulk":
        return BulkWay(plan, client)
    if mode == "search" and request.group_id:
        raise ConfigurationError(
            "A search of whole types knows no Group: it would bring everybody.",
            place=plan.source.host,
            remedy="Set the mode 'crawl', or the level 'system'.",
        )
    return SearchWay(plan, client, per_patient=mode == "crawl")


class BulkWay:
    """Bulk export."""

    prepares = True

    def __init__(self, plan: ExportPlan, client: FhirClient) -> None:
        self._plan = plan
        self._bulk = BulkExport(client)

    async def read_state(self) -> ExportState | None:
        """Return the export's state."""
        return await read_state(self._plan.export)

    def digest(self, link: ExportLink) -> str:
        """Return the request's digest."""
        return link.complete(self._plan.request).digest

    async def discard(self) -> None:
        """Say that the export has expired."""
        state = await read_state(self._plan.export)
        if state is not None and state.phase is Phase.COMPLETE:
            await write_state(self._plan.export, state.evolve(phase=Phase.EXPIRED))

    async def start(self, link: ExportLink) -> None:
        """Kick off."""
        await ensure_started(self._bulk, link.complete(self._plan.request), self._plan.export)

    async def advance(self, link: ExportLink, progress: Progress) -> Pending | None:
        """Poll, and download what is ready."""
        del link
        answer = await poll_once(self._bulk, self._plan.export)
        if isinstance(answer, InProgress):
            if answer.percent is not None:
                progress.update("export", answer.percent, 100, "%")
            if answer.waiting_files:
                await download_available(self._bulk, self._plan.export, progress)
            return Pending(answer.retry_after, "the server prepares the export")
        await download_all(self._bulk, self._plan.export, progress)
        return None

    async def cancel(self) -> None:
        """Remove the export from the server."""
        await cancel_export(self._bulk, self._plan.export)


class SearchWay:
    """Search, per patient or per type."""

    prepares = False

    def __init__(self, plan: ExportPlan, client: FhirClient, *, per_patient: bool) -> None:
        self._plan = plan
        self._client = client
        self._per_patient = per_patient

    async def read_state(self) -> CrawlState | None:
        """Return the search's state."""
        return await CrawlState.read(self._plan.export)

    def digest(self, link: ExportLink) -> str:
        """Return the request's digest."""
        return self._request(link).digest

    async def discard(self) -> None:
        """Say that the search has expired."""
        state = await self.read_state()
        if state is not None and state.phase is Phase.COMPLETE:
            await state.evolve(phase=Phase.EXPIRED).write(self._plan.export)

    async def start(self, link: ExportLink) -> None:
        """Find out who the patients are."""
        await self._extractor(link).start()

    async def advance(self, link: ExportLink, progress: Progress) -> Pending | None:
        """Search until all is there or the server wants to be left alone."""
        return await self._extractor(link).advance(progress)

    async def cancel(self) -> None:
        """Forget what was begun."""
        state = await self.read_state()
        if state is not None and state.phase is Phase.RUNNING:
            await state.evolve(phase=Phase.CANCELLED).write(self._plan.export)

    def _request(self, link: ExportLink) -> CrawlRequest:
        request = self._plan.request
        patients = None
        if self._per_patient:
            group = request.group_id
            patients = PatientSelection(group_id=group) if group else PatientSelection(search=())
        return CrawlRequest(
            types=request.types,
            patients=patients,
            since=datetime.fromisoformat(link.since) if link.since else None,
            filters=request.type_filters,
        )

    def _extractor(self, link: ExportLink) -> CrawlExtractor:
        return CrawlExtractor(self._client, self._request(link), self._plan.export)


class HydratedWay:
    """A way, and then a pass over the references in what came."""

    def __init__(
        self, way: ExportWay, plan: ExportPlan, client: FhirClient, request: HydrationRequest
    ) -> None:
        self._way = way
        self._plan = plan
        self._client = client
        self._request = request
        self._following = False

    @property
    def prepares(self) -> bool:
        """Whether the server works on the export; references are fetched one by one."""
        return self._way.prepares and not self._following

    async def read_state(self) -> ExportState | CrawlState | None:
        """Return how far it is; what came is ready, not complete, until the pass is."""
        state = await self._way.read_state()
        if state is None or state.phase is not Phase.COMPLETE:
            return state
        complete = await (await self._hydrator()).is_complete()
        return state if complete else state.evolve(phase=Phase.READY)

    def digest(self, link: ExportLink) -> str:
        """Return the digest of what is passed over."""
        return self._way.digest(link)

    async def discard(self) -> None:
        """Make what came void; the pass begins anew with other files."""
        await self._way.discard()

    async def start(self, link: ExportLink) -> None:
        """Begin, or go on with what was begun."""
        await self._way.start(link)

    async def advance(self, link: ExportLink, progress: Progress) -> Pending | None:
        """Do what can be done now of the one, then of the other."""
        state = await self._way.read_state()
        extracted = state is not None and state.phase is Phase.COMPLETE
        if not extracted and (pending := await self._way.advance(link, progress)) is not None:
            return pending
        self._following = True
        return await (await self._hydrator()).advance(progress)

    async def cancel(self) -> None:
        """Give it up."""
        await self._way.cancel()

    async def _hydrator(self) -> Hydrator:
        extracted = await load_extracted(self._plan.export)
        return Hydrator(self._client, self._request, self._plan.export, extracted.result.files)
