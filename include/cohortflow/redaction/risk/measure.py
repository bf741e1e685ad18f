"""The re-identification risk of a table of subjects, in the figures that privacy boards ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from cohortflow.model import SMALL_CELL
from cohortflow.redaction.risk.classes import CLASS, SIZE, count_classes, number_classes
from cohortflow.redaction.risk.closeness import DISTANCE, measure_closeness
from cohortflow.redaction.risk.demand import RiskDemand
from cohortflow.redaction.risk.diversity import (
    DISTINCT_L,
    ENTROPY_L,
    RECURSIVE_C,
    is_diverse,
    measure_diversity,
)
from cohortflow.redaction.risk.population import POPULATION_SIZE, map_population

__all__ = ["RiskMeasure", "SensitiveMeasure", "measure_risk"]

_EDGES: Final = (20, 50, 100)


@dataclass(frozen=True, slots=True)
class SensitiveMeasure:
    """How well classes hide a sensitive column.

    Attributes:
        column: The column.
        distinct_l: Least number of different values in a class.
        entropy_l: Least exponential of the entropy.
        recursive_l: The l for which ``recursive_c`` holds.
        recursive_c: Greatest ratio of the most frequent value to the l-th and rarer ones; infinite
            where a class has fewer values.
        t: Greatest distance of a class from all subjects.
        failing: Subjects in classes that miss the demand.
    """

    column: str
    distinct_l: int
    entropy_l: float
    recursive_l: int
    recursive_c: float
    t: float
    failing: int


@dataclass(frozen=True, slots=True)
class RiskMeasure:
    """Exact figures: some are small counts, which do not leave the zones of patient data.

    Attributes:
        subjects: Subjects of the table.
        classes: Classes of subjects who share their quasi-identifiers.
        k: Size of the smallest class, 0 without subjects.
        unique: Subjects who are alone in their class.
        small: Subjects in classes smaller than ``small_cell``.
        small_cell: Least count that may be shown.
        below: Subjects in classes smaller than the demanded k.
        k_map: Least number of people of the population who share a class's values; ``None`` without a
            population table.
        marketer: Share of subjects that somebody who matches everybody would expect to get right.
        sizes: Per range of class sizes, its least and greatest size (``None``: no limit), and how many
            subjects are in such classes.
        sensitive: One entry per sensitive column.
    """

    subjects: int
    classes: int
    k: int
    unique: int
    small: int
    small_cell: int
    below: int
    k_map: int | None
    marketer: float
    sizes: tuple[tuple[int, int | None, int], ...]
    sensitive: tuple[SensitiveMeasure, ...]

    @property
    def prosecutor(self) -> float:
        """Greatest chance to pick the right row for somebody who is known to be in the table."""
        return 1 / self.k if self.k else 0.0

    @property
    def average(self) -> float:
        """Mean of that chance over all subjects."""
        return self.classes / self.subjects if self.subjects else 0.0

    @property
    def journalist(self) -> float | None:
        """Greatest chance for somebody of the population who may be in the table or not."""
        return 1 / self.k_map if self.k_map else None

    def find_failures(self, demand: RiskDemand) -> tuple[str, ...]:
        """Say which demands are missed, without figures; empty where all are met."""
        failures = ["k-anonymity"] if self.subjects and self.k < demand.k else []
        failures += [
            f"{' and '.join(_name_demands(demand))} of {measure.column}"
            for measure in self.sensitive
            if measure.failing
        ]
        return tuple(failures)


def measure_risk(
    subjects: pl.LazyFrame,
    quasi_identifiers: Sequence[str],
    sensitive: Sequence[str] = (),
    *,
    demand: RiskDemand | None = None,
    population: pl.LazyFrame | None = None,
    small_cell: int = SMALL_CELL,
) -> RiskMeasure:
    """Measure the risk of a table of subjects.

    Prosecutor, journalist and marketer are the attackers of K. El Emam, F. Dankar, "Protecting privacy
    using k-anonymity", J. Am. Medical Informatics Assoc. 15(5), 2008, and F. Dankar, K. El Emam, "A
    method for evaluating marketer re-identification risk", PAIS 2010.

    Args:
        subjects: One row per subject.
        quasi_identifiers: Columns that others may know of a subject.
        sensitive: Columns that they must not learn.
        demand: What the table should meet; only counts of subjects who miss it depend on it.
        population: Counts of people by some of the quasi-identifiers; see ``map_population``.
        small_cell: Least count that may be shown.

    Raises:
        PolicyError: The table lacks a column, or there is no quasi-identifier.
    """
    demand = demand or RiskDemand()
    size = pl.col(SIZE)
    ranges = [
        (1, small_cell - 1),
        *zip((small_cell, *(e + 1 for e in _EDGES)), (*_EDGES, None), strict=True),
    ]
    queries = [
        count_classes(subjects, quasi_identifiers).select(
            size.sum().alias("subjects"),
            pl.len().alias("classes"),
            size.min().fill_null(0).alias("k"),
            _count(size == 1).alias("unique"),
            _count(size < small_cell).alias("small"),
            _count(size < demand.k).alias("below"),
            *(
                _count(size.is_between(least, greatest) if greatest else size >= least).alias(
                    f"sizes_{least}"
                )
                for least, greatest in ranges
            ),
        )
    ]
    if population is not None:
        people = pl.col(POPULATION_SIZE)
        queries.append(
            map_population(subjects, quasi_identifiers, population).select(
                people.min().fill_null(0).alias("k_map"),
                ((size / people).sum() / size.sum()).fill_nan(0.0).alias("marketer"),
            )
        )
    if sensitive:
        numbered = number_classes(subjects, quasi_identifiers, sensitive).collect().lazy()
        for name in sensitive:
            queries += _measure_sensitive(numbered, name, demand)
    found, *rest = (frame.row(0, named=True) for frame in pl.collect_all(queries))
    mapped = rest.pop(0) if population is not None else None
    return RiskMeasure(
        subjects=found["subjects"],
        classes=found["classes"],
        k=found["k"],
        unique=found["unique"],
        small=found["small"],
        small_cell=small_cell,
        below=found["below"],
        k_map=mapped["k_map"] if mapped else None,
        marketer=mapped["marketer"] if mapped else found["classes"] / max(1, found["subjects"]),
        sizes=tuple((least, greatest, found[f"sizes_{least}"]) for least, greatest in ranges),
        sensitive=tuple(
            SensitiveMeasure(
                column=name,
                distinct_l=diversity["distinct_l"],
                entropy_l=diversity["entropy_l"],
                recursive_l=demand.recursive_l,
                recursive_c=diversity["recursive_c"],
                t=closeness["t"],
                # A class may miss both: the sum would count its subjects twice.
                failing=max(diversity["failing"], closeness["failing"]),
            )
            for name, diversity, closeness in zip(sensitive, rest[::2], rest[1::2], strict=True)
        ),
    )


def _measure_sensitive(numbered: pl.LazyFrame, name: str, demand: RiskDemand) -> list[pl.LazyFrame]:
    diversity = measure_diversity(numbered, [CLASS], name, recursive_l=demand.recursive_l)
    closeness = measure_closeness(numbered, [CLASS], name)
    return [
        diversity.select(
            pl.col(DISTINCT_L).min().fill_null(0).alias("distinct_l"),
            pl.col(ENTROPY_L).min().fill_null(0.0).alias("entropy_l"),
            pl.col(RECURSIVE_C).max().fill_null(0.0).alias("recursive_c"),
            _count(~is_diverse(demand)).alias("failing"),
        ),
        closeness.select(
            pl.col(DISTANCE).max().fill_null(0.0).alias("t"),
            _count(pl.col(DISTANCE) > demand.greatest_distance).alias("failing"),
        ),
    ]


def _count(condition: pl.Expr) -> pl.Expr:
    """Count the subjects of the classes for which a condition holds."""
    return pl.when(condition).then(pl.col(SIZE)).otherwise(0).sum()


def _name_demands(demand: RiskDemand) -> list[str]:
    names = {"l-diversity": demand.l, "t-closeness": demand.t}
    return [name for name, value in names.items() if value is not None]
