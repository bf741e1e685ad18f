"""Rows that stay, without what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    import polars as pl

    from cohortflow.model import Column

__all__ = ["mask_rows", "maskable_columns"]

_ROLE: Final = "cohortflow/role"
_KEPT_ROLES: Final = frozenset({"key", "subject", "time"})
# Elements that say how far a record has come, not what it is about; every resource has to have them.
_KEPT_ELEMENTS: Final = frozenset({"status", "intent"})


def maskable_columns(columns: Iterable[Column]) -> tuple[str, ...]:
    """Return the columns that masking empties: all but ids, the row's time, ``status`` and ``intent``.

    Args:
        columns: Of a view, with their tags, targets and paths.
    """
    return tuple(column.name for column in columns if not _is_kept(column))


def _is_kept(column: Column) -> bool:
    if column.tags.get(_ROLE) in _KEPT_ROLES or column.target:
        return True
    # Of the resource itself: "Observation.status", not "CarePlan.activity.detail.status".
    return bool(column.paths) and all(path.partition(".")[2] in _KEPT_ELEMENTS for path in column.paths)


def mask_rows(frame: pl.LazyFrame, columns: Iterable[str], masked: pl.Expr) -> pl.LazyFrame:
    """Set columns of some rows to null, lists to empty ones; no row is lost.

    Args:
        frame: A view's rows.
        columns: What to empty, as ``maskable_columns`` gives it.
        masked: Which rows; a null is no.
    """
    import polars as pl

    schema = frame.collect_schema()
    names = [name for name in columns if name in schema]
    if not names:
        return frame
    hidden = masked.fill_null(value=False)
    return frame.with_columns(
        pl.when(hidden)
        .then(pl.lit([], dtype=schema[name]) if isinstance(schema[name], pl.List) else None)
        .otherwise(pl.col(name))
        .alias(name)
        for name in names
    )
