"""What a view reads and yields, known from the definition alone: no data and no Polars needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cohortflow.errors import FhirPathError, ViewError
from cohortflow.fhir import fhirpath as fp
from cohortflow.fhir.views.column_types import choose_type
from cohortflow.fhir.views.definition import ColumnDefinition, Select, ViewDefinition, parse_view
from cohortflow.fhir.views.digits import digits_of
from cohortflow.fhir.views.functions import call
from cohortflow.fhir.views.lineage import class_of, computed_of, criteria_of, paths_of
from cohortflow.fhir.views.operators import operate
from cohortflow.fhir.views.reads import ReadField, ReadTree
from cohortflow.fhir.views.repetition import gather
from cohortflow.fhir.views.resolve import Resolver
from cohortflow.fhir.views.scope import Scope
from cohortflow.fhir.views.steps import Branch, Each, Level, Output, Unfold, Union
from cohortflow.fhir.views.typed import Choice, Context, Filter, Item, Node, QuantityParts, RowIndex, Step
from cohortflow.fhir.views.unrolling import Unroller
from cohortflow.model import Column, ColumnType

__all__ = ["Analysis", "AnalyzedView", "Block", "analyze_view"]


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
    carried: tuple[str, ...]

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
    return Analysis(definition).run()


class Analysis:
    """The analysis of one view.

    Args:
        definition: The view.

    Attributes:
        resolver: Of its expressions.
        names: How many iterations and unions have a name, so far.
    """

    def __init__(self, definition: ViewDefinition) -> None:
        self._view = definition
        self._reads = ReadTree()
        self._reads.touch((Step("id", "id", many=False),))
        self.resolver = Resolver(definition.constants, self._reads, call, operate)
        self._optional: tuple[str, ...] = ()
        self._criteria: tuple[str, ...] = ()  # of the iterations around
        self._computed: tuple[str, ...] = ()  # likewise
        root = definition.resource
        self._resource = Context(name="", type=root, many=False, paths=(root,), route=())
        self._label = f"view {definition.name}" if definition.name else "view"
        self.names = 0

    def run(self) -> AnalyzedView:
        """Analyse all of it."""
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
        scope = Scope(focus, context=focus, resource=self._resource, sealed=isinstance(focus, Item))
        try:
            return self.resolver.resolve_text(path, scope)
        except FhirPathError as error:
            where = f"{self._label}{place}: {error.place}"
            raise FhirPathError(error.message, remedy=error.remedy, place=where) from None
        except RecursionError:
            raise self._fail(place, "The expression is nested too deeply.", "Simplify it.") from None

    def _parse(self, path: str, place: str) -> fp.Expression:
        try:
            return fp.parse(path)
        except FhirPathError as error:
            where = f"{self._label}{place}: {error.place}"
            raise FhirPathError(error.message, remedy=error.remedy, place=where) from None

    def _where(self, place: str, path: str) -> Node:
        node = self._resolve(path, self._resource, f"{place}.path")
        if node.type not in {"boolean", "empty"}:
            raise self._fail(
                place, f"A condition must be boolean, this is {node.type}.", "Compare it, or add .exists()."
            )
        return self.resolver.single(node)

    def _block(self, select: Select, context: Node) -> Block:
        if not select.iteration:
            return self.body(select, context)
        name = self._name()
        outer, self.resolver.numbers_rows = self.resolver.numbers_rows, False
        place = f"{select.place}.{select.iteration}"
        step: Each | Unfold
        gathered = self._gather(select, context, place) if select.iteration == "repeat" else None
        if isinstance(context, Item) or (select.iteration == "repeat" and gathered is None):
            block, branches = self._visit(select, context, place)
            numbered, self.resolver.numbers_rows = self.resolver.numbers_rows, outer
            step = Unfold(name, select.iteration == "forEachOrNull", numbered, branches)
        else:
            source = gathered or self.iterated(select.paths[0], context, place)
            inner = Context(name=name, type=source.type, many=False, paths=source.paths, route=source.route)
            around = self._criteria, self._computed
            self._criteria = (*self._criteria, *criteria_of(source))
            self._computed = (*self._computed, *computed_of(source))
            block = self.body(select, inner)
            self._criteria, self._computed = around
            numbered, self.resolver.numbers_rows = self.resolver.numbers_rows, outer
            step = Each(source, select.iteration == "forEachOrNull", name, numbered, block.level())
        return Block(block.columns, [], [step])

    def _name(self) -> str:
        self.names += 1
        return f"@{self.names}"

    def _gather(self, select: Select, context: Node, place: str) -> Node | None:
        """Return all that the paths of a repeat lead to, or ``None`` if they must be unrolled."""
        # Each path is checked where it stands, for the sake of the place in the message.
        paths = [self._parse(path, f"{place}[{number}]") for number, path in enumerate(select.paths)]
        self.resolver.start(select.paths[0], iterates=context is not self._resource)
        return gather(self.resolver, context, paths)

    def iterated(self, path: str, context: Node, place: str) -> Node:
        """Resolve what an iteration stands on."""
        source = self._resolve(path, context, place)
        if isinstance(source, Choice):
            raise self._fail(place, "The element may be of several types.", "Choose one with ofType().")
        if isinstance(source, QuantityParts):
            raise self._fail(place, "A Quantity is no list to iterate.", "Name an element.")
        if context is not self._resource and _is_resource(source):
            raise self._fail(
                place,
                "The resource is iterated inside of an iteration.",
                "Do it outside, or name an element.",
            )
        return source

    def _visit(self, select: Select, context: Node, place: str) -> tuple[Block, tuple[Branch, ...]]:
        """Unroll a repeat, or a forEach inside of one, to a finite depth."""
        unroller = Unroller(self, select, place)
        sources = unroller.reach(context, 0)
        outer = self._optional
        if select.iteration == "forEachOrNull":
            # In the row of nothing even a literal is null, which tells that there is nothing.
            self._optional = (*outer, *(path for source in sources for path in paths_of(source)))
        around = self._criteria, self._computed
        self._criteria += tuple(path for source in sources for path in criteria_of(source))
        self._computed += tuple(path for source in sources for path in computed_of(source))
        branches = tuple(unroller.visit(source, 1) for source in sources)
        self._optional, (self._criteria, self._computed) = outer, around
        if unroller.block is None:
            raise self._fail(place, "The paths lead nowhere from here.", "Name elements of the context.")
        return unroller.block, branches

    def body(self, select: Select, context: Node) -> Block:
        """Analyse the columns, selects and unions of a select on one element."""
        outputs = [self._output(column, context) for column in select.columns]
        places = [
            (output.column, column.place) for output, column in zip(outputs, select.columns, strict=True)
        ]
        blocks = [Block(places, outputs, [])]
        blocks += [self._block(inner, context) for inner in select.selects]
        if select.unions:
            blocks.append(self._union(select, context))
        return self._join(blocks)

    def _join(self, blocks: list[Block]) -> Block:
        joined = Block([], [], [])
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

    def _union(self, select: Select, context: Node) -> Block:
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
        return Block(columns, [], [union])

    def _same(self, first: Column, other: Column, place: str) -> Column:
        if (first.type, first.collection) != (other.type, other.collection):
            raise self._fail(
                place,
                f"Column '{first.name}' is {_show(other)}, but {_show(first)} in the first branch.",
                "Give the column one type, and collection in all branches or in none.",
            )
        paths = tuple(dict.fromkeys((*first.paths, *other.paths)))
        tested = tuple(dict.fromkeys((*first.tested, *other.tested)))
        computed = tuple(dict.fromkeys((*first.computed, *other.computed)))
        target = first.target if first.target == other.target else ""
        phi = max(first.phi, other.phi)
        return replace(first, paths=paths, tested=tested, computed=computed, phi=phi, target=target)

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
        if isinstance(node, QuantityParts):
            raise self._fail(
                f"{column.place}.path", "A column cannot hold a Quantity.", "Take its value or its unit."
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
            paths=paths_of(node) or self._optional,
            tested=tuple(dict.fromkeys((*self._criteria, *criteria_of(node)))),
            computed=tuple(dict.fromkeys((*self._computed, *computed_of(node)))),
            phi=class_of(node, self._optional),
            tags=column.tags,
            target=node.target,
            collection=column.collection,
            description=column.description,
        )
        return Output(described, value)


def _is_resource(node: Node) -> bool:
    """Say whether an iteration would stand on the resource itself, all of it or none."""
    while isinstance(node, Filter):
        node = node.input
    return isinstance(node, Context) and not node.name


def _show(column: Column) -> str:
    return f"a list of {column.type.value}" if column.collection else column.type.value


@dataclass(slots=True)
class Block:
    """Columns in their order, each with its place, and what yields them."""

    columns: list[tuple[Column, str]]
    outputs: list[Output]
    steps: list[Each | Unfold | Union]

    def level(self) -> Level:
        """Return what is evaluated, without the places."""
        return Level(tuple(self.outputs), tuple(self.steps))
