"""What a find means where it stands."""

from __future__ import annotations

from typing import Final

import polars as pl

from cohortflow.redaction.leaks.terms import TermRule

__all__ = ["CONTEXT", "judge_candidates"]

CONTEXT: Final = ("codes", "place", "derived", "overridden", "uris", "dates", "geography")
"""Attributes of ``ColumnCheck`` that decide."""

_DATES: Final = r"^pattern (date_\w+|age_over_89)$"
_IN_URIS: Final = r"^pattern (url|date_\w+|ipv4|ipv6)$"
_IN_CODES: Final = r"^pattern (url|ipv4|ipv6|zip_code)$"


def judge_candidates(found: pl.DataFrame, code_like: pl.Expr) -> pl.DataFrame:
    """Leave out what is no leak where it stands, and say of the rest whether that is certain.

    Args:
        found: Rows with ``FOUND``, the value, its table and column, the flags of ``CONTEXT``.
        code_like: Whether the value is a code whose check digit holds.

    Returns:
        The rows that are left, with ``certain``: the others are leaks where the row is of the owner.
    """
    rule = pl.col("rule")
    by_pattern = pl.col("term").is_null()
    digits = pl.col("term").str.contains(r"^[\d ]+$").fill_null(value=False)
    allowed = (
        (_is(TermRule.NAME) & (pl.col("place") | pl.col("derived")))
        | (_is(TermRule.ORGANIZATION, TermRule.PLACE) & pl.col("place"))
        | (_is(TermRule.PLACE) & pl.col("geography"))
        | (_is(TermRule.BIRTH_DATE) & (pl.col("dates") | pl.col("derived")))
        | (_is(TermRule.LOCAL_TEXT) & (~pl.col("whole") | pl.col("derived") | pl.col("overridden")))
        # A map's version is often a date, and newborns have the same.
        | (rule.str.contains(_DATES) & (pl.col("dates") | pl.col("derived")))
        | ((rule == "pattern zip_code") & pl.col("geography"))
        | (rule.str.contains(_IN_URIS) & pl.col("uris"))
        | (rule.str.contains(_IN_CODES) & pl.col("codes"))
    )
    in_codes = pl.col("codes") & (digits | pl.col("weak"))
    alone = ~pl.col("codes") & pl.col("weak") & ~pl.col("whole")
    # Nine digits without a code's check digit are no code.
    no_code = digits & ~pl.col("weak") & ~code_like
    certain = by_pattern | no_code | ~(in_codes | alone)
    return found.filter(~allowed).with_columns(certain.alias("certain"))


def _is(*rules: TermRule) -> pl.Expr:
    return pl.col("rule").is_in([rule.value for rule in rules])
