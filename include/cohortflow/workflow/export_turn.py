"""A turn at an export: what can be done of it now, alone among all runs, and what to wait for next.

A run takes a turn, waits for what the turn returned, and takes the next, in this process or another.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from cohortflow.connectors import Phase, load_extracted
from cohortflow.errors import ArtifactNotFoundError, LeaseLostError, RegistryError, TransientSourceError
from cohortflow.registry import ExportRecord, LeaseOwner, name_machine
from cohortflow.workflow.export_base import choose_base
from cohortflow.workflow.export_extractor import choose_plan_mode, make_extractor
from cohortflow.workflow.export_plan import ExportLink, read_chain, read_link, write_link

if TYPE_CHECKING:
    from cohortflow.connectors import ExtractionStatus, Extractor, FhirClient, Mode
    from cohortflow.registry import Lease, Registry
    from cohortflow.workflow.export_plan import ExportPlan
    from cohortflow.workflow.run import Run

__all__ = ["LEASE_SLACK_SECONDS", "ExportTurn", "Waiting"]

_log = logging.getLogger(__name__)

_HOLD_SECONDS = 90.0
"""How long a lease outlives its worker; others wait so long after a machine went down."""

_BEAT_SECONDS = 20.0

_PARKED_SECONDS = 900.0
"""How long an export that a failed run left on the server keeps other exports of the group waiting."""

LEASE_SLACK_SECONDS = 300.0
"""How much later than agreed the next sign of life of a waiting run may come."""

_WINDOW_SLACK_SECONDS = 60.0
"""The server's clock is not ours."""

_LIVE = (Phase.RUNNING, Phase.READY)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a run cannot go on now.

    Attributes:
        reason: ``server``: it prepares the export. ``lease``: another run exports this group.
            ``window``: the server takes no export of this group yet.
        until: When to look again at the latest.
        note: For people.
        subject: Key of what the server allows one export of at a time.
        prefix: The export's folder in the raw zone.
        token: Of the lease that is held meanwhile; empty where none is.
    """

    reason: Literal["server", "lease", "window"]
    until: datetime
    note: str
    subject: str
    prefix: str
    token: str = ""


class ExportTurn:
    """Takes turns at a run's export.

    Args:
        run: The run.
        plan: What it exports.
        client: The server.
        registry: Where runs meet.
        hand_over: Whether another process does the waiting, so that this one's end says nothing.
        waiting_since: When the run was first refused.
    """

    def __init__(
        self,
        run: Run,
        plan: ExportPlan,
        client: FhirClient,
        registry: Registry,
        *,
        hand_over: bool = False,
        waiting_since: datetime | None = None,
    ) -> None:
        self.run = run
        self.plan = plan
        self.client = client
        self.registry = registry
        self.hand_over = hand_over
        self.waiting_since = waiting_since
        self._mode: Mode | None = None
        record = self._record(ExportLink(), "pending")
        name = f"{run.plan.environment.environment}/{run.plan.name}/{run.interval.key}/{run.run_id}"
        self._owner = LeaseOwner(name, record.id, run.plan.name, run.run_id, name_machine(), os.getpid())

    async def take(self) -> Waiting | None:
        """Start the export, or go on with it, and download it if it is ready.

        Returns:
            ``None`` once everything is downloaded; otherwise what to wait for.

        Raises:
            ExportExpiredError: The server has forgotten it; the next turn starts another.
            SourceError: The server failed otherwise.
            LeaseLostError: Another run has taken over.
            RegistryError: The registry cannot be used.
        """
        if await self._is_complete():
            await self._note_complete()
            return None
        subject = self.plan.subject
        lease = await asyncio.to_thread(self.registry.acquire, subject, self._owner, _HOLD_SECONDS)
        if lease is None:
            return await self._wait_for_other()
        try:
            async with _kept_alive(self.registry, lease):
                waiting = await self._work(lease)
        except LeaseLostError:
            raise
        except BaseException:
            with contextlib.suppress(RegistryError):
                await self._let_go(lease)
            raise
        if waiting is None or waiting.reason != "server":
            await self._let_go(lease)
            return waiting
        if self.hand_over:
            lease = dataclasses.replace(lease, machine="", process=0)
        seconds = (waiting.until - self._now()).total_seconds() + LEASE_SLACK_SECONDS
        await asyncio.to_thread(self.registry.renew, lease, seconds)
        return waiting

    async def cancel(self) -> None:
        """Cancel the run's unfinished export on the server, unless another run works on it."""
        held = await asyncio.to_thread(self.registry.lease, self.plan.subject.key)
        if held is not None and held.owner != self._owner.owner:
            return
        await (await self._extractor()).cancel()
        await self._note_state()
        if held is not None:
            await asyncio.to_thread(self.registry.release, held.subject, held.token)

    async def _work(self, lease: Lease) -> Waiting | None:
        if await self._is_complete():  # by another run, meanwhile
            await self._note_complete()
            return None
        if (waiting := await self._begin()) is not None:
            return waiting
        await self._note_state()
        try:
            return await self._go_on(lease)
        finally:
            await self._note_state()

    async def _begin(self) -> Waiting | None:
        """Kick off, unless the folder holds an export that goes on."""
        link = await self._read_link()
        extractor = await self._extractor(link)
        status = await extractor.status()
        if status is not None and status.phase in _LIVE and self._is_same(extractor, status):
            return None
        if (waiting := await self._postponed()) is not None:
            return waiting
        link = await choose_base(self.run, self.plan, self.client, self.registry)
        link = link.model_copy(update={"hydrated": self.plan.hydration is not None})
        if status is not None and status.phase is Phase.COMPLETE:
            _log.info("The export at hand cannot be used for this interval; exporting again")
            # Before its link is gone: an increment with the link of a full one would pass for one.
            await extractor.discard()
        await asyncio.to_thread(write_link, self.run.raw, self.plan.export.prefix, link)
        try:
            await (await self._extractor(link)).start()
        except TransientSourceError as error:
            if (waiting := await self._refused(error)) is None:
                raise
            return waiting
        return None

    async def _go_on(self, lease: Lease) -> Waiting | None:
        """Poll or search, and download what is ready."""
        extractor = await self._extractor(await self._read_link())
        try:
            pending = await extractor.advance(self.run.progress)
        except TransientSourceError as error:
            # Downloads stop in the server's quiet hours; what is there stays.
            quiet = self.plan.source.profile.quiet_seconds(self._now())
            if not quiet or (waiting := await self._refused(error)) is None:
                raise
            return waiting
        if pending is None:
            return None
        until = self._now() + timedelta(seconds=pending.wait_seconds)
        if pending.prepares:
            return self._waiting("server", until, pending.note, lease.token)
        await asyncio.to_thread(self.registry.postpone, self.plan.subject, until, pending.note)
        return self._waiting("window", until, pending.note)

    async def _is_complete(self) -> bool:
        """Tell whether the folder holds what the run needs, with all that it builds on.

        An export that was taken before the interval ended lacks what came after.
        """
        status = await (await self._extractor()).status()
        if status is None or status.phase is not Phase.COMPLETE:
            return False
        if datetime.fromisoformat(status.transaction_time) < self.run.interval.end:
            return False
        try:
            link = await self._read_link()
            await asyncio.to_thread(read_chain, self.run.raw, self.plan.export.prefix)
        except ArtifactNotFoundError:
            return False
        return self._is_same(await self._extractor(link), status)

    def _is_same(self, extractor: Extractor, status: ExtractionStatus) -> bool:
        wanted = self.plan.source.base_url, extractor.request_digest
        return (status.server, status.request_digest) == wanted

    async def _extractor(self, link: ExportLink | None = None) -> Extractor:
        """Return what fills the folder; without a link good for what stands there, whatever it builds on."""
        if self._mode is None:
            self._mode = await choose_plan_mode(self.plan, self.client)
        return make_extractor(self.plan, link or ExportLink(), self._mode, self.client)

    async def _read_link(self) -> ExportLink:
        return await asyncio.to_thread(read_link, self.run.raw, self.plan.export.prefix)

    async def _wait_for_other(self) -> Waiting:
        held = await asyncio.to_thread(self.registry.lease, self.plan.subject.key)
        if held is None:  # it has just ended
            return self._waiting("lease", self._now(), "another run's export has just ended")
        note = f"'{held.study}' exports this group now (run {held.run_id})"
        return self._waiting("lease", held.expires_at, note)

    async def _postponed(self) -> Waiting | None:
        noted = await asyncio.to_thread(self.registry.postponed, self.plan.subject.key)
        return None if noted is None else self._waiting("window", noted.not_before, noted.reason)

    async def _refused(self, error: TransientSourceError) -> Waiting | None:
        """Say until when to wait after a refused kick-off; ``None``: it is no matter of waiting."""
        profile, now = self.plan.source.profile, self._now()
        seconds, patience = error.retry_after, profile.max_wait_seconds
        if seconds is None:
            if not profile.single_flight:
                return None
            # Another client's export runs, or the server is down: it did not say.
            seconds, patience = profile.poll_seconds, profile.max_outage_seconds
        if self.waiting_since is None:
            self.waiting_since = now
        elif (now - self.waiting_since).total_seconds() > patience:
            return None
        until = now + timedelta(seconds=seconds)
        if seconds == profile.kick_off_window_seconds:
            # Too recently, without a time: the window runs from the last kick-off.
            last = await asyncio.to_thread(self.registry.last_kick_off, self.plan.subject.key)
            window = timedelta(seconds=seconds + _WINDOW_SLACK_SECONDS)
            if last is not None and last + window > now:
                until = last + window
        await asyncio.to_thread(self.registry.postpone, self.plan.subject, until, error.message)
        return self._waiting("window", until, error.message)

    async def _let_go(self, lease: Lease) -> None:
        """Give the lease back; while the server still works on the export, only to who goes on with it."""
        status = await (await self._extractor()).status()
        if status is not None and status.phase in _LIVE:
            parked = dataclasses.replace(lease, machine="", process=0, parked=True)
            await asyncio.to_thread(self.registry.renew, parked, _PARKED_SECONDS)
        else:
            await asyncio.to_thread(self.registry.release, lease.subject, lease.token)

    async def _note_complete(self) -> None:
        """Remember a complete export that the registry does not know: of another registry's time."""
        known = await asyncio.to_thread(self.registry.export, self._owner.export)
        if known is None or known.phase != Phase.COMPLETE:
            await self._note_state()

    async def _note_state(self) -> None:
        status = await (await self._extractor()).status()
        if status is None:
            return
        link = await self._read_link()
        resources, size = 0, 0
        if status.phase is Phase.COMPLETE:
            result = (await load_extracted(self.plan.export, hydrated=link.hydrated)).result
            resources, size = sum(result.resources.values()), result.bytes
        record = self._record(link, str(status.phase)).evolve(
            request_digest=(await self._extractor(link)).request_digest,
            transaction_time=status.transaction_time,
            kicked_off_at=status.kicked_off_at,
            resources=resources,
            bytes=size,
        )
        await asyncio.to_thread(self.registry.save, record)

    def _record(self, link: ExportLink, phase: str) -> ExportRecord:
        zone = self.run.raw.uri
        base = ExportRecord.id_of(zone, link.base) if link.base else ""
        return ExportRecord(
            zone=zone,
            folder=self.plan.export.prefix,
            chain=self.plan.chain,
            kind=link.kind,
            since=link.since,
            base=base,
            conn_id=self.plan.source.conn_id,
            subject=self.plan.subject,
            request_digest="",
            interval_start=self.run.interval.start,
            interval_end=self.run.interval.end,
            phase=phase,
            study=self.run.plan.name,
            run_id=self.run.run_id,
        )

    def _waiting(
        self, reason: Literal["server", "lease", "window"], until: datetime, note: str, token: str = ""
    ) -> Waiting:
        return Waiting(reason, until, note, self.plan.subject.key, self.plan.export.prefix, token)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.client.clock.time(), tz=UTC)


@contextlib.asynccontextmanager
async def _kept_alive(registry: Registry, lease: Lease) -> AsyncIterator[None]:
    """Give signs of life while the block runs; end it where another run has taken over.

    Raises:
        LeaseLostError: Another has, or the registry was out of reach for so long that another may have.
    """
    working = asyncio.current_task()
    lost: list[LeaseLostError] = []

    async def beat() -> None:
        silent = 0.0
        while not lost:
            await asyncio.sleep(_BEAT_SECONDS)
            try:
                await asyncio.to_thread(registry.renew, lease, _HOLD_SECONDS)
                silent = 0.0
            except LeaseLostError as error:
                lost.append(error)
            except RegistryError:
                silent += _BEAT_SECONDS
                if silent + _BEAT_SECONDS >= _HOLD_SECONDS:
                    lost.append(
                        LeaseLostError(
                            "The registry has been out of reach for too long to go on exporting alone.",
                            place=registry.place,
                            remedy="Run it again once the registry is back: the export goes on.",
                        )
                    )
        if working is not None:
            working.cancel()

    beating = asyncio.create_task(beat())
    try:
        yield
    except BaseException:
        # Whatever the cancelled work came to.
        if not lost:
            raise
        if working is not None:
            working.uncancel()
        raise lost[0] from None
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
