"""Full or incremental: what the next export of a chain builds on."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cohortflow.connectors import load_extracted
from cohortflow.connectors.hydrate.state import UNAVAILABLE, HydrationState
from cohortflow.errors import ArtifactNotFoundError, SourceError
from cohortflow.workflow.export_plan import ExportLink, read_chain, read_link

if TYPE_CHECKING:
    from cohortflow.connectors import ExtractionResult, FhirClient
    from cohortflow.registry import Registry
    from cohortflow.workflow.export_plan import ExportPlan, Extraction
    from cohortflow.workflow.run import Run

__all__ = ["choose_base", "read_members"]

_log = logging.getLogger(__name__)

_OK = 200


async def choose_base(run: Run, plan: ExportPlan, client: FhirClient, registry: Registry) -> ExportLink:
    """Decide whether an export can begin where another ended.

    It is a full one where the study does not ask for increments or asks for a fresh export, where the
    server does not know ``_since``, where there is nothing to build on, where the last full one is too
    old, and where patients have joined the Group or the server gives a type that it did not have: of
    these, what is older than ``since`` would be missing. None builds on a partial export: what that one
    lacks was there before its transaction time, and no increment would bring it.
    """
    if plan.full_every is None:
        return ExportLink(reason="the study asks for full exports")
    members = await read_members(client, plan.request.group_id) if plan.request.group_id else None
    chain = await asyncio.to_thread(_find_chain, run, plan, registry)
    reason = ""
    if run.fresh_export:
        reason = "a fresh export was asked for"
    elif not plan.source.profile.supports_since:
        reason = "the server does not support _since"
    elif not chain:
        reason = "there is no complete one of this request that lacks nothing"
    elif _is_old(chain[0], plan.full_every, client.clock.time()):
        reason = f"the last full one is older than {plan.full_every:g} days"
    elif gained := await asyncio.to_thread(_gained_types, chain):
        reason = f"the server did not have before, and has now: {', '.join(gained)}"
    elif plan.request.group_id and (joined := await asyncio.to_thread(_count_joined, run, chain, members)):
        reason = f"{joined} patients have joined the Group"
    if reason:
        _log.info("Exporting everything: %s", reason)
        return ExportLink(reason=reason, members=members)
    last = chain[-1]
    return ExportLink(
        kind="incremental",
        # B1: the server's own word on what the export before it holds; a clock would leave gaps.
        since=last.result.transaction_time,
        base=last.export.prefix,
        members=members,
    )


async def read_members(client: FhirClient, group_id: str) -> tuple[str, ...] | None:
    """Return digests of a Group's members, sorted; ``None`` where the server does not tell them."""
    url = f"{client.source.base_url}/Group/{group_id}"
    try:
        response = await client.request("GET", url, headers={"Accept": "application/fhir+json"})
        group = response.json() if response.status_code == _OK else None
    except (SourceError, ValueError):
        return None
    listed = group.get("member") if isinstance(group, dict) else None
    if not isinstance(listed, list) or not listed:
        return None  # defined by characteristics, or shortened
    references = []
    for member in listed:
        entity = member.get("entity") if isinstance(member, dict) else None
        reference = entity.get("reference") if isinstance(entity, dict) else None
        if not isinstance(reference, str):
            return None
        if not member.get("inactive"):
            references.append(reference.rpartition("/")[2])
    return tuple(sorted({hashlib.sha256(reference.encode()).hexdigest()[:32] for reference in references}))


def _find_chain(run: Run, plan: ExportPlan, registry: Registry) -> tuple[Extraction, ...]:
    """Return the chain that ends latest of those that end with an export up to the run's interval."""
    for record in reversed(registry.chain(plan.chain, run.raw.uri)):
        # An interval must not build on a later one: what it holds would depend on when it was run.
        if record.folder == plan.export.prefix or record.interval_end > run.interval.end:
            continue
        try:
            chain = read_chain(run.raw, record.folder)
        except ArtifactNotFoundError:
            _log.warning("The export of %s cannot be built upon: files are missing", record.folder)
            continue
        if all(map(_lacks_nothing, chain)):
            return chain
        _log.warning("The export of %s cannot be built upon: it is partial", record.folder)
    return ()


def _lacks_nothing(link: Extraction) -> bool:
    """Tell whether an export holds all that it was asked for, as far as the server says.

    References that lead nowhere are no fault of the export and stay so. Where the server failed, though,
    another try may bring them, and only an export of what refers to them leads to one.
    """
    if _own_result(link).is_partial:
        return False
    hydration = asyncio.run(HydrationState.read(link.export))
    return hydration is None or not any(counts.get(UNAVAILABLE) for counts in hydration.missing.values())


def _gained_types(chain: tuple[Extraction, ...]) -> list[str]:
    """Return the types that the last export of a chain has and the full one at its beginning could not."""
    first, last = (
        {row.type for row in _own_result(link).coverage if row.status == "unavailable"}
        for link in (chain[0], chain[-1])
    )
    return sorted(first - last)


def _own_result(link: Extraction) -> ExtractionResult:
    return asyncio.run(load_extracted(link.export)).result


def _count_joined(run: Run, chain: tuple[Extraction, ...], members: tuple[str, ...] | None) -> int:
    before = read_link(run.raw, chain[-1].export.prefix).members
    if members is None or before is None:
        _log.warning(
            "The Group's members cannot be read: what is older than the last export of patients who "
            "have joined since comes with the next full one, unless the server sends it on its own"
        )
        return 0
    return len(set(members) - set(before))


def _is_old(full: Extraction, days: float, now: float) -> bool:
    taken = datetime.fromisoformat(full.result.transaction_time)
    return now - taken.timestamp() >= timedelta(days=days).total_seconds()
