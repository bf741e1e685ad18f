"""Waiting without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from cohortflow.airflow.deployment import FixedDeployment, translate_connection
from cohortflow.errors import LakeError, LeaseLostError, RegistryError, SourceError

if TYPE_CHECKING:
    from cohortflow.connectors import FhirSource
    from cohortflow.lake import RawExport
    from cohortflow.model import Connection
    from cohortflow.registry import Registry

__all__ = ["BulkExportTrigger", "ExportTurnTrigger"]

_SECONDS_BEFORE_WORKER = 5.0
_LOOK_SECONDS = 15.0


class BulkExportTrigger(BaseTrigger):
    """Polls a bulk export until its files can be downloaded, or until a worker must look at it.

    The event says only that something happened: the worker reads what from the export's state, so
    that neither URLs nor messages pass through Airflow's database. Every poll renews the run's lease.

    Args:
        conn_id: Connection of the FHIR server.
        raw_uri: The raw zone.
        prefix: The export's folder in it.
        subject: Key of the lease that the run holds.
        token: Of the lease.
        cancel: Whether the export is cancelled on the server when someone stops the task.
        event: Handed back in the event.
    """

    def __init__(
        self,
        conn_id: str,
        raw_uri: str,
        prefix: str,
        subject: str = "",
        token: str = "",
        cancel: bool = False,
        event: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow types it not
        self.conn_id = conn_id
        self.raw_uri = raw_uri
        self.prefix = prefix
        self.subject = subject
        self.token = token
        self.cancel = cancel
        self.event = event or {}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        names = ("conn_id", "raw_uri", "prefix", "subject", "token", "cancel", "event")
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            name: getattr(self, name) for name in names
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll, and yield one event."""
        async with aclosing(self._wait()) as waits:
            async for seconds in waits:
                await asyncio.sleep(seconds)
        yield TriggerEvent(self.event)

    async def on_kill(self) -> None:
        """Cancel the export: someone marked or cleared the task. A triggerer's restart does not come here."""
        from cohortflow.connectors import BulkExport, cancel_export, connect
        from cohortflow.registry import ExportRecord

        if not self.cancel:
            return
        deployment = await self._deployment()
        registry = await _open_registry(deployment)
        held = await asyncio.to_thread(registry.lease, self.subject)
        if held is not None and held.token != self.token:
            return  # another run goes on with it
        export, source = self._export(deployment), self._source(deployment)
        async with connect(source) as client:
            await cancel_export(BulkExport(client), export)
        record = await asyncio.to_thread(registry.export, ExportRecord.id_of(self.raw_uri, self.prefix))
        if record is not None:
            await asyncio.to_thread(registry.save, record.evolve(phase="cancelled"))
        await asyncio.to_thread(registry.release, self.subject, self.token)
        self.log.info("The export was cancelled on the server")

    async def _wait(self) -> AsyncGenerator[float]:
        """Yield the seconds to wait between polls; ends when a worker is needed."""
        from cohortflow.connectors import BulkExport, InProgress, connect, poll_once

        deployment = await self._deployment()
        export, source = self._export(deployment), self._source(deployment)
        async with connect(source) as client:
            bulk = BulkExport(client)
            try:
                registry = await _open_registry(deployment)
                while isinstance(answer := await poll_once(bulk, export), InProgress):
                    self.log.info("Export in progress%s", f": {answer.percent} %" if answer.percent else "")
                    if not await self._keep_lease(registry, answer.retry_after):
                        return
                    yield answer.retry_after
            except (LakeError, RegistryError, SourceError) as error:
                # The worker polls again and meets the same error with its own retries and messages;
                # where it does not, the pause keeps the two from taking turns without end.
                self.log.warning("The export needs a worker: %s", type(error).__name__)
                yield _SECONDS_BEFORE_WORKER

    async def _keep_lease(self, registry: Registry, seconds: float) -> bool:
        """Renew the lease until after the next poll; tell whether it is still this run's."""
        from cohortflow.workflow.export_turn import LEASE_SLACK_SECONDS

        lease = await asyncio.to_thread(registry.lease, self.subject)
        if lease is None:
            # Polling does no harm, and a worker asks for the lease again before it goes on.
            self.log.warning("The lease is gone: released by hand, or this triggerer has another registry")
            return True
        if lease.token != self.token:
            return False
        try:
            await asyncio.to_thread(registry.renew, lease, seconds + LEASE_SLACK_SECONDS)
        except LeaseLostError:
            return False
        return True

    async def _deployment(self) -> FixedDeployment:
        from cohortflow.lake import LAKE_CONNECTION

        return await _look_up_all(self.conn_id, LAKE_CONNECTION)

    def _export(self, deployment: FixedDeployment) -> RawExport:
        from cohortflow.lake import RawExport, open_store

        return RawExport(open_store(self.raw_uri, deployment), self.prefix)

    def _source(self, deployment: FixedDeployment) -> FhirSource:
        from cohortflow.connectors import FhirSource

        return FhirSource.from_connection(deployment.connection(self.conn_id))


class ExportTurnTrigger(BaseTrigger):
    """Waits until a run may take its turn: the server takes exports again, or another run is done.

    It asks the registry and never the server, so that a window is waited out without a single request.

    Args:
        reason: ``window`` or ``lease``: see ``cohortflow.workflow.export_turn.Waiting``.
        until: ISO 8601 instant; a window ends then.
        subject: Key of what the server allows one export of at a time.
        event: Handed back in the event.
        export: Id of the run's export: it goes on with one of its own that nobody works on, while
            another's keeps it waiting.
    """

    def __init__(
        self, reason: str, until: str, subject: str, event: dict[str, Any] | None = None, export: str = ""
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow types it not
        self.reason = reason
        self.until = until
        self.subject = subject
        self.event = event or {}
        self.export = export

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        names = ("reason", "until", "subject", "event", "export")
        arguments = {name: getattr(self, name) for name in names}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event."""
        registry = await _open_registry(await _look_up_all())
        until = datetime.fromisoformat(self.until)
        noted = False
        while True:
            # The pause comes first, so that worker and triggerer do not take turns without one.
            await asyncio.sleep(_LOOK_SECONDS)
            if self.reason == "window":
                known = await self._is_postponed(registry)
                # An operator may end the wait with 'cohortflow registry release'.
                if datetime.now(UTC) >= until or (noted and not known):
                    break
                noted = noted or known
            elif not await self._is_held(registry):
                break
        yield TriggerEvent(self.event)

    async def _is_postponed(self, registry: Registry) -> bool:
        try:
            return await asyncio.to_thread(registry.postponed, self.subject) is not None
        except RegistryError as error:
            self.log.warning("The registry cannot be asked: %s", error.message)
            return True

    async def _is_held(self, registry: Registry) -> bool:
        try:
            held = await asyncio.to_thread(registry.lease, self.subject)
            now = await asyncio.to_thread(registry.now)
        except RegistryError as error:
            self.log.warning("The registry cannot be asked: %s", error.message)
            return True
        if held is None or held.expires_at <= now:
            return False
        return not (held.parked and held.export == self.export)


async def _look_up_all(*conn_ids: str) -> FixedDeployment:
    """Look up connections, and the registry's, for code that may not wait for Airflow."""
    from cohortflow.registry import REGISTRY_CONNECTION

    found = {name: await _look_up(name) for name in (*conn_ids, REGISTRY_CONNECTION)}
    return FixedDeployment({name: value for name, value in found.items() if value is not None})


async def _look_up(conn_id: str) -> Connection | None:
    try:
        return translate_connection(await BaseHook.aget_connection(conn_id))
    except AirflowNotFoundException:
        return None


async def _open_registry(deployment: FixedDeployment) -> Registry:
    from cohortflow.registry import open_registry

    return await asyncio.to_thread(open_registry, deployment)
