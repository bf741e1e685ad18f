"""l-diversity: how many different sensitive values a class holds.

A class whose subjects all have the same diagnosis gives it away, however large it is.
A. Machanavajjhala, D. Kifer, J. Gehrke, M. Venkitasubramaniam, "l-diversity: privacy beyond k-anonymity",
ACM Trans. Knowledge Discovery from Data 1(1), 2007.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from cohortflow.redaction.risk.classes import SIZE, check_columns
from cohortflow.redaction.risk.demand import RiskDemand

__all__ = ["DISTINCT_L", "ENTROPY_L", "RECURSIVE_C", "is_diverse", "measure_diversity"]

DISTINCT_L: Final = "distinct_l"
"""Column with the number of different values."""

ENTROPY_L: Final = "entropy_l"
"""Column with the exponential of the entropy: as many equally frequent values are as diverse."""

RECURSIVE_C: Final = "recursive_c"
"""Column with the count of the most frequent value over the counts of the l-th and rarer ones.

A class is recursively (c, l)-diverse for every greater c.
"""

_CELL: Final = "cohortflow:cell"
_CELL_LOG: Final = "cohortflow:cell_log"


def measure_diversity(
    subjects: pl.LazyFrame, quasi_identifiers: Sequence[str], sensitive: str, *, recursive_l: int = 2
) -> pl.LazyFrame:
    """Return one row per class: its quasi-identifiers, ``class_size`` and three measures.

    ``distinct_l: i64`` (Definition 4.1 with distinct values), ``entropy_l: f64`` (Definition 4.1) and
    ``recursive_c: f64`` (Definition 4.2), infinite where the class has fewer than ``recursive_l``
    values. A missing value counts as a value.

    Args:
        subjects: One row per subject.
        quasi_identifiers: Columns that others may know of a subject.
        sensitive: Column that they must not learn.
        recursive_l: The l of recursive (c, l)-diversity, at least 1.

    Raises:
        PolicyError: The table lacks a column.
    """
    check_columns(subjects, quasi_identifiers, sensitive)
    count, total = pl.col(_CELL), pl.col(_CELL).sum()
    cells = (
        subjects.group_by([*quasi_identifiers, sensitive])
        .agg(pl.len().cast(pl.Int64).alias(_CELL))
        .with_columns((count * count.log()).alias(_CELL_LOG))
    )
    return cells.group_by(quasi_identifiers).agg(
        total.alias(SIZE),
        pl.len().cast(pl.Int64).alias(DISTINCT_L),
        # The entropy, the sum of -n/N log(n/N), is log N - (sum of n log n) / N.
        (total.log() - pl.col(_CELL_LOG).sum() / total).exp().alias(ENTROPY_L),
        # A division by zero is infinite, which no c exceeds.
        (count.max() / (total - _sum_largest(count, recursive_l - 1))).alias(RECURSIVE_C),
    )


def _sum_largest(count: pl.Expr, number: int) -> pl.Expr:
    match number:
        case 0:
            return pl.lit(0)
        case 1:
            return count.max()
        case _:
            return count.top_k(number).sum()


def is_diverse(demand: RiskDemand) -> pl.Expr:
    """Return whether a class of ``measure_diversity`` is as diverse as demanded."""
    if demand.l is None:
        return pl.lit(value=True)
    match demand.diversity:
        case "distinct":
            return pl.col(DISTINCT_L) >= demand.least_diversity
        case "entropy":
            return pl.col(ENTROPY_L) >= demand.least_diversity
        case "recursive":
            return pl.col(RECURSIVE_C) < demand.c
