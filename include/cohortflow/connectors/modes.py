"""Which way of extracting to take, and what a folder of the raw zone holds, whichever it was."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, cast

import orjson

from cohortflow.connectors.client import FhirClient
from cohortflow.connectors.crawl_result import sum_up
from cohortflow.connectors.crawl_state import CrawlState
from cohortflow.connectors.extractor import (
    Extracted,
    Mode,
    RawFolder,
    combine_digests,
    incomplete,
    sum_up_export,
)
from cohortflow.connectors.hydrate_state import HydrationResult, HydrationState
from cohortflow.connectors.hydrated import with_hydration
from cohortflow.connectors.probe import advise, probe_source
from cohortflow.connectors.profile import Level
from cohortflow.connectors.state import Phase, read_state
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
    result = HydrationResult.from_state(state)
    digest = combine_digests((extracted.digest, *result.digests))
    return Extracted(with_hydration(extracted.result, result), digest)


async def _load(folder: RawFolder) -> Extracted:
    if await mode_of_folder(folder) in ("crawl", "search"):
        crawl = await CrawlState.read(folder)
        if crawl is None or crawl.phase is not Phase.COMPLETE:
            raise incomplete()
        return sum_up(crawl)
    state = await read_state(folder)
    if state is None or state.phase is not Phase.COMPLETE:
        raise incomplete()
    return sum_up_export(state)
