"""Keyed hashes of whole columns, under sub-keys that stay out of query plans.

A native HMAC expression carries the key as an argument, and serialising a plan would write it out. Inside a
function of the plan it is not shown, and the project key refuses to be pickled. All keyed columns of a
table are computed by one such function: a call per column would cost more than the hashing, since batches
may have a few hundred rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import polars as pl
import polars_hash

from cohortflow.redaction.keys import PSEUDONYM_DIGITS, SHIFT_DIGITS, WEEK_DAYS, ProjectKey

__all__ = ["KeyedColumn", "add_keyed_columns", "days_column", "fraction_column", "pseudonym_column"]

_LARGE: Final = 10_000
_REPEATS: Final = 2
"""Rows of a batch, and rows per distinct value, from which hashing the distinct values costs less."""


@dataclass(frozen=True, slots=True)
class KeyedColumn:
    """A column to compute from another one and the key.

    Attributes:
        source: Text column that is hashed; null stays null.
        name: The new column.
        dtype: Its type.
        subkey: The sub-key of the purpose.
        finish: What becomes of the digest, which is hexadecimal.
    """

    source: str
    name: str
    dtype: pl.DataType
    subkey: Callable[[ProjectKey], str]
    finish: Callable[[pl.Expr], pl.Expr]

    def compute(self, key: ProjectKey) -> pl.Expr:
        """Return the expression; it holds the sub-key and must not get into a plan."""
        digest = polars_hash.col(self.source).chash.hmac_sha256(key=self.subkey(key))
        return self.finish(digest).cast(self.dtype).alias(self.name)


class _AddColumns:
    """Adds keyed columns to a batch; the key is not shown with it."""

    __slots__ = ("_columns", "_key")

    def __init__(self, columns: Sequence[KeyedColumn], key: ProjectKey) -> None:
        self._columns = sorted(columns, key=lambda column: column.source)
        self._key = key

    def __call__(self, frame: pl.DataFrame) -> pl.DataFrame:
        expressions = [column.compute(self._key) for column in self._columns]
        if frame.height < _LARGE:
            return frame.with_columns(expressions)
        names = frame.columns
        for source, columns in groupby(self._columns, key=lambda column: column.source):
            computed = [column.compute(self._key) for column in columns]
            values = int(frame.select(pl.col(source).approx_n_unique()).item())
            # Ids of patients and encounters repeat; those of the rows themselves do not.
            if values * _REPEATS <= frame.height:
                distinct = frame.select(pl.col(source).unique()).with_columns(computed)
                frame = frame.join(distinct, on=source, how="left", nulls_equal=True, maintain_order="left")
            else:
                frame = frame.with_columns(computed)
        return frame.select(*names, *(column.name for column in self._columns))


def add_keyed_columns(frame: pl.LazyFrame, columns: Sequence[KeyedColumn], key: ProjectKey) -> pl.LazyFrame:
    """Add columns that are computed with the key; row order is kept."""
    if not columns:
        return frame
    ordered = sorted(columns, key=lambda column: column.source)
    schema = dict(frame.collect_schema()) | {column.name: column.dtype for column in ordered}
    return frame.map_batches(
        _AddColumns(columns, key),
        schema=schema,
        streamable=True,
        predicate_pushdown=False,
        projection_pushdown=False,
        slice_pushdown=False,
    )


def pseudonym_column(source: str, name: str, kind: str) -> KeyedColumn:
    """Return the pseudonyms of ids of one kind."""
    return KeyedColumn(
        source,
        name,
        pl.String(),
        lambda key: key.pseudonym_key(kind),
        lambda digest: digest.str.head(PSEUDONYM_DIGITS),
    )


def days_column(source: str, name: str, window: int, *, weeks: bool) -> KeyedColumn:
    """Return the days by which each row's patient is shifted; null where the row names none."""
    unit = WEEK_DAYS if weeks else 1
    steps = window // unit

    def draw(digest: pl.Expr) -> pl.Expr:
        drawn = digest.str.head(SHIFT_DIGITS).str.to_integer(base=16, dtype=pl.Int64) % (2 * steps) - steps
        return unit * pl.when(drawn < 0).then(drawn).otherwise(drawn + 1)

    return KeyedColumn(source, name, pl.Int64(), ProjectKey.shift_key, draw)


def fraction_column(source: str, name: str, purpose: str) -> KeyedColumn:
    """Return for each seed a number in [-1, 1) that looks random without the key.

    Args:
        source: The seeds.
        name: The new column.
        purpose: What the numbers are for, such as a column's name: others have other numbers.
    """

    def draw(digest: pl.Expr) -> pl.Expr:
        drawn = digest.str.head(SHIFT_DIGITS).str.to_integer(base=16, dtype=pl.Int64)
        return drawn.cast(pl.Float64) * (2 / 16**SHIFT_DIGITS) - 1

    return KeyedColumn(source, name, pl.Float64(), lambda key: key.noise_key(purpose), draw)
