"""What is published of an assessment: the exact figures made safe, as text.

Small counts end here: the page, the release document and messages are made from this, never from
``RiskMeasure``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from cohortflow.redaction.risk.columns import SubjectColumn
from cohortflow.redaction.risk.disclosure import HIDDEN, show_count, show_counts, show_share
from cohortflow.redaction.risk.measure import RiskMeasure, SensitiveMeasure

__all__ = [
    "ColumnReport",
    "RiskFigures",
    "RiskReport",
    "SensitiveFigures",
    "SizeRange",
    "Verdict",
    "publish_risk",
]

Verdict = Literal["measured", "met", "suppressed", "missed", "unknown"]
"""Nothing demanded; met as it was; met after suppression; missed; nothing to measure."""


@dataclass(frozen=True, slots=True)
class SizeRange:
    """Subjects in classes of a range of sizes: its label, the count, the share that a bar may show."""

    label: str
    subjects: str
    share: float | None


@dataclass(frozen=True, slots=True)
class SensitiveFigures:
    """``SensitiveMeasure`` as text."""

    column: str
    distinct_l: str
    entropy_l: str
    recursive: str
    t: str
    failing: str


@dataclass(frozen=True, slots=True)
class RiskFigures:
    """``RiskMeasure`` as text; see there."""

    subjects: str
    k: str
    unique: str
    small: str
    below: str
    prosecutor: str
    average: str
    journalist: str
    marketer: str
    k_map: str
    sizes: tuple[SizeRange, ...]
    sensitive: tuple[SensitiveFigures, ...]


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """A quasi-identifier: its name, how it is compared, subjects whose value was suppressed."""

    name: str
    compared: str
    suppressed: str


@dataclass(frozen=True, slots=True)
class RiskReport:
    """An assessment that may be published.

    Attributes:
        study: Name of the study.
        title: Its title.
        environment: Where it ran.
        policy: Redaction policy.
        interval: Key of the data interval.
        verdict: How the demand was met.
        failures: Demands that are missed.
        demand: What was demanded, by name.
        quasi_identifiers: What others are taken to know.
        excluded: Published columns that they are taken not to know, with the study's reason.
        unpublished: Declared columns that the policy or the study leaves out.
        population: Name of the population table, or empty.
        small_cell: Least count that is shown.
        removed: Subjects who were left out.
        before: Figures after redaction.
        after: Figures of what is published.
    """

    study: str
    title: str
    environment: str
    policy: str
    interval: str
    verdict: Verdict
    failures: tuple[str, ...]
    demand: Mapping[str, str]
    quasi_identifiers: tuple[ColumnReport, ...]
    excluded: Mapping[str, str]
    unpublished: tuple[str, ...]
    population: str
    small_cell: int
    removed: str
    before: RiskFigures | None
    after: RiskFigures | None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return dataclasses.asdict(self)


def publish_risk(
    before: RiskMeasure,
    after: RiskMeasure,
    columns: Sequence[SubjectColumn],
    changes: pl.DataFrame | None,
) -> tuple[RiskFigures, RiskFigures, tuple[ColumnReport, ...], str]:
    """Make an assessment safe to publish.

    Args:
        before: Figures after redaction.
        after: Figures of what is published; ``before`` itself where nothing was suppressed.
        columns: The quasi-identifiers.
        changes: What ``find_changes`` gives; ``None`` where nothing was suppressed.

    Returns:
        Both figures, the quasi-identifiers with their suppressed values, and the subjects left out.
    """
    minimum = before.small_cell
    removed = before.subjects - after.subjects
    # The datasets' rows tell how many are left: the number before would tell a small difference.
    secret = 0 < removed < minimum
    counts = {name: int(changes[name].sum()) for name in changes.columns[1:]} if changes is not None else {}
    reports = tuple(
        ColumnReport(
            column.name,
            column.compared,
            show_share(counts.get(column.name, 0), after.subjects, minimum=minimum),
        )
        for column in columns
    )
    return (
        _show_figures(before, secret=secret),
        _show_figures(after),
        reports,
        show_count(removed, before.subjects, minimum=minimum),
    )


def _show_figures(measure: RiskMeasure, *, secret: bool = False) -> RiskFigures:
    minimum, whole = measure.small_cell, measure.subjects
    texts = show_counts([count for _, _, count in measure.sizes], minimum=minimum, hide_total=secret)
    # With more digits, shares of an unknown whole would tell it.
    digits = 0 if secret else 1
    nested = {"small": measure.small, "below": measure.below, "unique": measure.unique}
    shown: list[int] = []
    shares: dict[str, str] = {}
    for name, count in nested.items():
        text = show_share(count, whole, *shown, minimum=minimum, digits=digits)
        # The first range of sizes is the small classes: where it is hidden, nothing else may tell it.
        shares[name] = HIDDEN if count >= minimum and texts[0] == HIDDEN else text
        if shares[name] != HIDDEN:
            shown.append(count)
    return RiskFigures(
        subjects=HIDDEN if secret else show_count(whole, minimum=minimum),
        k=show_count(measure.k, minimum=minimum),
        unique=shares["unique"],
        small=shares["small"],
        below=shares["below"],
        prosecutor=_show_chance(measure.k, minimum),
        average=_show_mean(measure.average, measure),
        journalist="" if measure.k_map is None else _show_chance(measure.k_map, minimum),
        marketer=_show_mean(measure.marketer, measure),
        k_map="" if measure.k_map is None else show_count(measure.k_map, minimum=minimum),
        sizes=tuple(
            SizeRange(
                _label(least, greatest, minimum),
                text,
                round(count / whole, 2) if whole and text == f"{count:,}" else None,
            )
            for (least, greatest, count), text in zip(measure.sizes, texts, strict=True)
        ),
        sensitive=tuple(_show_sensitive(item, measure, shown, digits) for item in measure.sensitive),
    )


def _show_chance(size: int, minimum: int) -> str:
    if not size:
        return "none"
    return f"over {100 / minimum:.0f}%" if size < minimum else f"{100 / size:.1f}%"


def _show_mean(share: float, measure: RiskMeasure) -> str:
    """Return a mean over subjects in whole percents: with more digits it would tell single classes."""
    if measure.subjects < measure.small_cell:
        return HIDDEN
    least = 0.01
    return "under 1%" if 0 < share < least else f"{100 * share:.0f}%"


def _label(least: int, greatest: int | None, minimum: int) -> str:
    if greatest is None:
        return f"over {least - 1}"
    return f"<{minimum}" if least < minimum else f"{least}\N{EN DASH}{greatest}"


def _show_sensitive(
    item: SensitiveMeasure, measure: RiskMeasure, shown: Sequence[int], digits: int
) -> SensitiveFigures:
    infinite = math.isinf(item.recursive_c)
    return SensitiveFigures(
        column=item.column,
        distinct_l=str(item.distinct_l),
        entropy_l=f"{item.entropy_l:.2f}",
        recursive=f"no c for l = {item.recursive_l}"
        if infinite
        else f"c over {item.recursive_c:.2f} for l = {item.recursive_l}",
        t=f"{item.t:.3f}",
        failing=show_share(item.failing, measure.subjects, *shown, minimum=measure.small_cell, digits=digits),
    )
