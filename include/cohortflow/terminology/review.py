"""What reviewers decided on local codes, checked: nothing missing, unknown or contradictory.

Messages name lines, and no codes: a hospital's own may be text of a record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from cohortflow.errors import InputError
from cohortflow.terminology.concept_map import Relationship
from cohortflow.terminology.review_file import ReviewRow

__all__ = ["Decision", "Target", "check_review"]

_MOST_FAULTS = 20
_AHEAD = timedelta(hours=14)
"""By which the day begins earlier in the east than in UTC."""


class Decision(StrEnum):
    """What a reviewer says of a candidate."""

    ACCEPT = "accept"
    REJECT = "reject"
    NO_TARGET = "no-target"
    """The target system has no concept for the source code."""


@dataclass(frozen=True, slots=True)
class Target:
    """A concept that a local code may be mapped to.

    Attributes:
        display: Its name.
        active: Whether it is in use.
    """

    display: str | None
    active: bool


def check_review(
    rows: Sequence[ReviewRow],
    targets: Mapping[tuple[str, str], Target],
    systems: Mapping[str, str],
    place: str,
) -> tuple[ReviewRow, ...]:
    """Return the rows that were decided upon, but for rejections.

    Args:
        rows: All rows of a review.
        targets: Known concepts by system and code, those of the review at least.
        systems: Name and version of each target system whose concepts are known.
        place: The file, for messages.

    Raises:
        InputError: Something is missing, unknown or contradictory, by line; or nothing was decided.
    """
    faults = [
        (row.line, *fault) for row in rows if row.decision for fault in _check_row(row, targets, systems)
    ]
    faults += _find_contradictions([row for row in rows if row.decision])
    if faults:
        raise _report(sorted(set(faults)), place)
    decided = tuple(row for row in rows if row.decision in {Decision.ACCEPT, Decision.NO_TARGET})
    if not decided:
        raise InputError(
            "No row is accepted.",
            place=place,
            remedy=f"Write a decision into the file: {', '.join(Decision)}.",
        )
    return decided


Fault = tuple[str, str]


def _check_row(
    row: ReviewRow, targets: Mapping[tuple[str, str], Target], systems: Mapping[str, str]
) -> list[Fault]:
    """Return what is wrong with a decided row by itself: each problem, and what to do."""
    if row.decision not in set(Decision):
        return [("The decision is unknown.", f"Write {', '.join(Decision)}, or leave it empty.")]
    faults: list[Fault] = []
    if not row.reviewer:
        faults.append(("The reviewer is missing.", "Name who decided."))
    faults += _check_date(row.date)
    if row.decision == Decision.REJECT:
        return faults
    if not row.source_code or not row.source_system:
        faults.append(("The source has no system or no code.", "Fill it in: a map finds a code by both."))
    if not row.target_system:
        faults.append(("The target has no code system.", "Fill in target_system, such as http://loinc.org."))
    elif row.decision == Decision.ACCEPT:
        faults += _check_target(row, targets, systems)
    return faults


def _check_target(
    row: ReviewRow, targets: Mapping[tuple[str, str], Target], systems: Mapping[str, str]
) -> list[Fault]:
    faults: list[Fault] = []
    usable = [value for value in Relationship if value is not Relationship.NOT_RELATED]
    if row.relationship not in set(usable):
        problem = "The relationship is unknown." if row.relationship else "The relationship is missing."
        faults.append((problem, f"Write {', '.join(usable)}."))
    known = targets.get(row.target)
    if not row.target_code:
        faults.append(("There is no target code.", f"Fill it in, or decide '{Decision.NO_TARGET}'."))
    elif row.target_system not in systems:
        faults.append(
            (
                "The target's code system is not loaded, so its codes cannot be checked.",
                "Load it with 'cohortflow terminology load'.",
            )
        )
    elif known is None:
        faults.append(
            (
                f"The target code is not in {systems[row.target_system]}.",
                "Check it; a spreadsheet may have changed it to a number or a date.",
            )
        )
    elif not known.active:
        faults.append((f"The target code is retired in {systems[row.target_system]}.", "Take its successor."))
    return faults


def _check_date(text: str) -> list[Fault]:
    try:
        # Other forms of ISO 8601 do not sort as text.
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        problem = "The date is not written as 2026-11-30." if text else "The date is missing."
        return [(problem, "Write year, month and day of the decision.")]
    if day > (datetime.now(UTC) + _AHEAD).date():
        return [("The date is in the future.", "Write the day of the decision.")]
    return []


def _find_contradictions(rows: Sequence[ReviewRow]) -> list[tuple[int, str, str]]:
    """Return the rows that cannot hold beside an earlier one of the same source."""
    faults: list[tuple[int, str, str]] = []
    first: dict[tuple[object, ...], ReviewRow] = {}
    for row in rows:
        other = first.setdefault(("pair", row.source, row.target), row)
        if (other.decision, other.relationship) != (row.decision, row.relationship):
            problem = f"Line {other.line} decides otherwise on the same source and target."
            faults.append((row.line, problem, "Decide for one of them."))
        if row.decision == Decision.REJECT:
            continue
        other = first.setdefault(("source", row.source, row.target_system), row)
        if (other.decision == Decision.NO_TARGET) != (row.decision == Decision.NO_TARGET):
            problem = f"One of this and line {other.line} says that the source has no target."
            faults.append((row.line, problem, "Decide for one of them."))
        if row.relationship == Relationship.EQUIVALENT:
            other = first.setdefault(("equivalent", row.source, row.target_system), row)
            if other.target_code != row.target_code:
                problem = f"The source is equivalent to another target in line {other.line}."
                faults.append((row.line, problem, "Decide for one of them, or say which is narrower."))
    return faults


def _report(faults: Sequence[tuple[int, str, str]], place: str) -> InputError:
    if len(faults) == 1:
        line, problem, remedy = faults[0]
        return InputError(problem, place=f"{place}:{line}", remedy=remedy)
    listed = "".join(
        f"\n  line {line}: {problem} {remedy}" for line, problem, remedy in faults[:_MOST_FAULTS]
    )
    more = len(faults) - _MOST_FAULTS
    return InputError(
        f"The review has {len(faults)} faults:{listed}" + (f"\n  and {more} more" if more > 0 else ""),
        place=place,
        remedy="Mend them and accept the file again; nothing was written.",
    )
