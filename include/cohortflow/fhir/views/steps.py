"""What a view evaluates where: levels of columns, and the steps that make rows of elements."""

from __future__ import annotations

from dataclasses import dataclass

from cohortflow.fhir.views.typed import Node
from cohortflow.model import Column

__all__ = ["Branch", "Each", "Level", "Output", "Unfold", "Union"]


@dataclass(frozen=True, slots=True)
class Output:
    """A column and the expression that yields it."""

    column: Column
    value: Node


@dataclass(frozen=True, slots=True)
class Level:
    """What is evaluated on one element: columns, then the steps that multiply the rows, in order."""

    outputs: tuple[Output, ...]
    steps: tuple[Each | Unfold | Union, ...]


@dataclass(frozen=True, slots=True)
class Each:
    """``forEach`` (drop the row where there is nothing) or ``forEachOrNull`` (keep it).

    Attributes:
        source: What is iterated.
        or_null: Whether a row is kept where there is nothing.
        name: Column that holds the element.
        numbered: Whether ``%rowIndex`` is used.
        level: What is evaluated on each element.
    """

    source: Node
    or_null: bool
    name: str
    numbered: bool
    level: Level


@dataclass(frozen=True, slots=True)
class Branch:
    """Elements that a ``repeat`` visits: each one, then what it leads to.

    Attributes:
        source: The elements, seen from the one above (``Item``) or from where the repeat stands.
        level: What is evaluated on each element (``Item``).
        children: Where each element leads to.
        rest: Elements beyond the greatest depth; there must be none.
    """

    source: Node
    level: Level
    children: tuple[Branch, ...] = ()
    rest: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Unfold:
    """``repeat``, or an iteration inside of one: lists of results are built, then taken apart.

    Attributes:
        name: Column that holds the list.
        or_null: Whether a row is kept where there is nothing.
        numbered: Whether ``%rowIndex`` is used.
        branches: What is visited, in order; all levels have the same shape.
    """

    name: str
    or_null: bool
    numbered: bool
    branches: tuple[Branch, ...]


@dataclass(frozen=True, slots=True)
class Union:
    """``unionAll``: the rows of each branch, for each row around it; ``name`` holds the branch number."""

    name: str
    branches: tuple[Level, ...]
    columns: tuple[Column, ...]
