"""Tables of a release from columns that a loader has named as the tables name theirs."""

from __future__ import annotations

import polars as pl

from cohortflow.terminology.tables import TABLES

__all__ = ["NO_DATE", "NO_TEXT", "make_table", "parse_date"]

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


def parse_date(column: str) -> pl.Expr:
    """Return a column of dates like ``20260131`` or ``2026-01-31`` as dates."""
    return pl.col(column).str.replace_all("-", "", literal=True).str.to_date("%Y%m%d")
