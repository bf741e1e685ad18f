"""t-closeness: how far the sensitive values of a class are from those of all subjects.

N. Li, T. Li, S. Venkatasubramanian, "t-closeness: privacy beyond k-anonymity and l-diversity", IEEE 23rd
Int. Conf. on Data Engineering, 2007. The distance is the earth mover's distance: between categories, all
of which are equally far apart, it is half the sum of the differences (section 4.2, the variational
distance); between numbers it is the mean difference of the cumulated shares over the ordered values
(section 4.1, the ordered distance).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from cohortflow.redaction.risk.classes import SIZE, check_columns

__all__ = ["DISTANCE", "measure_closeness"]

DISTANCE: Final = "distance"
"""Column with the distance of a class, from 0 (as in all subjects) to 1."""

_CELL: Final = "cohortflow:cell"
_SHARE: Final = "cohortflow:share"


def measure_closeness(
    subjects: pl.LazyFrame, quasi_identifiers: Sequence[str], sensitive: str
) -> pl.LazyFrame:
    """Return one row per class: its quasi-identifiers, ``class_size`` and ``distance: f64``.

    The largest distance is the t of t-closeness. Numbers and dates are ordered, with missing ones before
    all others; everything else is a category. Only values that occur are compared, so the work does not
    grow with classes times values.

    Args:
        subjects: One row per subject.
        quasi_identifiers: Columns that others may know of a subject.
        sensitive: Column that they must not learn.

    Raises:
        PolicyError: The table lacks a column.
    """
    check_columns(subjects, quasi_identifiers, sensitive)
    cells = (
        subjects.group_by([*quasi_identifiers, sensitive])
        .agg(pl.len().cast(pl.Int64).alias(_CELL))
        .with_columns(pl.col(_CELL).sum().over(quasi_identifiers).alias(SIZE))
    )
    values = subjects.group_by(sensitive).agg(pl.len().cast(pl.Int64).alias(_SHARE))
    values = values.with_columns(pl.col(_SHARE) / pl.col(_SHARE).sum())
    kind = subjects.collect_schema()[sensitive]
    compare = _compare_ordered if kind.is_numeric() or kind.is_temporal() else _compare_categories
    return compare(cells, values, list(quasi_identifiers), sensitive)


def _compare_categories(
    cells: pl.LazyFrame, values: pl.LazyFrame, quasi_identifiers: list[str], sensitive: str
) -> pl.LazyFrame:
    overall = pl.col(_SHARE)
    # Values that a class lacks differ by their overall share: together, by what the others leave.
    differing = (pl.col(_CELL) / pl.col(SIZE) - overall).abs().sum() + (1 - overall.sum())
    return (
        cells.join(values, on=sensitive, nulls_equal=True)
        .group_by(quasi_identifiers)
        .agg(pl.col(SIZE).first(), (differing / 2).clip(0, 1).alias(DISTANCE))
    )


def _compare_ordered(
    cells: pl.LazyFrame, values: pl.LazyFrame, quasi_identifiers: list[str], sensitive: str
) -> pl.LazyFrame:
    """Sum |Q - P| over all values, where Q and P are the cumulated shares of the class and of everybody.

    Q is constant from one value of the class to its next. P grows, so in each such stretch it lies below
    Q up to a crossing and above it afterwards, and sums of P from the first value on give both parts.
    """
    position, total, length = "cohortflow:position", "cohortflow:total", "cohortflow:length"
    below, before = "cohortflow:below", "cohortflow:before"
    values = (
        values.sort(sensitive, nulls_last=False)
        .with_columns(pl.col(_SHARE).cum_sum().alias(below))
        .with_columns(
            (pl.col(below).cum_sum() - pl.col(below)).alias(before),  # sum of P over the earlier values
            pl.int_range(pl.len(), dtype=pl.Int64).alias(position),
            pl.len().cast(pl.Int64).alias(length),
            pl.col(below).sum().alias(total),
        )
    )
    crossings = values.select(
        below,
        (pl.col(position) + 1).alias("cohortflow:crossing"),
        (pl.col(before) + pl.col(below)).alias("cohortflow:at_crossing"),
    ).sort(below)
    own = "cohortflow:own"
    stretches = (
        cells.join(values.drop(below, _SHARE), on=sensitive, nulls_equal=True)
        .sort(position)
        .with_columns(
            (pl.col(_CELL).cum_sum().over(quasi_identifiers) / pl.col(SIZE)).alias(own),
            pl.col(position).shift(-1).over(quasi_identifiers).fill_null(pl.col(length)).alias("end"),
            pl.col(before).shift(-1).over(quasi_identifiers).fill_null(pl.col(total)).alias("at_end"),
        )
        .sort(own)
        .join_asof(crossings, left_on=own, right_on=below, strategy="backward", coalesce=False)
        .with_columns(
            pl.col("cohortflow:crossing").fill_null(0).alias("crossing"),
            pl.col("cohortflow:at_crossing").fill_null(0.0).alias("at_crossing"),
        )
    )
    start, end, crossing = pl.col(position), pl.col("end"), pl.col("crossing")
    at_start, at_end, at_crossing, q = (
        pl.col(before),
        pl.col("at_end"),
        pl.col("at_crossing"),
        pl.col(own),
    )
    distance = (
        pl.when(crossing <= start)
        .then(at_end - at_start - q * (end - start))
        .when(crossing >= end)
        .then(q * (end - start) - (at_end - at_start))
        .otherwise(
            q * (crossing - start) - (at_crossing - at_start) + (at_end - at_crossing) - q * (end - crossing)
        )
    )
    # Before the first value of the class Q is 0, and |Q - P| is P.
    summed = distance.sum() + at_start.min()
    steps = pl.col(length).first() - 1
    return stretches.group_by(quasi_identifiers).agg(
        pl.col(SIZE).first(),
        pl.when(steps > 0).then((summed / steps).clip(0, 1)).otherwise(0.0).alias(DISTANCE),
    )
