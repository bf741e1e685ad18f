"""What is known of a column before any data are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType

__all__ = ["Column", "ColumnType", "PhiClass"]


class PhiClass(IntEnum):
    """How much a value can identify, weakest first; a column takes the strictest of its paths.

    The identifier classes follow HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i).
    """

    SAFE_CODE = 1
    """A code, its system or a flag: from a published terminology or a required binding."""
    NUMBER = 2
    """A measured or counted number, or its unit."""
    QUASI_IDENTIFIER = 3
    """Sex, race, ethnicity, marital status, language: identifying only in combination."""
    DATE = 4
    """An element of a date related to a person, (C)."""
    AGE = 5
    """An age in years, (C): over 89 is an identifier."""
    GEOGRAPHIC = 6
    """A subdivision smaller than a state, (B)."""
    FREE_TEXT = 7
    """Text that a person or a local system wrote: may hold anything."""
    REFERENCE = 8
    """The id of a resource or a reference to one, (R): unique and linkable, meaningless by itself."""
    DIRECT_IDENTIFIER = 9
    """Name, address line, phone, e-mail, record or device number, URL, photo, (A), (D)-(R)."""
    UNKNOWN = 10
    """No rule knows the path: treated as the strictest."""


class ColumnType(StrEnum):
    """Physical type of a column, the same in Polars, Arrow and Delta."""

    STRING = "string"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    """64-bit."""
    FLOAT = "float"
    """64-bit."""
    DECIMAL = "decimal"
    """Decimal(38, 10)."""
    DATE = "date"
    DATETIME = "datetime"
    """Microseconds, UTC."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a view or of a later step.

    Attributes:
        name: Name in the table.
        type: Physical type.
        paths: FHIR element paths that the value comes from, such as ``Patient.name.family``;
            empty for a column that a step derived, or that no element decides (a literal), which then states
            its own ``phi``.
        phi: Strictest class of what it reads.
        tags: Tags of the ViewDefinition's column, name to value.
        target: Resource type whose id the column holds (by ``getResourceKey`` and the like), or empty.
        collection: Whether the column holds a list of values.
        description: For the data dictionary.
        tested: Element paths that decide whether there is a value, and which: criteria of ``where``.
        computed: Of both, those whose values are compared or made into others, as by ``<``, ``&`` or
            ``substring()``: the column then need not look like them, and tells more than that they exist.
    """

    name: str
    type: ColumnType
    paths: tuple[str, ...] = ()
    phi: PhiClass = PhiClass.UNKNOWN
    tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    target: str = ""
    collection: bool = False
    description: str = ""
    tested: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
