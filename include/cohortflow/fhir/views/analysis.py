"""What a view reads and yields, known from the definition alone: no data and no Polars needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cohortflow.errors import FhirPathError, ViewError
from cohortflow.fhir.views.column_types import choose_type
from cohortflow.fhir.views.definition import ColumnDefinition, Select, ViewDefinition, parse_view
from cohortflow.fhir.views.digits import digits_of
from cohortflow.fhir.views.functions import call
from cohortflow.fhir.views.operators import operate
from cohortflow.fhir.views.reads import ReadField, ReadTree
from cohortflow.fhir.views.resolve import Resolver, Scope, join_paths
from cohortflow.fhir.views.typed import Choice, Context, Item, Node, RowIndex, Step
from cohortflow.model import Column, ColumnType

__all__ = ["AnalyzedView", "Branch", "Each", "Level", "Output", "Unfold", "Union", "analyze_view"]

# How many element paths a repeat may unroll to, and how deep: the schema to read must be finite.
_UNROLLED = 128
_DEEPEST = 12


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


@dataclass(frozen=True, slots=True)
class AnalyzedView:
    """A checked view.

    Attributes:
        name: Name of the view; its resource type in lower case where it has none.
        resource: Resource type it reads.
        columns: What it yields, in order, with types, element paths and tags.
        reads: The JSON keys that it needs, with their shapes.
        plan: What is evaluated where.
        wheres: Conditions on the resource.
        carried: Elements of the resource that an iteration uses by ``%resource``.
    """

    name: str
    resource: str
    columns: tuple[Column, ...]
    reads: tuple[ReadField, ...]
    plan: Level
    wheres: tuple[Node, ...]
    carried: tuple[str, ...] = ()

    @property
    def lineage(self) -> dict[str, tuple[str, ...]]:
        """Element paths of each column."""
        return {column.name: column.paths for column in self.columns}


def analyze_view(view: Mapping[str, Any]) -> AnalyzedView:
    """Check a ViewDefinition and find out what it reads and yields.

    Args:
        view: A SQL-on-FHIR v2 ViewDefinition as JSON.

    Raises:
        ViewError: The definition is wrong.
        FhirPathError: An expression is wrong or not supported; ``place`` names view, element and character.
    """
    definition = parse_view(view)
    return _Analysis(definition).run()


class _Analysis:
    def __init__(self, definition: ViewDefinition) -> None:
        self._view = definition
        self._reads = ReadTree()
        self._reads.touch((Step("id", "id", many=False),))
        self.resolver = Resolver(definition.constants, self._reads, call, operate)
        root = definition.resource
        self._resource = Context(name="", type=root, many=False, paths=(root,), route=())
        self._label = f"view {definition.name}" if definition.name else "view"
        self.names = 0  # of iterations and unions, so far

    def run(self) -> AnalyzedView:
        view = self._view
        wheres = tuple(self._where(place, path) for place, path in view.wheres)
        block = self._join([self._block(select, self._resource) for select in view.selects])
        columns = tuple(column for column, _ in block.columns)
        carried = tuple(sorted(self.resolver.carried))
        reads = self._reads.fields()
        name = view.name or view.resource.lower()
        return AnalyzedView(name, view.resource, columns, reads, block.level(), wheres, carried)

    def _fail(self, place: str, message: str, remedy: str) -> ViewError:
        return ViewError(message, remedy=remedy, place=f"{self._label}{place}")

    def _resolve(self, path: str, focus: Node, place: str) -> Node:
        scope = Scope(focus, context=focus, resource=self._resource, in_list=isinstance(focus, Item))
        try:
            return self.resolver.resolve_text(path, scope)
        except FhirPathError as error:
            where = f"{self._label}{place}: {error.place}"
            raise FhirPathError(error.message, remedy=error.remedy, place=where) from None
        except RecursionError:
            raise self._fail(place, "The expression is nested too deeply.", "Simplify it.") from None

    def _where(self, place: str, path: str) -> Node:
        node = self._resolve(path, self._resource, f"{place}.path")
        if node.type not in {"boolean", "empty"}:
            raise self._fail(
                place, f"A condition must be boolean, this is {node.type}.", "Compare it, or add .exists()."
            )
        return self.resolver.single(node)

    def _block(self, select: Select, context: Node) -> _Block:
        if not select.iteration:
            return self.body(select, context)
        name = self._name()
        outer, self.resolver.numbers_rows = self.resolver.numbers_rows, False
        place = f"{select.place}.{select.iteration}"
        step: Each | Unfold
        if select.iteration == "repeat" or isinstance(context, Item):
            block, branches = self._visit(select, context, place)
            numbered, self.resolver.numbers_rows = self.resolver.numbers_rows, outer
            step = Unfold(name, select.iteration == "forEachOrNull", numbered, branches)
        else:
            source = self.iterated(select.paths[0], context, place)
            inner = Context(name=name, type=source.type, many=False, paths=source.paths, route=source.route)
            block = self.body(select, inner)
            numbered, self.resolver.numbers_rows = self.resolver.numbers_rows, outer
            step = Each(source, select.iteration == "forEachOrNull", name, numbered, block.level())
        return _Block(block.columns, [], [step])

    def _name(self) -> str:
        self.names += 1
        return f"@{self.names}"

    def iterated(self, path: str, context: Node, place: str) -> Node:
        """Resolve what an iteration stands on."""
        source = self._resolve(path, context, place)
        if isinstance(source, Choice):
            raise self._fail(place, "The element may be of several types.", "Choose one with ofType().")
        return source

    def _visit(self, select: Select, context: Node, place: str) -> tuple[_Block, tuple[Branch, ...]]:
        """Unroll a repeat, or a forEach inside of one, to a finite depth."""
        unroller = _Unroller(self, select, place)
        branches = tuple(unroller.visit(source, 1) for source in unroller.reach(context, 0))
        if unroller.block is None:
            raise self._fail(place, "The paths lead nowhere from here.", "Name elements of the context.")
        return unroller.block, branches

    def body(self, select: Select, context: Node) -> _Block:
        """Analyse the columns, selects and unions of a select on one element."""
        outputs = [self._output(column, context) for column in select.columns]
        places = [
            (output.column, column.place) for output, column in zip(outputs, select.columns, strict=True)
        ]
        blocks = [_Block(places, outputs, [])]
        blocks += [self._block(inner, context) for inner in select.selects]
        if select.unions:
            blocks.append(self._union(select, context))
        return self._join(blocks)

    def _join(self, blocks: list[_Block]) -> _Block:
        joined = _Block([], [], [])
        seen: set[str] = set()
        for block in blocks:
            for column, place in block.columns:
                if column.name in seen:
                    raise self._fail(place, f"A column named '{column.name}' exists already.", "Rename one.")
                seen.add(column.name)
            joined.columns.extend(block.columns)
            joined.outputs.extend(block.outputs)
            joined.steps.extend(block.steps)
        return joined

    def _union(self, select: Select, context: Node) -> _Block:
        blocks = [self._block(branch, context) for branch in select.unions]
        columns = blocks[0].columns
        for branch, block in zip(select.unions[1:], blocks[1:], strict=True):
            names = [column.name for column, _ in block.columns]
            wanted = [column.name for column, _ in columns]
            if names != wanted:
                raise self._fail(
                    branch.place,
                    f"The branch yields {', '.join(names)}, the first one {', '.join(wanted)}.",
                    "Give all branches of unionAll the same columns in the same order.",
                )
            columns = [
                (self._same(first, other, place), at)
                for (first, at), (other, place) in zip(columns, block.columns, strict=True)
            ]
        levels = tuple(block.level() for block in blocks)
        union = Union(self._name(), levels, tuple(column for column, _ in columns))
        return _Block(columns, [], [union])

    def _same(self, first: Column, other: Column, place: str) -> Column:
        if (first.type, first.collection) != (other.type, other.collection):
            raise self._fail(
                place,
                f"Column '{first.name}' is {other.type.value}, but {first.type.value} in the first branch.",
                "Give the column one type, and collection in all branches or in none.",
            )
        paths = tuple(dict.fromkeys((*first.paths, *other.paths)))
        return replace(first, paths=paths, target=first.target if first.target == other.target else "")

    def _output(self, column: ColumnDefinition, context: Node) -> Output:
        if isinstance(context, Item) and column.path.strip() == "%rowIndex":
            self.resolver.numbers_rows = True
            node: Node = RowIndex(type="integer", many=False)
        else:
            node = self._resolve(column.path, context, f"{column.place}.path")
        if isinstance(node, Choice):
            raise self._fail(
                f"{column.place}.path", "The element may be of several types.", "Choose one with ofType()."
            )
        try:
            physical = choose_type(column, node.type)
        except ViewError as error:
            raise self._fail(error.place, error.message, error.remedy) from None
        value = node if column.collection else self.resolver.single(node)
        if physical is ColumnType.DECIMAL and node.type == "decimal":
            # From the digits as written, not from the nearest float.
            value = digits_of(self.resolver, value) or value
        described = Column(
            name=column.name,
            type=physical,
            paths=join_paths(node),
            tags=column.tags,
            target=node.target,
            collection=column.collection,
            description=column.description,
        )
        return Output(described, value)


class _Unroller:
    """Follows the paths of a repeat from element to element."""

    def __init__(self, analysis: _Analysis, select: Select, place: str) -> None:
        self.block: _Block | None = None
        self._analysis = analysis
        self._select = select
        self._place = place
        self._repeats = select.iteration == "repeat"
        self._deepest = _depth(len(select.paths)) if self._repeats else 1
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


def _depth(paths: int) -> int:
    """Return how deep a repeat with a number of paths can be unrolled."""
    depth = 1
    while depth < _DEEPEST and sum(paths**level for level in range(1, depth + 2)) <= _UNROLLED:
        depth += 1
    return depth


@dataclass(slots=True)
class _Block:
    """Columns in their order, each with its place, and what yields them."""

    columns: list[tuple[Column, str]]
    outputs: list[Output]
    steps: list[Each | Unfold | Union]

    def level(self) -> Level:
        return Level(tuple(self.outputs), tuple(self.steps))
