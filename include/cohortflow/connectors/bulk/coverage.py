"""Which types an export brought, which it did not, and why: a table without patient data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import orjson

from cohortflow.connectors.bulk.state import ExportState, Reason
from cohortflow.connectors.extraction.result import CoverageRow, CoverageStatus

__all__ = ["COVERAGE_FILE", "describe_coverage", "tabulate_coverage"]

COVERAGE_FILE = "_coverage.json"
"""Name of the document beside an export's files."""

_ERRORS = frozenset({"fatal", "error"})
# http://hl7.org/fhir/issue-type: branches of codes.
_REFUSED = frozenset({"security", "login", "expired", "forbidden", "suppressed", "unknown"})
_UNAVAILABLE = frozenset({"not-supported", "not-found"})
_MISSING_API = "59204"


@dataclass(slots=True)
class _Tally:
    expected: int = 0
    announced: bool = True
    short: bool = False
    received: int = 0
    files: int = 0
    issues: list[Reason] = field(default_factory=list)


def tabulate_coverage(state: ExportState) -> tuple[CoverageRow, ...]:
    """Sum up an export whose files are downloaded, type by type, sorted.

    An error that does not say which type it is about makes every type partial: any may lack resources.
    """
    tallies: dict[str, _Tally] = {name: _Tally() for name in state.types}
    for item in state.files:
        if item.section != "output":
            continue
        for piece in item.pieces:
            tally = tallies.setdefault(piece.type, _Tally())
            tally.received += piece.lines
            tally.files += 1
            if item.type and item.count is not None:
                tally.expected += item.count
                tally.short |= piece.lines < item.count
            else:
                tally.announced = False
    general = list[Reason]()
    for reason in (reason for item in state.files for reason in item.reasons):
        if reason.severity == "information":
            continue
        if reason.type in tallies:
            tallies[reason.type].issues.append(reason)
        else:
            general.append(reason)
    absent = set(state.absent)
    return tuple(
        _row(name, tally, general, requested=not state.types or name in state.types, absent=name in absent)
        for name, tally in sorted(tallies.items())
    )


def describe_coverage(state: ExportState) -> bytes:
    """Return the coverage document of an export as JSON."""
    rows = tabulate_coverage(state)
    document = {
        "transaction_time": state.transaction_time,
        "status": "partial" if any(row.status in ("partial", "refused") for row in rows) else "complete",
        "types": [asdict(row) for row in rows],
        "issues": [reason.model_dump() for item in state.files for reason in item.reasons],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def _row(
    name: str, tally: _Tally, general: Iterable[Reason], *, requested: bool, absent: bool
) -> CoverageRow:
    own = _codes(tally.issues, _ERRORS)
    shared = _codes(general, _ERRORS)
    warnings = _codes(tally.issues, {"warning"})
    why = list({*own, *shared, *warnings})
    status: CoverageStatus = "complete"
    roots = {reason.code.partition("/")[0] for reason in tally.issues}
    if not tally.received and (absent or _MISSING_API in {part for code in why for part in code.split("/")}):
        status = "unavailable"
        if absent:
            why.append("this kind of server leaves it out of exports")
    elif not tally.received and own and roots <= _REFUSED:
        status = "refused"
    elif not tally.received and tally.issues and roots <= _UNAVAILABLE:
        status = "unavailable"
    elif own or shared or tally.short:
        status = "partial"
    elif not requested:
        status = "not requested"
    elif not tally.files:
        why.append("no file in the manifest: the server found none")
    if tally.short:
        why.append("fewer resources came than the manifest announces")
    expected = tally.expected if tally.files and tally.announced else None
    return CoverageRow(name, status, expected, tally.received, tally.files, tuple(sorted(why)))


def _codes(reasons: Iterable[Reason], severities: Iterable[str]) -> list[str]:
    wanted = set(severities)
    return sorted({reason.code or reason.severity for reason in reasons if reason.severity in wanted})
