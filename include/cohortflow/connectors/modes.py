"""Which way of extracting to take, and what a folder of the raw zone holds, whichever it was."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, cast

import orjson

from cohortflow.connectors.bulk.result import load_export
from cohortflow.connectors.crawl.result import load_crawl
from cohortflow.connectors.extraction.extractor import (
    Extracted,
    Mode,
    incomplete,
)
from cohortflow.connectors.extraction.folder import RawFolder
from cohortflow.connectors.hydrate.extractor import with_hydration
from cohortflow.connectors.hydrate.state import HydrationResult, HydrationState
from cohortflow.connectors.probe import advise, probe_source
from cohortflow.connectors.profiles.server import Level
from cohortflow.connectors.transport.client import FhirClient
from cohortflow.errors import ExportRejectedError

__all__ = ["RequestedMode", "choose_mode", "load_extracted", "mode_of_folder"]

RequestedMode = Literal["auto", "bulk", "crawl", "search"]


async def mode_of_folder(folder: RawFolder) -> Mode | None:
    """Return how a folder was, or is being, filled; ``None`` where nothing was started."""
    data = await folder.read_state()
    if data is None:
        return None
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    mode = value.get("mode", "bulk") if isinstance(value, dict) else None
    return cast("Mode", mode) if mode in ("bulk", "crawl", "search") else None


async def choose_mode(
    client: FhirClient,
    folder: RawFolder,
    requested: RequestedMode = "auto",
    *,
    types: Collection[str] = (),
    level: Level | None = None,
) -> Mode:
    """Return the way to take: the requested one; with ``auto`` the one begun, else the one that fits.

    Args:
        client: The server; asked what it can do only where that is open.
        folder: The extraction's folder: what was begun in one way goes on in it.
        requested: What the study says.
        types: Resource types of the study.
        level: Its export level.

    Raises:
        ExportRejectedError: The server states neither bulk export nor search.
        SourceError: The server failed.
    """
    if requested != "auto":
        return requested
    if (begun := await mode_of_folder(folder)) is not None:
        return begun
    advice = advise(await probe_source(client), client, types, level)
    if advice.mode is None:
        raise ExportRejectedError(
            advice.why,
            place=client.source.host,
            remedy="Check the base URL; 'cohortflow source probe' shows what the server says of itself.",
        )
    return advice.mode


async def load_extracted(folder: RawFolder, *, hydrated: bool = False) -> Extracted:
    """Return what a complete extraction brought, from its folder alone.

    Args:
        folder: The folder.
        hydrated: Whether a pass over its references belongs to it.

    Raises:
        ArtifactNotFoundError: The extraction, or the pass, is not complete.
        SourceError: The state is unreadable.
    """
    extracted = await _load(folder)
    if not hydrated:
        return extracted
    state = await HydrationState.read(folder)
    if state is None or not state.complete:
        raise incomplete()
    return with_hydration(extracted, HydrationResult.from_state(state))


async def _load(folder: RawFolder) -> Extracted:
    if await mode_of_folder(folder) in ("crawl", "search"):
        return await load_crawl(folder)
    return await load_export(folder)
