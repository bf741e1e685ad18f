"""Tables of a release from columns that a loader has named as the tables name theirs."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from cohortflow.terminology.tables import TABLES

__all__ = [
    "NO_DATE",
    "NO_TEXT",
    "make_table",
    "only_successors",
    "parse_date",
    "place_targets",
    "unique_terms",
]

NO_TEXT = pl.lit(None, pl.String)
NO_DATE = pl.lit(None, pl.Date)


def make_table(name: str, rows: pl.LazyFrame, **constants: str) -> pl.LazyFrame:
    """Return the rows as a table of `TABLES`.

    Args:
        name: Of the table.
        rows: They have every column of the table that is not given as a constant.
        constants: Values of columns that are the same in all rows, such as ``system``.
    """
    schema = TABLES[name]
    values = [pl.lit(value).alias(column) for column, value in constants.items()]
    return rows.with_columns(values).select(pl.col(column).cast(dtype) for column, dtype in schema.items())


def unique_terms(terms: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    """Return ``code``, ``term``, ``kind`` with each term of a concept once: the first one tells its kind."""
    return pl.concat(terms).unique(["code", "term"], keep="first", maintain_order=True)


def only_successors(rows: pl.LazyFrame, *, code: str, successor: str) -> pl.LazyFrame:
    """Return ``code`` and ``replaced_by`` of the concepts that have one successor and no other.

    Args:
        rows: One for each successor of a concept.
        code: Column of the concept.
        successor: Column of the successor.
    """
    return (
        rows.group_by(pl.col(code).alias("code"))
        .agg(pl.col(successor).unique().alias("successors"))
        .filter(pl.col("successors").list.len() == 1)
        .select("code", replaced_by=pl.col("successors").list.first())
    )


def place_targets(*source: str) -> dict[str, pl.Expr]:
    """Return ``group``, ``priority`` and ``rule`` of a map without rules: targets count as they stand.

    Args:
        source: Columns that tell the sources apart.
    """
    return {
        "group": pl.lit(1, pl.UInt16),
        "priority": pl.int_range(1, pl.len() + 1, dtype=pl.UInt16).over(source),
        "rule": NO_TEXT,
    }


def parse_date(column: str) -> pl.Expr:
    """Return a column of dates like ``20260131`` or ``2026-01-31`` as dates."""
    return pl.col(column).str.replace_all("-", "", literal=True).str.to_date("%Y%m%d")
