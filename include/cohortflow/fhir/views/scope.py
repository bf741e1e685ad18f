"""Where an expression stands, and what the parts of one have in common."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cohortflow.fhir.views.typed import Context, Item, Node

__all__ = ["Scope", "join_paths"]


@dataclass(frozen=True, slots=True)
class Scope:
    """Where an expression stands.

    Attributes:
        focus: What a bare name is looked up in.
        context: The element that the whole expression is evaluated on (``%context``).
        resource: The resource (``%resource``).
        sealed: Whether it stands inside a ``repeat``: what is around it is out of reach.
    """

    focus: Node
    context: Node
    resource: Context
    sealed: bool = False

    def on(self, items: Node) -> Scope:
        """Return the scope of a criterion on each of some values."""
        item = Item(type=items.type, many=False, paths=items.paths, route=items.route)
        return replace(self, focus=item)


def join_paths(*nodes: Node, tested: bool = False) -> tuple[str, ...]:
    """Return the element paths of several nodes, each once; on request those of their criteria too."""
    paths = [path for node in nodes for path in (*node.paths, *(node.tested if tested else ()))]
    return tuple(dict.fromkeys(paths))
