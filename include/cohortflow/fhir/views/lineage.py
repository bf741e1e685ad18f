"""Which elements a column depends on, and what that alone says about its class."""

from __future__ import annotations

from collections.abc import Iterator

from cohortflow.fhir.views.typed import Get, Node, is_constant, parts_of
from cohortflow.model import PhiClass

__all__ = ["class_of", "paths_of"]


def paths_of(node: Node) -> tuple[str, ...]:
    """Return the element paths that the values of a column come from.

    A value that is taken from no element but depends on some, such as ``name.select('named')``, has the paths
    of those. Only what depends on none has no paths.
    """
    return node.paths or tuple(dict.fromkeys(_read(node)))


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
