"""Checks that dates were moved, by what they were before."""

from __future__ import annotations

import polars as pl

from cohortflow.model import ColumnType
from cohortflow.redaction.actions import Action
from cohortflow.redaction.plan import RedactionPlan

__all__ = ["UNSHIFTED", "count_unshifted"]

UNSHIFTED = "a date that was not shifted"
"""How reports name the rule."""

_TEMPORAL = (ColumnType.DATE, ColumnType.DATETIME)


def count_unshifted(
    before: pl.LazyFrame, after: pl.LazyFrame, plan: RedactionPlan, pseudonyms: pl.DataFrame
) -> dict[str, int]:
    """Count the patients whose dates are the same before and after redaction.

    Single dates prove nothing: among daily ones, a shift by a day leaves nearly all of them in the column.
    A patient's first and last date in a column both stay only where nothing was shifted.

    Args:
        before: The table that redaction read.
        after: The table that it wrote.
        plan: Its plan.
        pseudonyms: ``owner`` and ``subject``: patients' ids and what they became.

    Returns:
        By output column, how many patients; columns without any are left out.
    """
    subject = next((e for e in plan.columns if e.column.name == plan.subject and e.output is not None), None)
    entries = [
        entry
        for entry in plan.columns
        if entry.output is not None
        and entry.treatment.action is Action.SHIFT
        and entry.column.type in _TEMPORAL
    ]
    if subject is None or subject.output is None or not entries:
        return {}
    schema = after.collect_schema()
    names = {entry.column.name: entry.output.name for entry in entries if entry.output is not None}
    names = {old: new for old, new in names.items() if new in schema and schema[new].is_temporal()}
    old = _bounds(before, plan.subject, {name: name for name in names})
    new = _bounds(after, subject.output.name, {new: name for name, new in names.items()})
    both = (
        old.join(pseudonyms.lazy(), left_on="@subject", right_on="owner")
        .drop("@subject")
        .join(new, left_on="subject", right_on="@subject", suffix="@after")
    )
    same = {
        name: pl.all_horizontal(
            pl.col(f"{name}@{end}") == pl.col(f"{name}@{end}@after") for end in ("min", "max")
        )
        for name in names
    }
    row = both.select(test.sum().alias(name) for name, test in same.items()).collect(engine="streaming")
    return {names[name]: int(count) for name, count in row.to_dicts()[0].items() if count} if names else {}


def _bounds(frame: pl.LazyFrame, subject: str, names: dict[str, str]) -> pl.LazyFrame:
    days = [pl.col(column).cast(pl.Date) for column in names]
    return frame.group_by(pl.col(subject).cast(pl.String).alias("@subject")).agg(
        *(day.min().alias(f"{name}@min") for day, name in zip(days, names.values(), strict=True)),
        *(day.max().alias(f"{name}@max") for day, name in zip(days, names.values(), strict=True)),
    )
