"""``=``, ``~`` and ``<`` on Polars expressions: of single values, of times by their precision, and of lists.

Source: FHIRPath 2.0.0, sections 6.1 and 6.2.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import polars as pl

from cohortflow.fhir.views.dates import span_of
from cohortflow.fhir.views.types import Kind

__all__ = ["compare", "compare_lists"]

Span = tuple[pl.Expr, pl.Expr]
Test = Callable[[pl.Expr, pl.Expr], pl.Expr]

_FALSE, _TRUE = pl.lit(value=False), pl.lit(value=True)
_ONE_LEVEL = {"empty_as_null": False, "keep_nulls": False}
_OPERATORS: dict[str, Test] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# Digits of a float that are trusted when it is rounded.
_GUARD = 6


def compare(name: str, left: pl.Expr, right: pl.Expr, kind: Kind) -> pl.Expr:
    """Compare two single values of one kind; except for ``~``, the result is empty if one is."""
    if name == "~":
        same = _equivalent(left, right, kind).fill_null(value=False)
        return (
            pl.when(left.is_null() | right.is_null()).then(left.is_null() & right.is_null()).otherwise(same)
        )
    if kind in {"date", "time"}:
        return _compare_spans(name, span_of(left, kind), span_of(right, kind))
    return _OPERATORS[name](left, right)


def _compare_spans(name: str, left: Span, right: Span) -> pl.Expr:
    """Compare two spans of time; empty where their precision leaves it open."""
    (low, high), (other_low, other_high) = left, right
    before, after = high < other_low, low > other_high
    same = (low == other_low) & (high == other_high)
    if name in {"=", "!="}:
        true, false = same, before | after
        if name == "!=":
            true, false = false, true
    else:
        true, false = (before, after) if name in {"<", "<="} else (after, before)
        if name in {"<=", ">="}:
            true = true | same
        else:
            false = false | same
    return pl.when(true).then(_TRUE).when(false).then(_FALSE)


def _equivalent(left: pl.Expr, right: pl.Expr, kind: Kind) -> pl.Expr:
    """Say whether two values mean the same; null where that is open, which counts as no."""
    if kind == "number":
        return _round_alike(left, right)
    return compare("=", _normalize(left, kind), _normalize(right, kind), kind)


def _normalize(value: pl.Expr, kind: Kind) -> pl.Expr:
    return value.str.to_lowercase().str.replace_all(r"\s", " ") if kind == "string" else value


def _round_alike(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    """Say whether two numbers are equal when the more precise one is rounded like the other one."""
    digits = pl.min_horizontal(_precision(left), _precision(right))
    scale = pl.lit(10.0).pow(digits)
    one, other = (
        (number * scale).round(_GUARD).round(0, mode="half_away_from_zero") for number in (left, right)
    )
    return (left == right) | (one == other)


def _precision(number: pl.Expr) -> pl.Expr:
    """Return the number of digits behind the point, without zeros at the end."""
    text = number.cast(pl.Float64).cast(pl.String)
    fraction = text.str.extract(r"\.([0-9]*?)0*(?:e|$)").fill_null("").str.len_bytes().cast(pl.Int64)
    exponent = text.str.extract(r"e([+-]?[0-9]+)$").cast(pl.Int64).fill_null(0)
    return (fraction - exponent).clip(lower_bound=0)


def compare_lists(name: str, left: pl.Expr, right: pl.Expr, kind: Kind) -> pl.Expr:
    """Compare two lists, none of them null, by ``=``, ``!=`` (in order) or ``~`` (in any order)."""
    same_length = left.list.len() == right.list.len()
    if name == "~":
        # Sorted by what counts, equivalent lists agree item by item.
        left, right = (one.list.eval(_normalize(pl.element(), kind)).list.sort() for one in (left, right))
        alike = _pair(left, right, same_length, functools.partial(compare, "~", kind=kind))
        return same_length & alike.list.all()
    found = _pair(left, right, same_length, functools.partial(compare, "=", kind=kind))
    equal: pl.Expr = (
        pl.when(~same_length | ~found.list.all())
        .then(_FALSE)
        .when(found.list.eval(pl.element().is_not_null()).list.all())
        .then(_TRUE)
    )
    equal = pl.when((left.list.len() > 0) & (right.list.len() > 0)).then(equal)
    return ~equal if name == "!=" else equal


def _pair(left: pl.Expr, right: pl.Expr, same_length: pl.Expr, test: Test) -> pl.Expr:
    """Return what a test says of the items of two lists, by position; nothing where the lengths differ."""
    one = pl.when(same_length).then(left).otherwise(left.list.head(0)).alias("left")
    other = pl.when(same_length).then(right).otherwise(right.list.head(0)).alias("right")
    fields = (pl.element().struct.field(name).explode(**_ONE_LEVEL) for name in ("left", "right"))
    return pl.concat_list(pl.struct(one, other)).list.eval(test(*fields))
