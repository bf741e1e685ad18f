"""The syntax tree of a FHIRPath expression.

Grammar: FHIRPath 2.0.0 (http://hl7.org/fhirpath/N1/grammar.html). ``at`` is the offset of a node in
the text of the expression, from 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

__all__ = [
    "Binary",
    "Call",
    "Expression",
    "Indexer",
    "Literal",
    "LiteralKind",
    "Member",
    "Special",
    "TypeTest",
    "Unary",
    "Variable",
]


class LiteralKind(StrEnum):
    """Kinds of literals."""

    EMPTY = "empty"
    BOOLEAN = "boolean"
    STRING = "string"
    INTEGER = "integer"
    DECIMAL = "decimal"
    DATE = "date"
    DATETIME = "dateTime"
    TIME = "time"
    QUANTITY = "Quantity"


@dataclass(frozen=True, slots=True)
class Literal:
    """``'a'``, ``1.5``, ``true``, ``@2020-01``, ``{}`` or ``4 'mg'``.

    Dates and times keep their text, without ``@`` (and without ``T`` for a time).
    """

    at: int
    kind: LiteralKind
    value: bool | str | int | Decimal | None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Variable:
    """``%name``."""

    at: int
    name: str


@dataclass(frozen=True, slots=True)
class Special:
    """``$this``, ``$index`` or ``$total``."""

    at: int
    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """``source.name``; no source: a step from the context."""

    at: int
    source: Expression | None
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """``source.name(arguments)``; no source: a call on the context."""

    at: int
    source: Expression | None
    name: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Indexer:
    """``source[index]``."""

    at: int
    source: Expression
    index: Expression


@dataclass(frozen=True, slots=True)
class Unary:
    """``-operand`` or ``+operand``."""

    at: int
    operator: str
    operand: Expression


@dataclass(frozen=True, slots=True)
class Binary:
    """``left operator right``."""

    at: int
    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class TypeTest:
    """``operand is Type`` or ``operand as Type``."""

    at: int
    operator: str
    operand: Expression
    type_name: str


Expression = Literal | Variable | Special | Member | Call | Indexer | Unary | Binary | TypeTest
