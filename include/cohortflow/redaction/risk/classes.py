"""Equivalence classes: the subjects who share all of their quasi-identifiers.

The table has one row per subject. A missing value is a value like any other, so subjects without a
recorded value share a class with each other and with nobody else: that is never too favourable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from cohortflow.errors import PolicyError

__all__ = ["CLASS", "SIZE", "check_columns", "count_classes", "number_classes"]

CLASS: Final = "cohortflow:class"
"""Column with the number of a class; no view can give a column this name."""

SIZE: Final = "class_size"
"""Column with the number of subjects of a class."""


def count_classes(subjects: pl.LazyFrame, quasi_identifiers: Sequence[str]) -> pl.LazyFrame:
    """Return one row per class: its quasi-identifiers, and ``class_size: i64``.

    The smallest size is the k of k-anonymity: L. Sweeney, "k-anonymity: a model for protecting privacy",
    Int. J. Uncertainty, Fuzziness and Knowledge-Based Systems 10(5), 2002.

    Args:
        subjects: One row per subject.
        quasi_identifiers: Columns that others may know of a subject.

    Raises:
        PolicyError: There is no quasi-identifier, or the table lacks one.
    """
    check_columns(subjects, quasi_identifiers)
    return subjects.group_by(quasi_identifiers).agg(pl.len().cast(pl.Int64).alias(SIZE))


def number_classes(
    subjects: pl.LazyFrame, quasi_identifiers: Sequence[str], kept: Sequence[str]
) -> pl.LazyFrame:
    """Return ``CLASS``, a number per class, and the kept columns: the same classes by one narrow key.

    Which class has which number is not defined.
    """
    check_columns(subjects, quasi_identifiers, *kept)
    numbers = subjects.select(quasi_identifiers).unique().with_row_index(CLASS)
    return subjects.join(numbers, on=list(quasi_identifiers), nulls_equal=True, how="left").select(
        CLASS, *kept
    )


def check_columns(subjects: pl.LazyFrame, quasi_identifiers: Sequence[str], *others: str) -> None:
    """Check that there are quasi-identifiers and that the table has all columns.

    Raises:
        PolicyError: It is not so.
    """
    if not quasi_identifiers:
        raise PolicyError("There is no quasi-identifier.", remedy="Declare at least one.")
    schema = subjects.collect_schema()
    missing = sorted(name for name in {*quasi_identifiers, *others} if name not in schema)
    if missing:
        raise PolicyError(
            f"The table of subjects lacks {', '.join(missing)}.",
            remedy="Declare columns that the published datasets have.",
        )
