"""Which elements a column depends on, and what that alone says about its class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cohortflow.fhir.views.typed import Apply, Collection, Compare, Get, Node, is_constant, parts_of
from cohortflow.model import PhiClass

__all__ = ["class_of", "computed_of", "criteria_of", "paths_of"]

_AS_THEY_ARE: Final = frozenset(
    {"combine", "distinct", "skip", "tail", "take", "union"}  # collections
    | {"choose", "referenceKey", "lowBoundary", "highBoundary", "toString"}
    | {"and", "any", "every", "implies", "isTrue", "not", "or", "xor"}  # of what is compared within
)
"""Operations that hand values on as they are, as does what is none: ``where``, ``first``, ``exists``."""


def paths_of(node: Node) -> tuple[str, ...]:
    """Return the element paths that the values of a column come from.

    A value that is taken from no element but depends on some, such as ``name.select('named')``, has the paths
    of those. Only what depends on none has no paths.
    """
    return node.paths or tuple(dict.fromkeys(_read(node)))


def criteria_of(node: Node) -> tuple[str, ...]:
    """Return the element paths that decide whether there is a value, or which, and are not themselves it.

    ``name.where(use = 'official').family`` depends on ``use``. What lies on the way to a value, here
    ``name``, is left out.
    """
    paths = paths_of(node)
    found = dict.fromkeys((*node.tested, *_read(node)))
    return tuple(
        path
        for path in found
        # An extension is written with its URL in parentheses, as in 'Patient.extension(<url>)'.
        if not any(f"{value}.".startswith((f"{path}.", f"{path}(")) for value in paths)
    )


def computed_of(node: Node) -> tuple[str, ...]:
    """Return the element paths whose values are compared or made into others, wherever in the expression."""
    return tuple(dict.fromkeys(_compute(node)))


def _compute(node: Node) -> Iterator[str]:
    # Some operations are named with the type that they are for, as 'toString:date'.
    named = node.name.partition(":")[0] if isinstance(node, Apply | Collection) else ""
    if isinstance(node, Compare) or (named and named not in _AS_THEY_ARE):
        yield from _read(node)
        return
    for part in parts_of(node):
        yield from _compute(part)


def _read(node: Node) -> Iterator[str]:
    if isinstance(node, Get):
        yield from node.paths
    for part in parts_of(node):
        yield from _read(part)


def class_of(node: Node, optional: tuple[str, ...]) -> PhiClass:
    """Return the class of a column, as far as it is known without its paths.

    Args:
        node: The expression of the column.
        optional: Elements without which the column is null, whatever the expression.

    Returns:
        ``SAFE_CODE`` for what is the same for all patients: literals, constants of the view, row numbers.
    """
    return PhiClass.SAFE_CODE if is_constant(node) and not optional else PhiClass.UNKNOWN
