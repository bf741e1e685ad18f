"""From FHIR types and tags to the physical type of a column."""

from __future__ import annotations

import re

from cohortflow.errors import ViewError
from cohortflow.fhir.elements import is_type
from cohortflow.fhir.views.definition import ColumnDefinition
from cohortflow.fhir.views.types import Kind, column_type, kind_of
from cohortflow.model import ColumnType

__all__ = ["choose_type"]

_TEXTS: frozenset[Kind] = frozenset({"string", "date", "time"})
# ANSI name -> physical type, and the kinds of values that it can hold.
_ANSI: dict[str, tuple[ColumnType, frozenset[Kind]]] = {
    **dict.fromkeys(("DATE",), (ColumnType.DATE, frozenset({"date"}))),
    **dict.fromkeys(
        ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP WITHOUT TIME ZONE"),
        (ColumnType.DATETIME, frozenset({"date"})),
    ),
    **dict.fromkeys(("DECIMAL", "DEC", "NUMERIC"), (ColumnType.DECIMAL, frozenset({"number"}))),
    **dict.fromkeys(("FLOAT", "REAL", "DOUBLE PRECISION"), (ColumnType.FLOAT, frozenset({"number"}))),
    **dict.fromkeys(("INTEGER", "INT", "BIGINT", "SMALLINT"), (ColumnType.INTEGER, frozenset({"number"}))),
    **dict.fromkeys(("BOOLEAN",), (ColumnType.BOOLEAN, frozenset({"boolean"}))),
    **dict.fromkeys(
        ("CHARACTER VARYING", "VARCHAR", "CHARACTER", "CHAR", "CLOB", "CHARACTER LARGE OBJECT"),
        (ColumnType.STRING, _TEXTS),
    ),
}
_SIZE = re.compile(r"\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)")
_DIGITS, _SCALE = 38, 10


def choose_type(column: ColumnDefinition, fhir_type: str) -> ColumnType:
    """Return the physical type of a column.

    Args:
        column: The column as declared: its ``type`` and its tag ``ansi/type`` count.
        fhir_type: The type of its values.

    Raises:
        ViewError: The values do not fit what is declared; ``place`` is the column's.
    """
    declared = column.type or fhir_type
    if fhir_type == "empty":
        fhir_type = declared if column.type else "string"
        declared = fhir_type
    kind = kind_of(fhir_type)
    if kind == "complex":
        raise ViewError(
            f"Column '{column.name}' would hold a {fhir_type}.",
            remedy="Go on to one of its elements.",
            place=column.place,
        )
    if not is_type(declared):
        raise ViewError(
            f"Column '{column.name}' declares the unknown type '{declared}'.",
            remedy=f"Write '{fhir_type}'.",
            place=column.place,
        )
    if not _fits(fhir_type, declared):
        raise ViewError(
            f"Column '{column.name}' declares {declared}, but its values are {fhir_type}.",
            remedy=f"Declare '{fhir_type}', or change the path.",
            place=column.place,
        )
    ansi = column.tags.get("ansi/type")
    return column_type(declared) if ansi is None else _ansi_type(column, ansi, fhir_type)


def _fits(actual: str, declared: str) -> bool:
    if kind_of(actual) == "number" and kind_of(declared) == "number":
        return actual != "decimal" or declared == "decimal"
    if declared == "string":
        return kind_of(actual) in _TEXTS
    return kind_of(actual) == kind_of(declared)


def _ansi_type(column: ColumnDefinition, ansi: str, fhir_type: str) -> ColumnType:
    size = _SIZE.search(ansi)
    found = _ANSI.get(" ".join(_SIZE.sub("", ansi).upper().split()))
    if found is None:
        raise ViewError(
            f"Column '{column.name}' has the unsupported ansi/type '{ansi}'.",
            remedy=f"Supported: {', '.join(_ANSI)}.",
            place=column.place,
        )
    physical, kinds = found
    narrows = physical is ColumnType.INTEGER and fhir_type == "decimal"
    if kind_of(fhir_type) not in kinds or narrows:
        raise ViewError(
            f"Column '{column.name}' has ansi/type {ansi}, but its values are {fhir_type}.",
            remedy="Remove the tag, or change the path.",
            place=column.place,
        )
    if physical is ColumnType.DECIMAL and size is not None:
        digits, scale = int(size[1]), int(size[2] or 0)
        if digits > _DIGITS or scale > _SCALE:
            raise ViewError(
                f"Column '{column.name}' has more digits than DECIMAL({_DIGITS},{_SCALE}) holds.",
                remedy=f"Use at most DECIMAL({_DIGITS},{_SCALE}).",
                place=column.place,
            )
    return physical
