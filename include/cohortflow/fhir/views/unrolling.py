"""A ``repeat`` whose paths are more than names, such as ``item.where(...)``, unrolled to a finite depth.

Data that lie deeper are an error when they are read: no row is lost without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cohortflow.errors import FhirPathError
from cohortflow.fhir.views.steps import Branch
from cohortflow.fhir.views.typed import Item, Node

if TYPE_CHECKING:
    from cohortflow.fhir.views.analysis import Analysis, Block
    from cohortflow.fhir.views.definition import Select

__all__ = ["Unroller"]

# How many element paths a repeat may unroll to, and how deep: the schema to read must be finite.
_UNROLLED = 128
_DEEPEST = 12


class Unroller:
    """Follows the paths of a repeat from element to element.

    Args:
        analysis: Of the view.
        select: The ``repeat``, ``forEach`` or ``forEachOrNull``.
        place: Where its paths stand.

    Attributes:
        block: What is evaluated on each element; ``None`` before one was visited.
    """

    def __init__(self, analysis: Analysis, select: Select, place: str) -> None:
        self.block: Block | None = None
        self._analysis = analysis
        self._select = select
        self._place = place
        self._repeats = select.iteration == "repeat"
        self._deepest = _levels(len(select.paths)) if self._repeats else 1
        self._met: set[str] = set()
        self._first_name = analysis.names
        self._paths: dict[str, tuple[str, ...]] = {}

    def reach(self, focus: Node, depth: int) -> list[Node]:
        """Return what the paths lead to from an element."""
        found = []
        for path in self._select.paths:
            try:
                found.append(self._analysis.iterated(path, focus, self._place))
            except FhirPathError:
                # `answer.item` leads nowhere from the resource, but it does from an item below.
                if not self._repeats or (depth > 0 and path not in self._met):
                    raise
            else:
                self._met.add(path)
        return found

    def visit(self, source: Node, depth: int) -> Branch:
        """Return what is evaluated on an element and on those that it leads to."""
        # To whoever reads the lineage, deeper elements of the same type are the same element.
        paths = self._paths.setdefault(source.type, source.paths)
        item = Item(type=source.type, many=False, paths=paths, route=source.route)
        self._analysis.names = self._first_name  # all levels name their parts alike
        block = self._analysis.body(self._select, item)
        self.block = self.block or block
        if not self._repeats:
            return Branch(source, block.level())
        further = self.reach(item, depth)
        if depth == self._deepest:
            rest = tuple(self._analysis.resolver.exists(one) for one in further)
            return Branch(source, block.level(), rest=rest)
        return Branch(source, block.level(), tuple(self.visit(one, depth + 1) for one in further))


def _levels(paths: int) -> int:
    """Return how deep a repeat with a number of paths can be unrolled."""
    levels = 1
    while levels < _DEEPEST and sum(paths**level for level in range(1, levels + 2)) <= _UNROLLED:
        levels += 1
    return levels
