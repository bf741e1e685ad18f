"""FHIR types, in the groups that expressions and columns treat alike."""

from __future__ import annotations

from typing import Literal

from cohortflow.fhir.elements import is_primitive
from cohortflow.model import ColumnType

__all__ = [
    "BOUND_WIDTHS",
    "CALENDAR",
    "Kind",
    "bound_kind",
    "column_type",
    "common_type",
    "is_quantity",
    "is_subtype",
    "kind_of",
]

Kind = Literal["boolean", "string", "number", "date", "time", "complex", "empty"]

BOUND_WIDTHS: dict[str, dict[int, int]] = {
    "date": {4: 4, 6: 7, 8: 10},
    "dateTime": {4: 4, 6: 7, 8: 10, 10: 13, 12: 16, 14: 19, 17: 23},
    "time": {2: 2, 4: 5, 6: 8, 9: 12},
}
"""Precision of a boundary (number of digits) to the length of its text, without a time zone."""

CALENDAR = {
    "year": "a",
    "month": "mo",
    "week": "wk",
    "day": "d",
    "hour": "h",
    "minute": "min",
    "second": "s",
    "millisecond": "ms",
}
"""Calendar words, such as in ``4 days``, to UCUM codes."""

_NUMBERS = frozenset({"integer", "integer64", "positiveInt", "unsignedInt", "decimal"})
_DATES = frozenset({"date", "dateTime", "instant"})


_QUANTITIES = frozenset(
    {"Quantity", "SimpleQuantity", "Age", "Count", "Distance", "Duration", "MoneyQuantity"}
)
_PARENTS = {
    **dict.fromkeys(("code", "id", "markdown"), "string"),
    **dict.fromkeys(("canonical", "oid", "url", "uuid"), "uri"),
    **dict.fromkeys(("positiveInt", "unsignedInt"), "integer"),
    **dict.fromkeys(_QUANTITIES - {"Quantity"}, "Quantity"),
}


def is_quantity(type_name: str) -> bool:
    """Say whether values of a type are Quantities."""
    return type_name in _QUANTITIES


def is_subtype(type_name: str, of: str) -> bool:
    """Say whether values of a type are values of another one too: each ``code`` is a ``string``."""
    return type_name == of or _PARENTS.get(type_name) == of


def kind_of(type_name: str) -> Kind:
    """Return the group of a type: values of one group can be compared and joined."""
    if type_name == "empty":
        return "empty"
    if type_name == "boolean":
        return "boolean"
    if type_name in _NUMBERS:
        return "number"
    if type_name in _DATES:
        return "date"
    if type_name == "time":
        return "time"
    return "string" if is_primitive(type_name) else "complex"


def bound_kind(type_name: str) -> str:
    """Return which of ``BOUND_WIDTHS`` a date or time has."""
    return type_name if type_name in BOUND_WIDTHS else "dateTime"


def common_type(left: str, right: str) -> str | None:
    """Return the type that holds values of both, or ``None``."""
    if right in {left, "empty"}:
        return left
    if left == "empty":
        return right
    kind = kind_of(left)
    if kind != kind_of(right) or kind == "complex":
        return None
    return {"string": "string", "date": "dateTime", "number": _common_number(left, right)}.get(kind, left)


def _common_number(left: str, right: str) -> str:
    return "decimal" if "decimal" in {left, right} else "integer"


def column_type(type_name: str) -> ColumnType:
    """Return how values of a primitive type are held; dates and times are texts."""
    if type_name == "decimal":
        return ColumnType.FLOAT
    kind = kind_of(type_name)
    return {"boolean": ColumnType.BOOLEAN, "number": ColumnType.INTEGER}.get(kind, ColumnType.STRING)
