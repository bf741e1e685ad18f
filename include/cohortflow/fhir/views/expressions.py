"""Typed expressions to Polars expressions.

Whether a node holds one value or a list was decided before; a null and an empty list both mean "empty".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import singledispatch
from types import MappingProxyType

import polars as pl

from cohortflow.fhir.views import operations
from cohortflow.fhir.views.comparisons import compare, compare_lists
from cohortflow.fhir.views.dates import to_date, to_timestamp
from cohortflow.fhir.views.items import ITEM, find_outer, has_item, put_beside
from cohortflow.fhir.views.typed import (
    Apply,
    Collection,
    Compare,
    Constant,
    Context,
    Exists,
    Filter,
    Get,
    Item,
    Node,
    Pick,
    Project,
    RowIndex,
    Single,
)
from cohortflow.fhir.views.types import column_type, kind_of
from cohortflow.model import ColumnType

__all__ = [
    "DTYPES",
    "TOO_DEEP",
    "Environment",
    "build",
    "build_list",
    "concatenate",
    "guard_depth",
    "to_physical",
]

TOO_DEEP = "cohortflow: a repeat leads deeper than is read"
"""Part of Polars' message where a resource is nested deeper than a ``repeat`` was unrolled."""

DTYPES: dict[ColumnType, pl.DataType] = {
    ColumnType.STRING: pl.String(),
    ColumnType.BOOLEAN: pl.Boolean(),
    ColumnType.INTEGER: pl.Int64(),
    ColumnType.FLOAT: pl.Float64(),
    ColumnType.DECIMAL: pl.Decimal(38, 10),
    ColumnType.DATE: pl.Date(),
    ColumnType.DATETIME: pl.Datetime("us", "UTC"),
}
_ONE_LEVEL = {"empty_as_null": False, "keep_nulls": False}


@dataclass(frozen=True, slots=True)
class Environment:
    """What the free parts of an expression mean.

    Attributes:
        item: The item that a criterion looks at: an expression, or a node to put in its place.
        outer: Environment of that node.
        index: ``%rowIndex``.
        root: Prefix of the columns that hold the elements of the resource.
        known: What stands beside an item, by the node that it is the value of.
        elements: Elements of the resource, where it stands for itself.
    """

    item: pl.Expr | Node | None = None
    outer: Environment | None = None
    index: pl.Expr = field(default_factory=lambda: pl.lit(0, dtype=pl.Int64))
    root: str = ""
    known: Mapping[Node, pl.Expr] = field(default_factory=lambda: MappingProxyType({}))
    elements: tuple[str, ...] = ()

    def on(self, item: pl.Expr | Node) -> Environment:
        """Return the environment of a criterion on an item."""
        return replace(self, item=item, outer=self)


def _dtype(node: Node) -> pl.DataType:
    return pl.String() if node.type == "empty" else DTYPES[column_type(node.type)]


def build(node: Node, env: Environment) -> pl.Expr:
    """Return the Polars expression of a node: a list where ``node.many``, else a single value."""
    return env.known[node] if node in env.known else _build(node, env)


@singledispatch
def _build(node: Node, env: Environment) -> pl.Expr:
    raise NotImplementedError(type(node).__name__)


def build_list(node: Node, env: Environment) -> pl.Expr:
    """Return a node as a list in any case, never null."""
    found = build(node, env)
    empty = pl.lit([], dtype=pl.List(_dtype(node)))
    if node.many:
        return found.fill_null(empty)
    return pl.concat_list(found.cast(_dtype(node))).list.drop_nulls()


@_build.register
def _(node: Context, env: Environment) -> pl.Expr:
    return pl.col(node.name) if node.name else pl.struct(*env.elements)


@_build.register
def _(node: Item, env: Environment) -> pl.Expr:
    if isinstance(env.item, pl.Expr):
        return env.item
    inner, outer = _item_node(node, env)
    return build(inner, outer)


def _item_node(node: Node, env: Environment) -> tuple[Node, Environment]:
    """Return the node that an item stands for, with its environment."""
    while isinstance(node, Item) and isinstance(env.item, Node) and env.outer is not None:
        node, env = env.item, env.outer
    return node, env


@_build.register
def _(node: Get, env: Environment) -> pl.Expr:
    source, inner = _item_node(node.input, env)
    if isinstance(source, Context) and not source.name:
        return _clean(node, pl.col(inner.root + node.key))
    if isinstance(source, Filter) and not source.many:
        # The element of a filtered single value: filter behind the step, so that the resource itself,
        # which is no column, can be filtered too.
        step = Get(
            input=source.input,
            key=node.key,
            lists=node.lists,
            type=node.type,
            many=node.many,
            route=node.route,
        )
        return pl.when(_condition(source, inner)).then(build(step, inner))
    found = build(source, inner)
    if not source.many:
        return _clean(node, found.struct.field(node.key))
    field = pl.element().struct.field(node.key)
    if node.lists:
        field = field.explode(**_ONE_LEVEL)
    return found.list.eval(_whole(node, field).drop_nulls())


def _clean(node: Get, found: pl.Expr) -> pl.Expr:
    if not node.lists:
        return _whole(node, found)
    # FHIR writes null into lists of primitives for a value that has only extensions.
    return (
        found if kind_of(node.type) == "complex" else found.list.eval(_whole(node, pl.element()).drop_nulls())
    )


def _whole(node: Get, found: pl.Expr) -> pl.Expr:
    """Return an integer element as one; what has a fraction is none."""
    if kind_of(node.type) != "number" or node.type == "decimal":
        return found
    whole = found.cast(pl.Int64, strict=False)
    return pl.when(found == whole).then(whole)


def _condition(node: Filter, env: Environment) -> pl.Expr:
    return build(node.condition, env.on(node.input))


@_build.register
def _(node: Filter, env: Environment) -> pl.Expr:
    if not node.many:
        return pl.when(_condition(node, env)).then(build(node.input, env))
    items, inner = _enter(build(node.input, env), node.condition, env)
    kept = items.list.filter(_on_item(node.condition, inner))
    return kept.list.eval(pl.element().struct.field(ITEM)) if inner.known else kept


def _enter(items: pl.Expr, body: Node, env: Environment) -> tuple[pl.Expr, Environment]:
    """Return a list that a body can be evaluated on, and the environment of the body."""
    outer = tuple(dict.fromkeys(find_outer(body)))
    if not outer:
        return items, Environment(pl.element(), env, env.index, env.root)
    field = pl.element().struct.field
    known = {one: field(str(number)) for number, one in enumerate(outer)}
    beside = put_beside(items, [build(one, env) for one in outer])
    return beside, Environment(field(ITEM), env, env.index, env.root, MappingProxyType(known))


def _on_item(body: Node, env: Environment) -> pl.Expr:
    """Return a body that has a value per item, even if it does not look at them."""
    found = build(body, env)
    if has_item(body) or env.known:
        return found
    item = pl.element()
    return pl.when(item.is_null() | item.is_not_null()).then(found)


@_build.register
def _(node: Project, env: Environment) -> pl.Expr:
    if not node.input.many:
        # A body that does not look at the value still has none where that is missing.
        there = build(Exists(input=node.input, type="boolean", many=False), env)
        return pl.when(there).then(build(node.body, env.on(node.input)))
    items, inner = _enter(build(node.input, env), node.body, env)
    body = _on_item(node.body, inner)
    if node.body.many:
        body = body.explode(**_ONE_LEVEL)
    return items.list.eval(body.drop_nulls())


@_build.register
def _(node: Pick, env: Environment) -> pl.Expr:
    source = node.input
    is_union = isinstance(source, Collection) and source.name in {"union", "combine"}
    if isinstance(source, Collection) and is_union and node.position == 0 and kind_of(node.type) != "complex":
        parts = [_first(part, env).cast(_dtype(node)) for part in source.inputs]
        return pl.coalesce(parts)
    return build(source, env).list.get(node.position, null_on_oob=True)


def _first(node: Node, env: Environment) -> pl.Expr:
    if not node.many:
        return build(node, env)
    return build(Pick(input=node, position=0, type=node.type, many=False), env)


@_build.register
def _(node: Single, env: Environment) -> pl.Expr:
    return build(node.input, env).list.item(allow_empty=True)


@_build.register
def _(node: Exists, env: Environment) -> pl.Expr:
    source, inner = _item_node(node.input, env)
    if source.many:
        return (build(source, inner).list.len() > 0).fill_null(value=False)
    if isinstance(source, Context) and not source.name:
        return pl.lit(value=True)
    if isinstance(source, Filter):
        exists = build(Exists(input=source.input, type="boolean", many=False), inner)
        return exists & _condition(source, inner).fill_null(value=False)
    return build(source, inner).is_not_null()


@_build.register
def _(node: Constant, env: Environment) -> pl.Expr:  # noqa: ARG001 - one signature for all
    value = float(node.value) if isinstance(node.value, Decimal) else node.value
    return pl.lit(value, dtype=_dtype(node))


@_build.register
def _(node: RowIndex, env: Environment) -> pl.Expr:  # noqa: ARG001
    return env.index


@_build.register
def _(node: Apply, env: Environment) -> pl.Expr:
    arguments = [build(argument, env) for argument in node.arguments]
    if node.name == "choose":
        # A branch that is empty has no type of its own.
        arguments[1:] = [
            pl.lit(None, dtype=_dtype(node)) if part.type == "empty" else found.cast(_dtype(node))
            for part, found in zip(node.arguments[1:], arguments[1:], strict=True)
        ]
    return operations.apply(node, arguments).cast(_dtype(node))


@_build.register
def _(node: Collection, env: Environment) -> pl.Expr:
    special = _COLLECTIONS.get(node.name)
    if special is not None:
        return special(node, env)
    first = node.inputs[0]
    if node.name == "count" and not first.many:
        return build(Exists(input=first, type="boolean", many=False), env).cast(pl.Int64)
    is_complex = kind_of(first.type) == "complex"
    return operations.collect(node, _as_list(first, env) if is_complex else build_list(first, env))


def _choose_list(node: Collection, env: Environment) -> pl.Expr:
    condition = build(node.inputs[0], env)
    then, other = (build_list(part, env).cast(pl.List(_dtype(node))) for part in node.inputs[1:])
    return pl.when(condition).then(then).otherwise(other)


def _unite(node: Collection, env: Environment) -> pl.Expr:
    if kind_of(node.type) == "complex":
        return concatenate([_as_list(part, env) for part in node.inputs])
    joined = pl.concat_list(build_list(part, env).cast(pl.List(_dtype(node))) for part in node.inputs)
    return joined.list.unique(maintain_order=True) if node.name == "union" else joined


def _contain(node: Collection, env: Environment) -> pl.Expr:
    items, sought = node.inputs[0], build(node.inputs[1], env)
    return pl.when(sought.is_not_null()).then(build_list(items, env).list.contains(sought))


_COLLECTIONS: dict[str, Callable[[Collection, Environment], pl.Expr]] = {
    "choose": _choose_list,
    "combine": _unite,
    "contains": _contain,
    "union": _unite,
}


def _as_list(node: Node, env: Environment) -> pl.Expr:
    """Return elements as a list; null where there are none."""
    found = build(node, env)
    return found if node.many else pl.concat_list(found).list.drop_nulls()


def concatenate(lists: list[pl.Expr]) -> pl.Expr:
    """Return lists of one type as one list."""
    # Where one is null, another one, emptied, takes its place: a null would blank them all.
    return pl.concat_list(*(pl.coalesce(one, *(other.list.head(0) for other in lists)) for one in lists))


def guard_depth(found: pl.Expr, deeper: Sequence[pl.Expr]) -> pl.Expr:
    """Return values, or fail where there is something deeper: no row may be lost without a word."""
    beyond = pl.any_horizontal(*deeper)
    # The cast fails.
    return pl.when(pl.when(beyond).then(pl.lit(TOO_DEEP)).cast(pl.Int64).is_null()).then(found)


@_build.register
def _(node: Compare, env: Environment) -> pl.Expr:
    left, right, operator = node.left, node.right, node.operator
    kind = kind_of(right.type if left.type == "empty" else left.type)
    if "empty" in {left.type, right.type} and operator != "~":
        return pl.lit(None, dtype=pl.Boolean)
    if left.many and right.many:
        return compare_lists(operator, _items(left, env), _items(right, env), kind)
    if left.many or right.many:
        items, single = (left, right) if left.many else (right, left)
        value = build_list(single, env).cast(pl.List(_dtype(items)))
        return compare_lists(operator, _items(items, env), value, kind)
    return compare(operator, _operand(left, right, env), _operand(right, left, env), kind)


def _items(node: Node, env: Environment) -> pl.Expr:
    """Return a list whose items compare with those of others: numbers as floats."""
    found = build_list(node, env)
    return found.cast(pl.List(pl.Float64)) if kind_of(node.type) == "number" else found


def _operand(node: Node, other: Node, env: Environment) -> pl.Expr:
    return build(node, env) if node.type != "empty" else pl.lit(None, dtype=_dtype(other))


def to_physical(found: pl.Expr, node: Node, physical: ColumnType, *, collection: bool) -> pl.Expr:
    """Return a column's values in its physical type."""
    convert = functools.partial(_convert, is_date=kind_of(node.type) == "date", physical=physical)
    if not collection:
        return convert(found)
    empty = pl.lit([], dtype=pl.List(DTYPES[physical]))
    values = found if node.many else pl.concat_list(found).list.drop_nulls()
    return values.list.eval(convert(pl.element())).fill_null(empty)


def _convert(found: pl.Expr, *, is_date: bool, physical: ColumnType) -> pl.Expr:
    if is_date and physical is ColumnType.DATE:
        return to_date(found)
    if is_date and physical is ColumnType.DATETIME:
        return to_timestamp(found)
    return found.cast(DTYPES[physical])
