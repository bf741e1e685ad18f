"""One pass over a redacted table, in batches: what breaks its form, and which values there are to search."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from cohortflow.redaction.leaks.columns import ColumnCheck

__all__ = ["PSEUDONYMS", "Batch", "as_text", "inner_type", "sweep_table"]

PSEUDONYMS: Final = pl.Schema({"value": pl.String(), "len": pl.UInt32()})
"""Schema of pseudonyms: each with the number of its cells."""

_ROWS_AT_ONCE: Final = 100_000
_WHOLE_NUMBER: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch of a table's rows holds.

    Attributes:
        rows: How many.
        broken: By column and rule, how many cells have not the form that redaction gives them.
        texts: By column that is searched, its different values as text; of numbers, those with seven digits
            or more.
        pseudonyms: By column, what is to be looked at as pseudonyms: rows with ``PSEUDONYMS``.
    """

    rows: int
    broken: dict[tuple[str, str], int]
    texts: dict[str, pl.Series]
    pseudonyms: dict[str, pl.DataFrame]


def sweep_table(
    frame: pl.LazyFrame, checks: Sequence[ColumnCheck], pseudonyms: Collection[str]
) -> Iterator[Batch]:
    """Yield a table in batches, in no order; each column is read once, whatever is asked of it.

    Args:
        frame: The table.
        checks: How each of its columns is checked.
        pseudonyms: Columns whose values are to be looked at as pseudonyms: their form is not counted here,
            unless they are the rows' own keys.
    """
    schema = frame.collect_schema()
    forms = {
        (check.name, str(rule)): broken.sum()
        for check in checks
        for rule, broken in check.forms
        if check.key or not check.pseudonyms
    }
    texts = {check.name: _distinct(check.name, schema[check.name]) for check in checks if check.searched}
    names = {check.name: _pseudonyms(check) for check in checks if check.name in pseudonyms}
    # A form may be judged by other columns of the row.
    judged = (name for broken in forms.values() for name in broken.meta.root_names())
    wanted = list(dict.fromkeys([*judged, *texts, *names])) or schema.names()[:1]
    plan = [
        *(count.alias(f"form {number}") for number, count in enumerate(forms.values())),
        *(values.alias(f"text {name}") for name, values in texts.items()),
        *(values.alias(f"name {name}") for name, values in names.items()),
    ]
    batches = frame.select(wanted).collect_batches(
        chunk_size=_ROWS_AT_ONCE, maintain_order=False, engine="streaming"
    )
    for batch in batches:
        found = batch.select(pl.len().alias("rows"), *plan)
        yield Batch(
            rows=int(found["rows"].item()),
            broken={place: int(found[f"form {n}"].item() or 0) for n, place in enumerate(forms)},
            texts={name: found[f"text {name}"].item() for name in texts},
            pseudonyms={
                name: found[f"name {name}"].item().struct.unnest().cast(dict(PSEUDONYMS)) for name in names
            },
        )


def _distinct(column: str, dtype: pl.DataType) -> pl.Expr:
    value = pl.col(column)
    if dtype.is_numeric():
        large = value.abs() >= _WHOLE_NUMBER
        value = value.filter(large if dtype.is_integer() else large & (value == value.round()))
    value = value.drop_nulls()
    if isinstance(dtype, pl.List | pl.Array):
        value = value.explode().drop_nulls()
    return as_text(value.unique(), inner_type(dtype)).drop_nulls().implode()


def _pseudonyms(check: ColumnCheck) -> pl.Expr:
    value = pl.col(check.name).cast(pl.String, strict=False).drop_nulls()
    if check.key:  # each different
        one = pl.lit(1, dtype=pl.UInt32)
        return pl.struct(value.alias("value"), one.alias("len")).implode()
    return value.alias("value").value_counts(name="len").implode()


def inner_type(dtype: pl.DataType) -> pl.DataType:
    """Return the type of a column's values, of a list's those within."""
    return dtype.inner if isinstance(dtype, pl.List | pl.Array) else dtype  # type: ignore[return-value]


def as_text(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return values as the text in which they are searched."""
    if isinstance(dtype, pl.Struct):
        return value.struct.json_encode()
    if dtype.is_numeric() and not dtype.is_integer():
        return value.cast(pl.Int64, strict=False).cast(pl.String)
    return value.cast(pl.String, strict=False)
