"""What the columns of an unknown table hold: counts by column and pattern, never values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import polars as pl

from cohortflow.patterns.library import PatternLibrary
from cohortflow.patterns.pattern import Pattern

__all__ = ["SCAN_SCHEMA", "Suggestion", "has_context", "scan_table", "suggest_contents"]

SCAN_SCHEMA: Final = pl.Schema(
    {
        "column": pl.String(),
        "pattern": pl.String(),
        "values": pl.Int64(),
        "whole": pl.Int64(),
        "inside": pl.Int64(),
    }
)
"""One row per column and pattern with a hit: values that are not null, those of them that are one as a whole,
and those that contain one."""

_BATCH: Final = 100_000
_MIN_SHARE: Final = 0.9
_MIN_TELLING: Final = 0.5


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a column seems to hold.

    Attributes:
        column: Name of the column.
        pattern: Name of the pattern.
        share: Share of its values that are one as a whole.
        values: Values that are not null.
        named: Whether the column's name has a context word of the pattern.
    """

    column: str
    pattern: str
    share: float
    values: int
    named: bool


def scan_table(frame: pl.LazyFrame, library: PatternLibrary) -> pl.DataFrame:
    """Count in every column the values that match, and those that contain, each pattern.

    Text and whole numbers are looked at; numbers as they are written, so that leading zeros are lost. What is
    nested is looked at too, each field by its path, such as ``code.coding.display``, and each item of a list.
    The table is read in batches, and each distinct value of a batch is tried once.

    Returns:
        Rows of ``SCAN_SCHEMA``, by column in the table's order and then by pattern.
    """
    leaves = {
        path: leaf
        for name, dtype in frame.collect_schema().items()
        for path, leaf in _find_leaves(name, pl.col(name), dtype)
    }
    names = list(leaves)
    values: Counter[str] = Counter()
    whole: Counter[tuple[str, str]] = Counter()
    inside: Counter[tuple[str, str]] = Counter()
    columns = sorted({root for leaf in leaves.values() for root in leaf.meta.root_names()})
    for batch in _read_batches(frame.select(columns), names):
        for name, leaf in leaves.items():
            counts = batch.select(value=leaf.cast(pl.String)).drop_nulls().group_by("value").len("n")
            values[name] += int(counts["n"].sum())
            for pattern, matched, found in _count(counts, library):
                whole[name, pattern] += matched
                inside[name, pattern] += found
    rows = [
        (name, pattern.name, values[name], whole[name, pattern.name], inside[name, pattern.name])
        for name in names
        for pattern in library
        if whole[name, pattern.name] or inside[name, pattern.name]
    ]
    return pl.DataFrame(rows, schema=SCAN_SCHEMA, orient="row")


def suggest_contents(
    counts: pl.DataFrame, library: PatternLibrary, *, min_share: float = _MIN_SHARE
) -> list[Suggestion]:
    """Suggest what each column holds.

    A form that is not telling by itself (five digits may be a ZIP code or a platelet count) is suggested only
    for a column whose name has a context word; for others, half of the values must be telling.

    Args:
        counts: As ``scan_table`` returns them.
        library: The patterns that were counted.
        min_share: Share of the values that must be one as a whole.

    Returns:
        Best first for each column, columns in the order of the counts; nothing for a column that no pattern
        fits.
    """
    found: dict[str, list[tuple[tuple[bool, bool, float], Suggestion]]] = {}
    for column, name, values, whole, inside in counts.iter_rows():  # a row per column and pattern
        pattern = library[name]
        named = has_context(column, pattern)
        share = whole / values if values else 0.0
        if share < min_share or not (named or inside >= values * _MIN_TELLING):
            continue
        rank = (named, pattern.definition.check is not None, share)
        found.setdefault(column, []).append((rank, Suggestion(column, name, share, values, named)))
    return [
        suggestion
        for ranked in found.values()
        for _, suggestion in sorted(ranked, key=lambda item: item[0], reverse=True)
    ]


def has_context(column: str, pattern: Pattern) -> bool:
    """Return whether a column's name has a context word of a pattern, or the pattern's own name."""
    spelled = " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_]+", column)).lower()
    words = [pattern.name.replace("_", " "), *pattern.definition.context]
    padded = f" {spelled} "
    return any(f" {re.sub(r'[ _-]+', ' ', word.lower())} " in padded for word in words)


def _find_leaves(path: str, values: pl.Expr, dtype: pl.DataType) -> Iterator[tuple[str, pl.Expr]]:
    """Yield the texts and whole numbers of a column, by their paths; items of lists one below another."""
    if isinstance(dtype, pl.Struct):
        for field in dtype.fields:
            inner = field.dtype if isinstance(field.dtype, pl.DataType) else field.dtype()
            yield from _find_leaves(f"{path}.{field.name}", values.struct.field(field.name), inner)
    elif isinstance(dtype, pl.List | pl.Array):
        inner = dtype.inner if isinstance(dtype.inner, pl.DataType) else dtype.inner()
        yield from _find_leaves(path, values.explode(), inner)
    elif isinstance(dtype, pl.String | pl.Categorical | pl.Enum) or dtype.is_integer():
        yield path, values


def _read_batches(frame: pl.LazyFrame, names: list[str]) -> Iterator[pl.DataFrame]:
    if names:
        yield from frame.collect_batches(chunk_size=_BATCH, maintain_order=False)


def _count(counts: pl.DataFrame, library: PatternLibrary) -> Iterator[tuple[str, int, int]]:
    """Yield each pattern's name with the rows that are one as a whole, and those that contain one."""
    if not len(library):
        return
    value, rows = pl.col("value"), pl.col("n")
    # Most values are none and most texts hold none: one pass tells, and spares them the pass of each pattern.
    wholes = counts.filter(value.str.contains("|".join(pattern.whole_regex for pattern in library)))
    matched = wholes.select(_sums(rows, library, lambda pattern: pattern.matches(value))).row(0, named=True)
    possible = counts.filter(library.may_occur_in(value))
    found = possible.select(_sums(rows, library, lambda pattern: pattern.occurs_in(value))).row(0, named=True)
    for pattern in library:
        yield pattern.name, int(matched[pattern.name]), int(found[pattern.name])


def _sums(rows: pl.Expr, library: PatternLibrary, condition: Callable[[Pattern], pl.Expr]) -> list[pl.Expr]:
    return [rows.filter(condition(pattern)).sum().alias(pattern.name) for pattern in library]
