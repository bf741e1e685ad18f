"""FHIR types, in the groups that expressions and columns treat alike."""

from __future__ import annotations

from typing import Literal

from cohortflow.fhir.elements import is_primitive
from cohortflow.model import ColumnType

__all__ = ["BOUND_WIDTHS", "Kind", "bound_kind", "column_type", "common_type", "kind_of"]

Kind = Literal["boolean", "string", "number", "date", "time", "complex", "empty"]

BOUND_WIDTHS: dict[str, dict[int, int]] = {
    "date": {4: 4, 6: 7, 8: 10},
    "dateTime": {4: 4, 6: 7, 8: 10, 10: 13, 12: 16, 14: 19, 17: 23},
    "time": {2: 2, 4: 5, 6: 8, 9: 12},
}
"""Precision of a boundary (number of digits) to the length of its text, without a time zone."""

_NUMBERS = frozenset({"integer", "integer64", "positiveInt", "unsignedInt", "decimal"})
_DATES = frozenset({"date", "dateTime", "instant"})


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
