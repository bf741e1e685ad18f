"""The digits of a decimal, where an expression still holds the element as it was written."""

from __future__ import annotations

from dataclasses import replace

from cohortflow.fhir.views.resolve import Resolver
from cohortflow.fhir.views.typed import Constant, Get, Node, Pick, Project, Single
from cohortflow.fhir.views.types import kind_of

__all__ = ["digits_of"]


def digits_of(resolver: Resolver, node: Node) -> Node | None:
    """Return a number as it was written, as text.

    Args:
        resolver: Of the expression; it notes that the digits are to be read.
        node: An expression of a number.

    Returns:
        ``None`` for a computed decimal: it has no digits of its own.
    """
    if isinstance(node, Constant):
        return replace(node, type="string", value=None if node.value is None else str(node.value))
    if node.type != "decimal":
        is_one = kind_of(node.type) == "number" and not node.many
        return resolver.apply("toString:number", (node,), "string") if is_one else None
    match node:
        case Get(lists=False):
            return resolver.digits(node)
        case Single() | Pick():
            found = digits_of(resolver, node.input)
            return found and replace(node, input=found, type="string", route=found.route)
        case Project():
            found = digits_of(resolver, node.body)
            return found and replace(node, body=found, type="string", route=found.route)
    return None
