"""``repeat``: elements within elements, as deep as the data go.

A schema to read has an end, recursion has none. So the elements that plain paths such as ``item`` and
``answer.item`` lead to, over and over, are gathered into one list when a line is read (``gathering``), under
a key of its own; to an expression, that list is an element like any other.

Source: SQL-on-FHIR v2, ``select.repeat``; FHIRPath 2.0.0, section 5.2.3. The order is depth first. Two
elements that are equal in all their parts count twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from cohortflow.fhir import fhirpath as fp
from cohortflow.fhir.elements import find_element, is_primitive
from cohortflow.fhir.views.reads import repeat_key
from cohortflow.fhir.views.resolve import Resolver
from cohortflow.fhir.views.scope import Scope
from cohortflow.fhir.views.typed import Get, Node

__all__ = ["gather", "resolve_repeat"]


def resolve_repeat(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
    """Resolve a call of the function ``repeat()``.

    Raises:
        FhirPathError: Its argument is more than paths, or they do not lead to elements of one type.
    """
    argument = node.arguments[0]
    found = gather(resolver, resolver.value(source, node.at), _alternatives(argument))
    if found is None:
        raise resolver.refusal(
            argument.at,
            "repeat() follows paths of names to elements of one type, and these are not.",
            "Write it as repeat(item) or repeat(item | answer.item), and filter behind it.",
        )
    return found


def _alternatives(node: fp.Expression) -> list[fp.Expression]:
    if isinstance(node, fp.Binary) and node.operator == "|":
        return [*_alternatives(node.left), *_alternatives(node.right)]
    return [node]


def gather(resolver: Resolver, source: Node, paths: Sequence[fp.Expression]) -> Get | None:
    """Return the elements that paths lead to, over and over.

    Args:
        resolver: Of the expression.
        source: Where the paths start.
        paths: At least one.

    Returns:
        ``None`` where the paths are more than names, or lead nowhere or to several types.

    Raises:
        FhirPathError: The source is computed.
    """
    names = [_names(path) for path in paths]
    plain = [found for found in names if found is not None]
    if len(plain) < len(names) or is_primitive(source.type):
        return None
    first = [_walk(source.type, path) for path in plain]
    kinds = {kind for kind, _ in filter(None, first)}
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    again = [_walk(kind, path) for path in plain]
    if is_primitive(kind) or not all(one or other for one, other in zip(first, again, strict=True)):
        return None
    if {kind for kind, _ in filter(None, again)} - {kind}:
        return None
    way = next(way for _, way in filter(None, first))
    return resolver.take(source, repeat_key(plain), kind, way)


def _names(node: fp.Expression | None) -> tuple[str, ...] | None:
    """Return the names of a path such as ``answer.item``, or ``None`` for any other expression."""
    names: list[str] = []
    while isinstance(node, fp.Member):
        names.append(node.name)
        node = node.source
    is_this = isinstance(node, fp.Special) and node.name == "$this"
    return tuple(reversed(names)) if names and (node is None or is_this) else None


def _walk(kind: str, names: Sequence[str]) -> tuple[str, str] | None:
    """Return the type that names lead to from a type, and the way as a path; ``None`` where there is none."""
    for name in names:
        element = find_element(kind, name)
        if element is None or element.choice:
            return None
        kind = element.types[0]
    return kind, ".".join(names)
