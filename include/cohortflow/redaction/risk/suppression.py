"""Suppression: what is taken out of a table of subjects so that no class is too small.

Both ways are deterministic: the same table gives the same result, whatever the order of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from cohortflow.redaction.risk.classes import SIZE, check_columns, count_classes
from cohortflow.redaction.risk.closeness import DISTANCE, measure_closeness
from cohortflow.redaction.risk.demand import RiskDemand
from cohortflow.redaction.risk.diversity import is_diverse, measure_diversity

__all__ = ["Suppression", "meet_demand", "order_columns", "suppress_rows", "suppress_values"]


def order_columns(
    subjects: pl.LazyFrame,
    quasi_identifiers: Sequence[str],
    k: int,
    suppressible: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Decide in which order quasi-identifiers are given up, the cheapest first.

    Each time it is the column without which the fewest subjects are left in small classes; of equal
    ones, the column that was declared last. The order ends when no small class is left.

    Args:
        subjects: One row per subject.
        quasi_identifiers: Columns that others may know, the most important to keep first.
        k: Least size of a class.
        suppressible: Those that may be given up; all where ``None``.

    Returns:
        Columns for ``suppress_values``.
    """
    classes = count_classes(subjects, quasi_identifiers).collect()
    candidates = [name for name in quasi_identifiers if suppressible is None or name in suppressible]
    order: list[str] = []
    while candidates and _count_small(classes, k):
        tried = {name: _give_up(classes, quasi_identifiers, name, k) for name in candidates}
        best = min(
            candidates, key=lambda name: (_count_small(tried[name], k), -quasi_identifiers.index(name))
        )
        order.append(best)
        candidates.remove(best)
        classes = tried[best]
    return tuple(order)


def suppress_values(
    subjects: pl.LazyFrame, quasi_identifiers: Sequence[str], k: int, order: Sequence[str]
) -> pl.LazyFrame:
    """Set quasi-identifiers of subjects in small classes to null, one column after the other.

    A subject whose class has become large enough keeps the columns that come later. Classes that are
    large enough are not touched, and only grow.

    Args:
        subjects: One row per subject.
        quasi_identifiers: Columns that others may know of a subject.
        k: Least size of a class.
        order: Columns in the order in which they are given up; see ``order_columns``.
    """
    check_columns(subjects, quasi_identifiers, *order)
    for name in order:
        small = pl.len().over(list(quasi_identifiers)) < k
        subjects = subjects.with_columns(pl.when(~small).then(pl.col(name)).alias(name))
    return subjects


def suppress_rows(subjects: pl.LazyFrame, quasi_identifiers: Sequence[str], k: int) -> pl.LazyFrame:
    """Leave out the subjects of small classes; the order of the others is kept."""
    check_columns(subjects, quasi_identifiers)
    return subjects.filter(pl.len().over(list(quasi_identifiers)) >= k)


@dataclass(frozen=True, slots=True)
class Suppression:
    """A table that meets a demand, and what it cost.

    Attributes:
        subjects: What is left: the columns of the table, in its order.
        order: Quasi-identifiers that were given up for some subjects, in order.
    """

    subjects: pl.DataFrame
    order: tuple[str, ...]


def meet_demand(
    subjects: pl.LazyFrame,
    quasi_identifiers: Sequence[str],
    sensitive: Sequence[str],
    demand: RiskDemand,
    *,
    suppressible: Sequence[str] | None = None,
) -> Suppression:
    """Suppress until a table meets a demand.

    First values are set to null for k, then the subjects of classes that are still too small are left
    out, then those of classes that are not diverse or not close enough, until none is left: without them
    the distribution in all subjects is another, which is what closeness compares with.

    Args:
        subjects: One row per subject.
        quasi_identifiers: Columns that others may know, the most important to keep first.
        sensitive: Columns that they must not learn.
        demand: What to meet.
        suppressible: Quasi-identifiers whose values may be set to null; all where ``None``, and none
            where subjects are to be left out as a whole.
    """
    order = order_columns(subjects, quasi_identifiers, demand.k, suppressible)
    left = suppress_values(subjects, quasi_identifiers, demand.k, order)
    kept = suppress_rows(left, quasi_identifiers, demand.k).collect()
    while not kept.is_empty():
        failing = _find_failing(kept.lazy(), quasi_identifiers, sensitive, demand)
        remaining = kept.join(failing, on=list(quasi_identifiers), how="anti", nulls_equal=True)
        if remaining.height == kept.height:
            break
        kept = remaining
    return Suppression(kept, order)


def _count_small(classes: pl.DataFrame, k: int) -> int:
    return int(classes.filter(pl.col(SIZE) < k)[SIZE].sum())


def _give_up(classes: pl.DataFrame, quasi_identifiers: Sequence[str], name: str, k: int) -> pl.DataFrame:
    given_up = classes.with_columns(pl.when(pl.col(SIZE) >= k).then(pl.col(name)).alias(name))
    return given_up.group_by(quasi_identifiers).agg(pl.col(SIZE).sum())


def _find_failing(
    subjects: pl.LazyFrame, quasi_identifiers: Sequence[str], sensitive: Sequence[str], demand: RiskDemand
) -> pl.DataFrame:
    """Return the quasi-identifiers of classes that are not diverse or not close enough."""
    measures: list[pl.LazyFrame] = []
    for name in sensitive:
        if demand.l is not None:
            diversity = measure_diversity(subjects, quasi_identifiers, name, recursive_l=demand.recursive_l)
            measures.append(diversity.filter(~is_diverse(demand)))
        if demand.t is not None:
            closeness = measure_closeness(subjects, quasi_identifiers, name)
            measures.append(closeness.filter(pl.col(DISTANCE) > demand.greatest_distance))
    found = pl.collect_all([measure.select(quasi_identifiers) for measure in measures])
    return pl.concat(found).unique() if found else subjects.select(quasi_identifiers).clear().collect()
