"""How much of a view's codes was mapped, and what was not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cohortflow.errors import CoverageError
from cohortflow.terminology.mapping import IDENTITY, UnmappedReason
from cohortflow.terminology.systems import STANDARD_SYSTEMS

__all__ = [
    "MAPPED",
    "NO_SYSTEM",
    "OTHER_SYSTEM",
    "Coverage",
    "SystemCoverage",
    "SystemTotals",
    "Tally",
    "UnmappedCode",
    "check_coverage",
    "hide_rare_codes",
]

NO_SYSTEM = "(none)"
OTHER_SYSTEM = "(not a URI)"
RARE_SYSTEMS = "(systems of few rows)"
MAPPED = ("mapped", IDENTITY)
"""Outcomes of rows with a target."""


@dataclass(frozen=True, slots=True)
class Tally:
    """A count of source rows and of their distinct codes."""

    rows: int
    codes: int


@dataclass(frozen=True, slots=True)
class SystemCoverage:
    """What became of the codes of one source system.

    Attributes:
        system: Canonical URI; ``(none)`` where the source gave no system; ``(not a URI)`` for texts in its
            place, which are not shown; ``(systems of few rows)`` for those that `hide_rare_codes` joined.
        outcome: ``mapped``, ``identity`` (in the target system already) or the reason why unmapped.
        rows: Source rows.
        codes: Distinct codes.
    """

    system: str
    outcome: str
    rows: int
    codes: int


@dataclass(frozen=True, slots=True)
class SystemTotals:
    """The rows of one source system: how many are mapped, and how well.

    Attributes:
        system: As in `SystemCoverage`.
        rows: Source rows with a code.
        codes: Distinct codes.
        mapped: Rows with a target, identity included.
        unmapped: Rows without one. A code counts in both where a rule or a text decides row by row.
        ambiguous: Mapped rows whose code has several targets that the map ranks alike; ``None`` where the
            maps were not looked at.
        retired: Rows, mapped or not, whose code its terminology has retired; ``None`` where the terminology
            is not loaded.
    """

    system: str
    rows: int
    codes: int
    mapped: Tally
    unmapped: Tally
    ambiguous: Tally | None
    retired: Tally | None


@dataclass(frozen=True, slots=True)
class UnmappedCode:
    """A code without a target; its display, where it was asked for."""

    system: str
    code: str
    reason: str
    rows: int
    display: str | None = None


@dataclass(frozen=True, slots=True)
class Coverage:
    """The result of a mapping.

    Unless asked for, it has no codes of a hospital's own systems, which may be text.

    Attributes:
        prefix: Of the mapping.
        maps: Its ConceptMaps.
        versions: Names and versions of the maps that were used, in the same order.
        rows: Source rows.
        rows_with_code: Those with a source code.
        rows_mapped: Those of them with a target, identity included.
        systems: Rows and distinct codes for each source system and outcome, most rows first.
        totals: The same for each source system, with ambiguous and retired codes.
        top_unmapped: The most frequent unmapped codes of published systems.
    """

    prefix: str
    maps: tuple[str, ...]
    rows: int
    rows_with_code: int
    rows_mapped: int
    systems: tuple[SystemCoverage, ...]
    top_unmapped: tuple[UnmappedCode, ...]
    totals: tuple[SystemTotals, ...] = ()
    versions: tuple[str, ...] = ()

    @property
    def share(self) -> float | None:
        """Share of the rows with a source code that have a target; ``None`` without such rows."""
        return self.rows_mapped / self.rows_with_code if self.rows_with_code else None

    @property
    def mapped(self) -> Tally:
        """Rows with a target, identity included."""
        return _add(total.mapped for total in self.totals)

    @property
    def unmapped(self) -> Tally:
        """Rows with a code and without a target."""
        return _add(total.unmapped for total in self.totals)

    @property
    def ambiguous(self) -> Tally | None:
        """Mapped rows whose code has several targets; ``None``: the maps were not looked at."""
        known = [total.ambiguous for total in self.totals if total.ambiguous is not None]
        return _add(known) if known else None

    @property
    def retired(self) -> Tally | None:
        """Rows with a retired code; ``None``: no terminology of the source is loaded."""
        known = [total.retired for total in self.totals if total.retired is not None]
        return _add(known) if known else None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form, with ``share``."""
        return {**dataclasses.asdict(self), "share": self.share}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Coverage:
        """Read what ``to_dict`` wrote, also that of an earlier version, which had no totals."""
        return cls(
            prefix=value["prefix"],
            maps=tuple(value["maps"]),
            rows=value["rows"],
            rows_with_code=value["rows_with_code"],
            rows_mapped=value["rows_mapped"],
            systems=tuple(SystemCoverage(**part) for part in value["systems"]),
            top_unmapped=tuple(UnmappedCode(**code) for code in value["top_unmapped"]),
            totals=tuple(_read_totals(total) for total in value.get("totals", ())),
            versions=tuple(value.get("versions", ())),
        )


def hide_rare_codes(coverage: Coverage, minimum: int) -> Coverage:
    """Make a coverage fit for publication: a rare code, or a rare system, could point at a patient.

    Args:
        coverage: What was measured.
        minimum: Unmapped codes and systems of fewer rows are not named.
    """
    sizes: dict[str, int] = {}
    for part in coverage.systems:
        sizes[part.system] = sizes.get(part.system, 0) + part.rows
    rare = {system for system, size in sizes.items() if size < minimum}
    joined: dict[str, SystemCoverage] = {}
    for part in coverage.systems:
        if part.system in rare:
            known = joined.get(part.outcome, SystemCoverage(RARE_SYSTEMS, part.outcome, 0, 0))
            joined[part.outcome] = dataclasses.replace(
                known, rows=known.rows + part.rows, codes=known.codes + part.codes
            )
    totals = [total for total in coverage.totals if total.system in rare]
    return dataclasses.replace(
        coverage,
        systems=(*(part for part in coverage.systems if part.system not in rare), *joined.values()),
        totals=(
            *(total for total in coverage.totals if total.system not in rare),
            *([_join_totals(totals)] if totals else []),
        ),
        top_unmapped=tuple(
            dataclasses.replace(code, display=None)
            for code in coverage.top_unmapped
            if code.rows >= minimum and code.system in STANDARD_SYSTEMS
        ),
    )


def check_coverage(coverage: Coverage, minimum: float | None, *, place: str = "") -> None:
    """Refuse data of which too little was mapped.

    Args:
        coverage: What was measured.
        minimum: Least share of rows, 0 to 1; ``None`` asks for nothing.
        place: Where the report is, for the message.

    Raises:
        CoverageError: The share is below the minimum. The message gives the reasons, most rows first.
    """
    if minimum is None or coverage.share is None or coverage.share >= minimum:
        return
    reasons: dict[str, int] = {}
    for part in coverage.systems:
        if part.outcome not in {*MAPPED, UnmappedReason.NO_SOURCE_CODE}:
            reasons[part.outcome] = reasons.get(part.outcome, 0) + part.rows
    listed = ", ".join(f"{reason}: {rows}" for reason, rows in sorted(reasons.items(), key=lambda r: -r[1]))
    raise CoverageError(
        f"The mapping '{coverage.prefix}' covers {coverage.share:.1%} of {coverage.rows_with_code} rows with "
        f"a code; the study demands {minimum:.1%}. Rows without target by reason: {listed}.",
        place=place,
        remedy=f"Add the missing codes to {' or '.join(coverage.maps)} ('cohortflow terminology suggest' "
        "proposes targets), or lower min_coverage. Nothing was published.",
    )


def _join_totals(totals: Sequence[SystemTotals]) -> SystemTotals:
    ambiguous = [total.ambiguous for total in totals if total.ambiguous is not None]
    retired = [total.retired for total in totals if total.retired is not None]
    return SystemTotals(
        RARE_SYSTEMS,
        sum(total.rows for total in totals),
        sum(total.codes for total in totals),
        _add(total.mapped for total in totals),
        _add(total.unmapped for total in totals),
        _add(ambiguous) if ambiguous else None,
        _add(retired) if retired else None,
    )


def _add(tallies: Iterable[Tally]) -> Tally:
    found = list(tallies)
    return Tally(sum(tally.rows for tally in found), sum(tally.codes for tally in found))


def _read_totals(value: Mapping[str, Any]) -> SystemTotals:
    ambiguous, retired = value["ambiguous"], value["retired"]
    return SystemTotals(
        value["system"],
        value["rows"],
        value["codes"],
        mapped=Tally(**value["mapped"]),
        unmapped=Tally(**value["unmapped"]),
        ambiguous=None if ambiguous is None else Tally(**ambiguous),
        retired=None if retired is None else Tally(**retired),
    )
