"""Waiting without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from cohortflow.airflow.deployment import FixedDeployment, translate_connection
from cohortflow.errors import LakeError, SourceError

if TYPE_CHECKING:
    from cohortflow.model import Connection

__all__ = ["BulkExportTrigger"]

_SECONDS_BEFORE_WORKER = 5.0


class BulkExportTrigger(BaseTrigger):
    """Polls a bulk export until its files can be downloaded, or until a worker must look at it.

    The event says only that something happened: the worker reads what from the export's state, so
    that neither URLs nor messages pass through Airflow's database.

    Args:
        conn_id: Connection of the FHIR server.
        raw_uri: The raw zone.
        prefix: The export's folder in it.
        restarts: How often the export was started anew, handed back in the event.
    """

    def __init__(self, conn_id: str, raw_uri: str, prefix: str, restarts: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow types it not
        self.conn_id = conn_id
        self.raw_uri = raw_uri
        self.prefix = prefix
        self.restarts = restarts

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        arguments = {name: getattr(self, name) for name in ("conn_id", "raw_uri", "prefix", "restarts")}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll, and yield one event."""
        async with aclosing(self._wait()) as waits:
            async for seconds in waits:
                await asyncio.sleep(seconds)
        yield TriggerEvent({"restarts": self.restarts})

    async def _wait(self) -> AsyncGenerator[float]:
        """Yield the seconds to wait between polls; ends when a worker is needed."""
        from cohortflow.connectors import BulkExport, FhirSource, InProgress, connect, poll_once
        from cohortflow.lake import LAKE_CONNECTION, RawExport, open_store

        found = {name: await _look_up(name) for name in (self.conn_id, LAKE_CONNECTION)}
        deployment = FixedDeployment({name: value for name, value in found.items() if value is not None})
        export = RawExport(open_store(self.raw_uri, deployment), self.prefix)
        source = FhirSource.from_connection(deployment.connection(self.conn_id))
        async with connect(source) as client:
            bulk = BulkExport(client)
            try:
                while isinstance(answer := await poll_once(bulk, export), InProgress):
                    self.log.info("Export in progress%s", f": {answer.percent} %" if answer.percent else "")
                    yield answer.retry_after
            except (LakeError, SourceError) as error:
                # The worker polls again and meets the same error with its own retries and messages;
                # where it does not, the pause keeps the two from taking turns without end.
                self.log.warning("The export needs a worker: %s", type(error).__name__)
                yield _SECONDS_BEFORE_WORKER


async def _look_up(conn_id: str) -> Connection | None:
    try:
        return translate_connection(await BaseHook.aget_connection(conn_id))
    except AirflowNotFoundException:
        return None
