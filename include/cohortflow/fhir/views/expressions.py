"""Typed expressions to Polars expressions.

Whether a node holds one value or a list was decided before; a null and an empty list both mean "empty".
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from decimal import Decimal
from functools import singledispatch

import polars as pl

from cohortflow.fhir.views import operations
from cohortflow.fhir.views.dates import span_of, to_date, to_timestamp
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

__all__ = ["DTYPES", "Environment", "build", "build_list", "to_physical"]

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
    """

    item: pl.Expr | Node | None = None
    outer: Environment | None = None
    index: pl.Expr = field(default_factory=lambda: pl.lit(0, dtype=pl.Int64))
    root: str = ""

    def on(self, item: pl.Expr | Node) -> Environment:
        """Return the environment of a criterion on an item."""
        return Environment(item, self, self.index, self.root)


def _dtype(node: Node) -> pl.DataType:
    return pl.String() if node.type == "empty" else DTYPES[column_type(node.type)]


@singledispatch
def build(node: Node, env: Environment) -> pl.Expr:
    """Return the Polars expression of a node: a list where ``node.many``, else a single value."""
    raise NotImplementedError(type(node).__name__)


def build_list(node: Node, env: Environment) -> pl.Expr:
    """Return a node as a list in any case, never null."""
    found = build(node, env)
    empty = pl.lit([], dtype=pl.List(_dtype(node)))
    if node.many:
        return found.fill_null(empty)
    return pl.concat_list(found.cast(_dtype(node))).list.drop_nulls()


@build.register
def _(node: Context, env: Environment) -> pl.Expr:  # noqa: ARG001 - one signature for all
    return pl.col(node.name)


@build.register
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


@build.register
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


@build.register
def _(node: Filter, env: Environment) -> pl.Expr:
    if not node.many:
        return pl.when(_condition(node, env)).then(build(node.input, env))
    item = pl.element()
    condition = build(node.condition, env.on(item))
    if isinstance(node.condition, Constant):
        condition = condition & (item.is_null() | item.is_not_null())  # a literal has no length of its own
    return build(node.input, env).list.filter(condition)


@build.register
def _(node: Project, env: Environment) -> pl.Expr:
    if not node.input.many:
        return build(node.body, env.on(node.input))
    body = build(node.body, env.on(pl.element()))
    if node.body.many:
        body = body.explode(**_ONE_LEVEL)
    return build(node.input, env).list.eval(body.drop_nulls())


@build.register
def _(node: Pick, env: Environment) -> pl.Expr:
    source = node.input
    if isinstance(source, Collection) and source.name in {"union", "combine"} and node.position == 0:
        parts = [_first(part, env).cast(_dtype(node)) for part in source.inputs]
        return pl.coalesce(parts)
    return build(source, env).list.get(node.position, null_on_oob=True)


def _first(node: Node, env: Environment) -> pl.Expr:
    if not node.many:
        return build(node, env)
    return build(Pick(input=node, position=0, type=node.type, many=False), env)


@build.register
def _(node: Single, env: Environment) -> pl.Expr:
    return build(node.input, env).list.item(allow_empty=True)


@build.register
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


@build.register
def _(node: Constant, env: Environment) -> pl.Expr:  # noqa: ARG001 - one signature for all
    value = float(node.value) if isinstance(node.value, Decimal) else node.value
    return pl.lit(value, dtype=_dtype(node))


@build.register
def _(node: RowIndex, env: Environment) -> pl.Expr:  # noqa: ARG001
    return env.index


@build.register
def _(node: Apply, env: Environment) -> pl.Expr:
    arguments = [build(argument, env) for argument in node.arguments]
    return operations.apply(node, arguments).cast(_dtype(node))


@build.register
def _(node: Collection, env: Environment) -> pl.Expr:
    if node.name == "choose":
        condition = build(node.inputs[0], env)
        then, other = (build_list(part, env).cast(pl.List(_dtype(node))) for part in node.inputs[1:])
        return pl.when(condition).then(then).otherwise(other)
    if node.name in {"union", "combine"}:
        parts = [build_list(part, env).cast(pl.List(_dtype(node))) for part in node.inputs]
        joined = pl.concat_list(parts)
        return joined.list.unique(maintain_order=True) if node.name == "union" else joined
    first = node.inputs[0]
    if node.name == "contains":
        sought = build(node.inputs[1], env)
        return pl.when(sought.is_not_null()).then(build_list(first, env).list.contains(sought))
    if node.name == "count" and not first.many:
        return build(Exists(input=first, type="boolean", many=False), env).cast(pl.Int64)
    if kind_of(first.type) == "complex":
        found = build(first, env) if first.many else pl.concat_list(build(first, env)).list.drop_nulls()
    else:
        found = build_list(first, env)
    return operations.collect(node, found)


@build.register
def _(node: Compare, env: Environment) -> pl.Expr:
    left, right = node.left, node.right
    if left.type == "empty" or right.type == "empty":
        return pl.lit(None, dtype=pl.Boolean)
    if left.many and right.many:
        one, other = build_list(left, env), build_list(right, env)
        both = (one.list.len() > 0) & (other.list.len() > 0)
        equal: pl.Expr = pl.when(both).then(one == other)
    elif left.many or right.many:
        equal = _equal_to_list(node, env)
    else:
        kind = kind_of(left.type)
        one, other = build(left, env), build(right, env)
        if kind in {"date", "time"}:
            return operations.compare_spans(node.operator, span_of(one, kind), span_of(other, kind))
        return operations.compare(node.operator, one, other)
    return ~equal if node.operator == "!=" else equal


def _equal_to_list(node: Compare, env: Environment) -> pl.Expr:
    """Compare a list and a single value: equal if the list holds that value and nothing else."""
    items, single = (node.left, node.right) if node.left.many else (node.right, node.left)
    found = build(items, env)
    value = build(single, env)
    first = found.list.get(0, null_on_oob=True)
    kind = kind_of(items.type)
    if kind in {"date", "time"}:
        same = operations.compare_spans("=", span_of(first, kind), span_of(value, kind))
    else:
        same = first == value
    length = found.list.len()
    return pl.when((length > 0) & value.is_not_null()).then(pl.when(length == 1).then(same).otherwise(False))


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
