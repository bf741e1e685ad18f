"""Code systems and codes in their canonical spelling, for columns of any length.

The twins of `systems.canonical_system` and `systems.canonical_code`. A column holds few distinct codes, and
spelling one takes a dozen string operations: they run once for each distinct value of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from cohortflow.terminology.systems import (
    ALIASES,
    BARE_OID,
    DOTTED_CODE,
    KEY_STEPS,
    SHORT_NAME,
    STANDARD_SYSTEMS,
    segment_pattern,
)

__all__ = ["code_expr", "over_distinct", "spell", "system_expr", "well_formed_expr"]


def system_expr(system: pl.Expr) -> pl.Expr:
    """Return the canonical URI of each system; null and blank are null."""
    return over_distinct([system], lambda values: values.select(_spell_system()), pl.String())


def code_expr(system: pl.Expr, code: pl.Expr) -> pl.Expr:
    """Return the canonical spelling of each code; null and blank are null.

    Args:
        system: Canonical URIs, as ``system_expr`` gives them.
        code: Codes as the source wrote them.
    """
    return over_distinct([system, code], lambda values: values.select(_spell_code()), pl.String())


def spell(values: pl.DataFrame) -> pl.DataFrame:
    """Bring the columns ``system`` and ``code`` of a table into canonical spelling."""
    return values.with_columns(_spell_system()).with_columns(_spell_code())


def well_formed_expr(system: pl.Expr, code: pl.Expr) -> pl.Expr:
    """Return whether each canonical code has the syntax of its published system; false for other systems.

    A hospital's text or number under a published system's name is told from a code by this. It is meant for
    tables of distinct codes.
    """
    checks = [
        (system == known.uri) & code.str.contains(f"^(?:{known.syntax})$")
        for known in STANDARD_SYSTEMS.values()
        if known.syntax
    ]
    return pl.any_horizontal(checks).fill_null(value=False)


def over_distinct(
    inputs: Sequence[pl.Expr], function: Callable[[pl.DataFrame], pl.DataFrame], dtype: pl.DataType
) -> pl.Expr:
    """Apply a function to the distinct values of its inputs, batch by batch.

    Args:
        inputs: System, or system and code, as text.
        function: Takes a table of distinct values with the columns ``system`` and ``code``, and returns a
            table of one column and as many rows.
        dtype: Of the result.
    """
    names = ["system", "code"][: len(inputs)]

    def apply(batch: pl.Series) -> pl.Series:
        values = batch.struct.unnest()
        distinct = values.unique()
        result = function(distinct).to_series().alias("result")
        return values.join(
            distinct.with_columns(result), on=names, how="left", nulls_equal=True, maintain_order="left"
        )["result"].cast(dtype)

    columns = [value.cast(pl.String).alias(name) for name, value in zip(names, inputs, strict=True)]
    return pl.struct(columns).map_batches(apply, return_dtype=dtype, is_elementwise=True)


def _spell_system() -> pl.Expr:
    text = _blank_to_null(pl.col("system"))
    key = text.str.to_lowercase()
    for pattern, replacement in KEY_STEPS:
        key = key.str.replace(pattern, replacement)
    key = pl.when(key.str.contains(SHORT_NAME)).then(key.str.replace_all(r"[ _\-]", "")).otherwise(key)
    known = key.replace_strict(ALIASES, default=None, return_dtype=pl.String)
    stripped = _blank_to_null(text.str.replace(r"\|.*$", ""))
    unknown = (
        pl.when(stripped.str.contains(BARE_OID))
        .then(pl.concat_str(pl.lit("urn:oid:"), stripped))
        .otherwise(stripped)
    )
    return pl.coalesce(known, unknown).alias("system")


def _spell_code() -> pl.Expr:
    text = _blank_to_null(pl.col("code"))
    result = text
    for known in STANDARD_SYSTEMS.values():
        spelling = text.str.to_uppercase() if known.uppercase else text
        if known.dotted:
            dotted = spelling.str.replace_all(".", "", literal=True).str.replace(r"^(.{3})(.+)$", "${1}.${2}")
            spelling = pl.when(spelling.str.contains(f"^(?:{DOTTED_CODE})$")).then(dotted).otherwise(spelling)
        if known.segments:
            pattern = f"^{segment_pattern(known)}$"
            parts = [
                spelling.str.extract(pattern, index).str.zfill(digits)
                for index, digits in enumerate(known.segments, start=1)
            ]
            spelling = pl.coalesce(pl.concat_str(parts), spelling)
        if known.digits:
            spelling = spelling.str.zfill(known.digits)
        if spelling is not text:
            result = pl.when(pl.col("system") == known.uri).then(spelling).otherwise(result)
    return result.alias("code")


def _blank_to_null(text: pl.Expr) -> pl.Expr:
    stripped = text.str.strip_chars()
    return pl.when(stripped != "").then(stripped)
