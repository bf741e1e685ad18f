"""Operations on Polars expressions with FHIRPath's rules for empty values."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import polars as pl

from cohortflow.fhir.views.dates import bound
from cohortflow.fhir.views.decimals import bound_decimal
from cohortflow.fhir.views.typed import Apply, Collection, Constant
from cohortflow.fhir.views.types import CALENDAR, bound_kind

__all__ = ["apply", "collect"]

_INTEGER = r"^[+-]?\d+$"
_DECIMAL = r"^[+-]?\d+(\.\d+)?$"
# A number, and a unit in quotes, as a calendar word, or none.
_QUANTITY = r"^([+-]?\d+(?:\.\d+)?)(?:\s*'([^']+)'|\s+([a-z]+))?$"


def collect(node: Collection, found: pl.Expr) -> pl.Expr:
    """Return an operation on a list that is not null."""
    return _COLLECTIONS[node.name](found, node)


def apply(node: Apply, arguments: Sequence[pl.Expr]) -> pl.Expr:
    """Return an operation on single values.

    Args:
        node: The operation; some take constants from it.
        arguments: The expressions of its arguments.
    """
    name, _, kind = node.name.partition(":")
    if name in {"lowBoundary", "highBoundary"}:
        return _bound(node, kind, arguments[0])
    if name in _CONVERSIONS:
        return _CONVERSIONS[name](arguments[0], kind)
    constants = [part.value for part in node.arguments[1:] if isinstance(part, Constant)]
    if name == "referenceKey":
        return _reference_key(arguments[0], str(constants[0]))
    if name == "round":
        return _round(arguments[0], int(constants[0] or 0) if constants else 0)
    return _FUNCTIONS[name](*arguments)


def _bound(node: Apply, kind: str, text: pl.Expr) -> pl.Expr:
    wanted = node.arguments[1]
    precision = wanted.value if isinstance(wanted, Constant) and isinstance(wanted.value, int) else None
    high = node.name.startswith("high")
    if kind == "decimal":
        return bound_decimal(text, high=high, precision=precision)
    return bound(text, bound_kind(kind), high=high, precision=precision)


def _choose(condition: pl.Expr, then: pl.Expr, other: pl.Expr | None = None) -> pl.Expr:
    chosen = pl.when(condition).then(then)
    return chosen if other is None else chosen.otherwise(other)


def _divide(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    return pl.when(right != 0).then(left.cast(pl.Float64) / right)


def _round(number: pl.Expr, digits: int) -> pl.Expr:
    return number.cast(pl.Float64).round(digits, mode="half_away_from_zero")


def _truncate(number: pl.Expr) -> pl.Expr:
    return pl.when(number < 0).then(number.ceil()).otherwise(number.floor())


def _div(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    return _truncate(_divide(left, right))


def _mod(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    return left - right * _div(left, right)


def _reference_key(text: pl.Expr, target: str) -> pl.Expr:
    # Relative, absolute and versioned references: Patient/1, https://host/Patient/1, Patient/1/_history/2.
    # A contained resource (#1), a urn or another type has no key.
    kind = re.escape(target) if target else "[A-Z][A-Za-z]+"
    pattern = rf"(?:^|/){kind}/([^/|#?]+)(?:/_history/[^/]+)?$"
    if not target:
        return text.str.extract(pattern)
    # Nearly all are relative. Those need no regular expression, which would take most of a view's time.
    key = text.str.strip_prefix(f"{target}/")
    relative = text.str.starts_with(f"{target}/") & (key != "") & ~key.str.contains_any(list("/|#?"))
    return pl.coalesce(pl.when(relative).then(key), pl.when(~relative).then(text).str.extract(pattern))


def _substring(text: pl.Expr, start: pl.Expr, length: pl.Expr | None = None) -> pl.Expr:
    inside = (start >= 0) & (start < text.str.len_chars())
    return pl.when(inside).then(text.str.slice(start, length))


def _index_of(text: pl.Expr, part: pl.Expr) -> pl.Expr:
    found = text.str.contains(part, literal=True)
    return (
        pl.when(found)
        .then(text.str.split(part).list.first().str.len_chars())
        .otherwise(pl.when(found.is_not_null()).then(pl.lit(-1)))
    )


def _finite(number: pl.Expr) -> pl.Expr:
    return pl.when(number.is_finite()).then(number)


def _to_string(value: pl.Expr, kind: str) -> pl.Expr:
    return value.cast(pl.String) if kind in {"number", "boolean"} else value


def _to_integer(value: pl.Expr, kind: str) -> pl.Expr:
    if kind == "string":
        return pl.when(value.str.contains(_INTEGER)).then(value).cast(pl.Int64, strict=False)
    return (
        pl.when(value == _truncate(value)).then(value).cast(pl.Int64)
        if kind == "number"
        else value.cast(pl.Int64)
    )


def _to_decimal(value: pl.Expr, kind: str) -> pl.Expr:
    if kind == "string":
        return pl.when(value.str.contains(_DECIMAL)).then(value).cast(pl.Float64, strict=False)
    return value.cast(pl.Float64)


def _quantity_value(text: pl.Expr) -> pl.Expr:
    return pl.when(_quantity_unit(text).is_not_null()).then(text.str.extract(_QUANTITY, 1)).cast(pl.Float64)


def _quantity_unit(text: pl.Expr) -> pl.Expr:
    word = text.str.extract(_QUANTITY, 3)
    codes = word.str.strip_suffix("s").replace_strict(CALENDAR, default=None, return_dtype=pl.String)
    unit = pl.coalesce(text.str.extract(_QUANTITY, 2), codes)
    return pl.when(text.str.contains(_QUANTITY)).then(
        pl.when(word.is_null() & unit.is_null()).then(pl.lit("1")).otherwise(unit)
    )


_COLLECTIONS: dict[str, Callable[[pl.Expr, Collection], pl.Expr]] = {
    "count": lambda found, _: found.list.len().cast(pl.Int64).fill_null(0),
    # Of nothing an empty text, as the official tests want it; the text of FHIRPath (STU) says empty.
    "join": lambda found, node: found.list.join(node.text),
    "tail": lambda found, _: found.list.slice(1),
    "skip": lambda found, node: found.list.slice(node.numbers[0]),
    "take": lambda found, node: found.list.head(node.numbers[0]),
    "distinct": lambda found, _: found.list.unique(maintain_order=True),
    "isDistinct": lambda found, _: found.list.n_unique() == found.list.len(),
    "allTrue": lambda found, _: found.list.all(),
    "anyTrue": lambda found, _: found.list.any(),
    "allFalse": lambda found, _: ~found.list.any(),
    "anyFalse": lambda found, _: ~found.list.all(),
}
_CONVERSIONS: dict[str, Callable[[pl.Expr, str], pl.Expr]] = {
    "toString": _to_string,
    "toInteger": _to_integer,
    "toDecimal": _to_decimal,
}
_FUNCTIONS: dict[str, Callable[..., pl.Expr]] = {
    "and": lambda left, right: left & right,
    "or": lambda left, right: left | right,
    "xor": lambda left, right: left ^ right,
    "implies": lambda left, right: ~left | right,
    "not": lambda value: ~value,
    "isTrue": lambda value: value.fill_null(value=False),
    "choose": _choose,
    "quantityValue": _quantity_value,
    "quantityUnit": _quantity_unit,
    "any": pl.any_horizontal,
    "every": pl.all_horizontal,
    "negate": lambda value: -value,
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": _divide,
    "div": _div,
    "mod": _mod,
    "join": lambda left, right: left + right,
    "concat": lambda left, right: left.fill_null("") + right.fill_null(""),
    "startsWith": lambda text, part: text.str.starts_with(part),
    "endsWith": lambda text, part: text.str.ends_with(part),
    "contains": lambda text, part: text.str.contains(part, literal=True),
    "matches": lambda text, pattern: text.str.contains(pattern),
    "replace": lambda text, part, new: text.str.replace_all(part, new, literal=True),
    "replaceMatches": lambda text, pattern, new: text.str.replace_all(pattern, new),
    "substring": _substring,
    "indexOf": _index_of,
    "upper": lambda text: text.str.to_uppercase(),
    "lower": lambda text: text.str.to_lowercase(),
    "trim": lambda text: text.str.strip_chars(),
    "length": lambda text: text.str.len_chars(),
    "abs": lambda number: number.abs(),
    "ceiling": lambda number: number.ceil(),
    "floor": lambda number: number.floor(),
    "truncate": _truncate,
    "sqrt": lambda number: _finite(number.cast(pl.Float64).sqrt()),
    "exp": lambda number: _finite(number.cast(pl.Float64).exp()),
    "ln": lambda number: _finite(number.cast(pl.Float64).log()),
}
