"""The rows of a view that are events of a cohort definition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import polars as pl

from cohortflow.cohort.definition import EventCriterion, ValueRange
from cohortflow.cohort.filters import before, time_expr
from cohortflow.errors import StudyError

__all__ = ["CodeMatcher", "EventSource", "require_columns"]

NOT_HAPPENED = ("entered-in-error", "refuted", "not-done", "cancelled")
"""FHIR statuses by which a record says that its event did not happen."""


class CodeMatcher(Protocol):
    """What a value set must be able to do."""

    def matches(self, system: pl.Expr, code: pl.Expr) -> pl.Expr:
        """Return whether each code is a member, never null."""
        ...


@dataclass(frozen=True, slots=True)
class EventSource:
    """Where events are found.

    Attributes:
        views: View frames by name.
        value_sets: Value sets by name.
        as_of: Events at or after it do not count.
        time_columns: The column that dates each view.
        subject_column: Patient column of every view.
    """

    views: Mapping[str, pl.LazyFrame]
    value_sets: Mapping[str, CodeMatcher]
    as_of: datetime
    time_columns: Mapping[str, str]
    subject_column: str

    def find(self, criterion: EventCriterion) -> pl.LazyFrame:
        """Return one row for each row of the view with a code of the set, dated before ``as_of``.

        Returns:
            ``patient_id``; ``day`` (DATE, UTC); ``fits``: the value is in the range, true without one;
            ``wrong_unit``: there is a value that cannot be judged, because of its unit.

        Raises:
            StudyError: The view, the value set or a column is missing.
        """
        frame = self.view(criterion.view)
        value_set = self.value_sets.get(criterion.value_set)
        if value_set is None:
            raise StudyError(
                f"The cohort uses the value set '{criterion.value_set}', which was not given.",
                remedy=f"Known: {', '.join(sorted(self.value_sets)) or 'none'}.",
            )
        date_column = criterion.date or self.time_columns.get(criterion.view)
        if date_column is None:
            raise StudyError(
                f"The view '{criterion.view}' has no time column.",
                remedy="Give 'date' in the cohort's criterion.",
            )
        columns = [self.subject_column, criterion.code, criterion.system, date_column, *criterion.where]
        if criterion.value is not None:
            columns += [criterion.value.column, criterion.value.unit_column]
        require_columns(frame, criterion.view, columns)
        statuses = [c for c in ("status", "verification_status") if c in frame.collect_schema()]
        return (
            before(frame, date_column, self.as_of)
            .filter(
                value_set.matches(pl.col(criterion.system), pl.col(criterion.code)),
                *[pl.col(status).is_in(NOT_HAPPENED).fill_null(value=False).not_() for status in statuses],
                *[pl.col(column).is_in(allowed) for column, allowed in criterion.where.items()],
                pl.col(self.subject_column).is_not_null(),
            )
            .select(
                pl.col(self.subject_column).alias("patient_id"),
                time_expr(frame, date_column).dt.date().alias("day"),
                _fits(criterion.value).alias("fits"),
                _wrong_unit(criterion.value).alias("wrong_unit"),
            )
        )

    def view(self, name: str) -> pl.LazyFrame:
        """Return a view.

        Raises:
            StudyError: It was not given.
        """
        frame = self.views.get(name)
        if frame is None:
            raise StudyError(
                f"The cohort reads the view '{name}', which was not given.",
                remedy=f"Add it to the study's views; known: {', '.join(sorted(self.views)) or 'none'}.",
            )
        return frame


def require_columns(frame: pl.LazyFrame, view: str, columns: Iterable[str]) -> None:
    """Check that a view has columns.

    Raises:
        StudyError: One is missing.
    """
    names = frame.collect_schema().names()
    missing = sorted(set(columns) - set(names))
    if missing:
        raise StudyError(
            f"The cohort needs {', '.join(missing)} of the view '{view}', which has no such column.",
            remedy=f"The view has: {', '.join(names)}.",
        )


def _fits(value: ValueRange | None) -> pl.Expr:
    if value is None:
        return pl.lit(value=True)
    number = pl.col(value.column).cast(pl.Float64)
    # In Polars NaN is greater than every number.
    conditions = [pl.col(value.unit_column).is_in(value.units), number.is_not_nan()]
    if value.at_least is not None:
        conditions.append(number >= value.at_least)
    if value.greater_than is not None:
        conditions.append(number > value.greater_than)
    if value.at_most is not None:
        conditions.append(number <= value.at_most)
    if value.less_than is not None:
        conditions.append(number < value.less_than)
    return pl.all_horizontal(conditions).fill_null(value=False)


def _wrong_unit(value: ValueRange | None) -> pl.Expr:
    if value is None:
        return pl.lit(value=False)
    known_unit = pl.col(value.unit_column).is_in(value.units).fill_null(value=False)
    return pl.col(value.column).is_not_null() & ~known_unit
