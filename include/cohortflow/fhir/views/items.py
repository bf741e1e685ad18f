"""Expressions on the items of a list.

Within a list, Polars sees the items only. What a criterion takes from around the list (``%resource``,
``%context``, ``%rowIndex``) is therefore put beside each item first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import polars as pl

from cohortflow.fhir.views.typed import Context, Filter, Item, Node, Project, RowIndex, parts_of

__all__ = ["ITEM", "find_outer", "has_item", "put_beside"]

ITEM = "@item"
"""Field that holds the item, where something stands beside it."""

_ONE_LEVEL = {"empty_as_null": False, "keep_nulls": False}


def has_item(node: Node) -> bool:
    """Say whether a node looks at the item of the list that it stands in."""
    if isinstance(node, Item):
        return True
    # The item of a criterion within is another one.
    parts = (node.input,) if isinstance(node, Filter | Project) else parts_of(node)
    return any(has_item(part) for part in parts)


def find_outer(node: Node) -> Iterator[Node]:
    """Yield the largest parts of a criterion that look at what is around the list, and not at its items."""
    if not _looks_out(node):
        return
    if has_item(node):
        for part in parts_of(node):
            yield from find_outer(part)
    else:
        yield node


def _looks_out(node: Node) -> bool:
    return isinstance(node, Context | RowIndex) or any(_looks_out(part) for part in parts_of(node))


def put_beside(items: pl.Expr, values: Iterable[pl.Expr]) -> pl.Expr:
    """Return a list of structs: an item in ``ITEM``, and the values, by number.

    Args:
        items: A list.
        values: Values of any type, one per row.
    """
    named = [value.alias(str(number)) for number, value in enumerate(values)]
    field = pl.element().struct.field
    lengths = field(ITEM).list.len().fill_null(0)
    rows = pl.int_range(pl.len()).repeat_by(lengths).explode(**_ONE_LEVEL)
    repeated = (field(str(number)).gather(rows).alias(str(number)) for number in range(len(named)))
    together = pl.struct(field(ITEM).explode(**_ONE_LEVEL).alias(ITEM), *repeated)
    return pl.concat_list(pl.struct(items.alias(ITEM), *named)).list.eval(together)
