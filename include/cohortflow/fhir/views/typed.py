"""Typed expressions: what a FHIRPath expression means for one resource type.

Each node knows its FHIR type, whether it may hold several values (``many``) and the element paths
that its value comes from. That is enough to choose scalar or list operations once, when the view is
compiled, and never again per row. The nodes know nothing of Polars.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from decimal import Decimal

from cohortflow.fhir.elements import Element

__all__ = [
    "Apply",
    "Choice",
    "Collection",
    "Compare",
    "Constant",
    "Context",
    "Exists",
    "Filter",
    "Get",
    "Item",
    "Node",
    "Pick",
    "Project",
    "QuantityParts",
    "RowIndex",
    "Single",
    "Step",
    "is_constant",
    "parts_of",
]


@dataclass(frozen=True, slots=True)
class Step:
    """One JSON key on the way from the resource to a value."""

    key: str
    type: str
    many: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Base of all nodes.

    Attributes:
        type: FHIR type name; computed values have the primitive type that fits.
        many: Whether there may be several values; if not, there is one or none.
        paths: Element paths that the value comes from.
        route: JSON keys from the resource, where the value is an element as it stands in the
            resource; ``None`` where it is computed.
        target: Resource type whose id the value is, or empty.
        tested: Element paths that decide whether there is a value (criteria of ``where``).
    """

    type: str
    many: bool
    paths: tuple[str, ...] = ()
    route: tuple[Step, ...] | None = None
    target: str = ""
    tested: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(Node):
    """The resource, or the element that a ``forEach`` stands on.

    Attributes:
        name: Column that holds the element; empty for the resource, whose elements are columns.
    """

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item(Node):
    """The element that the criterion of a ``where`` or the body of a ``select`` looks at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Get(Node):
    """An element of the input.

    Attributes:
        input: Where the element is.
        key: JSON key.
        lists: Whether the element itself is a list.
    """

    input: Node
    key: str
    lists: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Node):
    """A choice element, such as ``Observation.value``, before its type is chosen."""

    input: Node
    element: Element


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter(Node):
    """The values of the input that fulfil a condition on ``Item``."""

    input: Node
    condition: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Project(Node):
    """A body on ``Item``, for each value of the input."""

    input: Node
    body: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick(Node):
    """One value by position: from the start (0, 1, ...) or from the end (-1)."""

    input: Node
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Single(Node):
    """The only value; more than one is an error when the data are read."""

    input: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Exists(Node):
    """Whether there is at least one value (true or false, never empty)."""

    input: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection(Node):
    """An operation on whole collections: ``union``, ``combine``, ``count``, ``join``, ..., by name."""

    name: str
    inputs: tuple[Node, ...]
    numbers: tuple[int, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantityParts(Node):
    """A Quantity: its value, and its UCUM unit, empty where values of it cannot be compared.

    No data are in it: operators take its parts.
    """

    value: Node
    unit: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare(Node):
    """``=``, ``!=``, ``~``, ``<``, ``<=``, ``>`` or ``>=`` of two values of one kind, or of two lists."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply(Node):
    """An operation on single values: operators, logic, text and number functions, by name."""

    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(Node):
    """A literal or a constant of the view; ``None`` is the empty collection."""

    value: bool | int | str | Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowIndex(Node):
    """``%rowIndex``: the position of the element that the nearest iteration stands on."""


def parts_of(node: Node) -> Iterator[Node]:
    """Yield the nodes that a node is directly made of."""
    for field in fields(node):
        value = getattr(node, field.name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, tuple):
            yield from (part for part in value if isinstance(part, Node))


def is_constant(node: Node) -> bool:
    """Say whether a node means the same for all resources: literals and row numbers, nothing that is read."""
    if isinstance(node, Get | Choice | Context | Item):
        return False
    return all(is_constant(part) for part in parts_of(node))
