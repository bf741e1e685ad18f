"""Decimals by the digits they are written with: ``1.50`` is more precise than ``1.5``.

JSON parsers turn both into one number. Where a view needs the digits, each decimal gets a twin in the text of
the line before that is parsed: ``"value":1.50`` becomes ``"value":1.50,"value#digits":"1.50"``. Views that do
not need digits pay nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

import polars as pl

from cohortflow.fhir.views.reads import DIGITS

__all__ = ["add_digits", "bound_decimal"]

_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_WHOLE = pl.Int128()

Texts = TypeVar("Texts", pl.Series, pl.Expr)


def add_digits(texts: Texts, keys: Iterable[str]) -> Texts:
    """Give numbers a twin that holds their digits as text.

    A quote within a JSON text is escaped, so what looks like a key with a colon is one; a line that is not
    JSON does not become JSON.

    Args:
        texts: JSON texts, or the expression of them.
        keys: Keys whose numbers get a twin.
    """
    names = "|".join(re.escape(key) for key in keys)
    if not names:
        return texts
    pattern = rf'"({names})"(\s*:\s*)({_NUMBER})'
    return texts.str.replace_all(pattern, f'"${{1}}"${{2}}${{3}},"${{1}}{DIGITS}":"${{3}}"')


def bound_decimal(text: pl.Expr, *, high: bool, precision: int | None) -> pl.Expr:
    """Return the least or greatest number that the digits of a decimal may stand for.

    ``1.50`` stands for 1.495 to 1.505. Source: FHIRPath (STU), ``lowBoundary`` and ``highBoundary``.

    Args:
        text: The digits, with a sign, a point and an exponent where there are.
        high: Whether the greatest is wanted.
        precision: Digits behind the point to round to: down for the least, up for the greatest.

    Returns:
        Float64; null for more digits than 128 bits hold.
    """
    fraction = text.str.extract(r"\.([0-9]+)").fill_null("")
    exponent = text.str.extract(r"[eE]([+-]?[0-9]+)").cast(pl.Int64).fill_null(0)
    digits = text.str.extract(r"^([+-]?[0-9]+)") + fraction
    scale = fraction.str.len_bytes().cast(pl.Int64) - exponent + 1
    # Half a unit of the last digit, in units of one digit more.
    half = pl.lit(5 if high else -5, dtype=_WHOLE)
    found = digits.cast(_WHOLE, strict=False) * pl.lit(10, dtype=_WHOLE) + half
    if precision is not None:
        rounded = _round(found, scale - precision, high=high)
        found = pl.when(scale > precision).then(rounded).otherwise(found)
        scale = pl.when(scale > precision).then(pl.lit(precision, dtype=pl.Int64)).otherwise(scale)
    # Read as a text, the number is the nearest one that a float can hold.
    number = (found.cast(pl.String) + "e" + (-scale).cast(pl.String)).cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def _round(number: pl.Expr, places: pl.Expr, *, high: bool) -> pl.Expr:
    """Drop digits from the end, away from zero where that is the way to go; the last one is never 0."""
    size = number.abs().cast(pl.String)
    left = size.str.len_bytes().cast(pl.Int64) - places
    kept = pl.when(left > 0).then(size.str.slice(0, left.clip(lower_bound=0))).otherwise(pl.lit("0"))
    whole = kept.cast(_WHOLE)
    one, zero = pl.lit(1, dtype=_WHOLE), pl.lit(0, dtype=_WHOLE)
    if high:
        return pl.when(number > zero).then(whole + one).otherwise(zero - whole)
    return pl.when(number < zero).then(zero - whole - one).otherwise(whole)
