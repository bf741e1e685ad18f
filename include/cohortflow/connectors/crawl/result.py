"""What a crawl amounts to: counts, coverage per type, and when failures are too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from cohortflow.connectors.crawl.plan import CrawlPlan
from cohortflow.connectors.crawl.request import CrawlLimits
from cohortflow.connectors.crawl.state import CrawlState
from cohortflow.connectors.extraction.extractor import Extracted, Phase, combine_digests, incomplete
from cohortflow.connectors.extraction.folder import RawSink
from cohortflow.connectors.extraction.result import CoverageRow, CoverageStatus, ExtractionResult
from cohortflow.errors import AuthorizationError, ExportRejectedError

__all__ = ["check_failures", "closing_reason", "load_crawl", "sum_up"]

# Ends of queries that leave nothing out.
_GOOD = frozenset({"ok", "merged"})
# Ends that leave something out, but are answers all the same.
_ANSWERED = frozenset({"partial", "not-enabled"})
# Reasons for which a server may withhold a whole type without anything being wrong.
_CLOSING = frozenset({"forbidden", "not-found", "break-the-glass"})
_REFUSED = frozenset({"forbidden", "break-the-glass"})


def failures_of(counts: Mapping[str, int]) -> int:
    """Return how many queries brought nothing that should have brought something."""
    return sum(count for end, count in counts.items() if end not in _GOOD | _ANSWERED)


def closing_reason(counts: Counter[str], failures: int) -> str:
    """Return why a type need not be asked for again; empty where it may be.

    Args:
        counts: How its queries ended so far.
        failures: So many of them show it, if none succeeded.
    """
    if any(counts[end] for end in _GOOD | _ANSWERED) or failures_of(counts) < failures:
        return ""
    if not {end for end, count in counts.items() if count} <= _CLOSING:
        return ""  # something else went wrong, too
    return max(counts, key=lambda end: counts[end], default="")


def check_failures(
    state: CrawlState, plan: CrawlPlan, resource_type: str, limits: CrawlLimits, host: str
) -> None:
    """Refuse to go on where too much is missing.

    Raises:
        ExportRejectedError: Too many queries of a type failed.
        AuthorizationError: The server lets us have none of the types that were asked for.
    """
    counts = state.tallies.get(resource_type, {})
    failed, asked = failures_of(counts), sum(counts.values())
    reasons = ", ".join(_reasons(counts))
    if resource_type in state.closed:
        if set(plan.types) <= set(state.closed):
            raise AuthorizationError(
                f"The server lets us have nothing of what was asked for ({reasons}).",
                place=host,
                remedy="Check the scopes of the connection and the APIs that the client is registered for.",
            )
        return
    useless = failed == asked > 0
    if useless or (failed > limits.min_failures and failed > limits.max_failed_share * asked):
        if useless and failed < limits.probe_failures and state.phase is not Phase.COMPLETE:
            return  # too early to tell
        raise ExportRejectedError(
            f"{failed} of {asked} searches for {resource_type} failed ({reasons}).",
            place=host,
            remedy="Look the reasons up in the documentation of searches; raise the limit if they are right.",
        )


def sum_up(state: CrawlState) -> Extracted:
    """Return what a complete crawl brought."""
    files: dict[str, tuple[str, ...]] = {}
    resources: dict[str, int] = {}
    for item in sorted(state.files, key=lambda item: item.name):
        files[item.type] = (*files.get(item.type, ()), item.name)
        resources[item.type] = resources.get(item.type, 0) + item.lines
    failed = sum(map(failures_of, state.tallies.values()))
    answered = sum(counts.get(end, 0) for counts in state.tallies.values() for end in _ANSWERED)
    result = ExtractionResult(
        transaction_time=state.transaction_time,
        files=files,
        resources=resources,
        bytes=sum(item.bytes for item in state.files),
        coverage=tuple(_cover(name, state) for name in state.types),
        severities={name: count for name, count in (("error", failed), ("warning", answered)) if count},
    )
    return Extracted(result, combine_digests(item.sha256 for item in state.files))


async def load_crawl(sink: RawSink) -> Extracted:
    """Return what the complete crawl of a sink brought.

    Raises:
        ArtifactNotFoundError: There is none.
        SourceError: The state is unreadable.
    """
    state = await CrawlState.read(sink)
    if state is None or state.phase is not Phase.COMPLETE:
        raise incomplete()
    return sum_up(state)


def _cover(name: str, state: CrawlState) -> CoverageRow:
    files = [file for file in state.files if file.type == name]
    status: CoverageStatus = "complete"
    why: tuple[str, ...] = _reasons(state.tallies.get(name, {}))
    if reason := state.skipped.get(name):
        status, why = "unavailable", (reason,)
    elif reason := state.closed.get(name):
        status, why = ("refused" if reason in _REFUSED else "unavailable"), (reason,)
    elif why:
        received = any(file.lines for file in files)
        only_missing_apis = set(state.tallies[name]) <= {"not-enabled"}
        status = "unavailable" if only_missing_apis and not received else "partial"
    return CoverageRow(name, status, None, sum(file.lines for file in files), len(files), why)


def _reasons(counts: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(f"{end}: {count}" for end, count in sorted(counts.items()) if end not in _GOOD)
