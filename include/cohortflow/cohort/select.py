"""The selection of a cohort: index dates, inclusion, attrition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

import polars as pl

from cohortflow.cohort.definition import (
    STANDARD_TIME_COLUMNS,
    AbsentRule,
    AgeRule,
    AliveRule,
    CohortDefinition,
    InclusionRule,
    ObservedRule,
    SexRule,
    Window,
)
from cohortflow.cohort.events import CodeMatcher, EventSource, require_columns
from cohortflow.cohort.filters import time_expr, utc_literal

__all__ = ["CohortSelection", "age_expr", "select_cohort"]


@dataclass(frozen=True, slots=True)
class CohortSelection:
    """A cohort, not yet computed.

    Attributes:
        subjects: ``patient_id`` (unique, sorted), ``index_date`` (DATE), ``age_at_index`` (INTEGER, completed
            years, null without birth date).
        attrition: One row for the entry event and one for each rule, in order: ``step`` from 1,
            ``criterion``, ``n_before``, ``n_excluded``, ``n_after`` (patients); ``n_unit_mismatch``: patients
            before the step with an event that would count but for its unit; ``n_unknown``: patients excluded
            because the birth date or gender is missing.
    """

    subjects: pl.LazyFrame
    attrition: pl.LazyFrame

    def collect(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Compute subjects and attrition in one pass over the views."""
        subjects, attrition = pl.collect_all([self.subjects, self.attrition], engine="streaming")
        return subjects, attrition


@dataclass(frozen=True, slots=True)
class _Step:
    """A line of the attrition as columns of the candidates, none of them null."""

    criterion: str
    passes: pl.Expr
    wrong_unit: pl.Expr
    unknown: pl.Expr


def select_cohort(
    views: Mapping[str, pl.LazyFrame],
    definition: CohortDefinition,
    value_sets: Mapping[str, CodeMatcher],
    as_of: datetime,
    *,
    time_columns: Mapping[str, str] = STANDARD_TIME_COLUMNS,
    subject_column: str = "patient_id",
) -> CohortSelection:
    """Select the patients of a cohort.

    Args:
        views: View frames by name; those of ``definition.views`` are needed.
        definition: Who is in the cohort.
        value_sets: Value sets by name; those of ``definition.value_sets`` are needed.
        as_of: End of the data interval, with time zone. Facts dated at or after it do not count.
        time_columns: The column with the role ``time`` in each view.
        subject_column: Patient column of every view.

    Raises:
        StudyError: A view, value set or column is missing, or ``as_of`` has no time zone.
    """
    source = EventSource(views, value_sets, as_of, time_columns, subject_column)
    patients = _read_patients(source, definition)
    index = _find_index(source, definition)
    candidates = patients.join(index, on="patient_id", how="left")
    indexed = candidates.filter(pl.col("index_date").is_not_null()).select("patient_id", "index_date")
    steps = [
        _Step(
            definition.entry.describe(),
            pl.col("index_date").is_not_null(),
            pl.col("__wrong_unit").fill_null(value=False),
            pl.lit(value=False),
        )
    ]
    for number, rule in enumerate(definition.inclusion):
        if isinstance(rule, ObservedRule | AbsentRule):
            found = _count_days(source, rule, indexed, number)
            candidates = candidates.join(found, on="patient_id", how="left")
        steps.append(_judge(rule, number, as_of))
    flags = candidates.with_columns(
        age_expr(pl.col("birth_date"), pl.col("index_date")).alias("age_at_index"),
        *[
            pl.all_horizontal([step.passes for step in steps[: position + 1]]).alias(f"__kept_{position}")
            for position in range(len(steps))
        ],
    )
    subjects = (
        flags.filter(pl.col(f"__kept_{len(steps) - 1}"))
        .select("patient_id", "index_date", "age_at_index")
        .sort("patient_id")
    )
    return CohortSelection(subjects, _count_steps(flags, steps))


def age_expr(birth_date: pl.Expr, on: pl.Expr) -> pl.Expr:
    """Return completed years by the calendar, INTEGER; who is born on 29 February ages on 1 March."""
    day_of_year = on.dt.month().cast(pl.Int64) * 100 + on.dt.day()
    birthday = birth_date.dt.month().cast(pl.Int64) * 100 + birth_date.dt.day()
    years = on.dt.year().cast(pl.Int64) - birth_date.dt.year()
    return years - (day_of_year < birthday).cast(pl.Int64)


def _read_patients(source: EventSource, definition: CohortDefinition) -> pl.LazyFrame:
    """Return one row per patient with what the rules read: ``birth_date``, ``gender``, ``__dead``."""
    frame = source.view("patient")
    columns = ["birth_date"]
    facts = [pl.col("birth_date").cast(pl.Date)]
    if any(isinstance(rule, SexRule) for rule in definition.inclusion):
        columns.append("gender")
        facts.append(pl.col("gender"))
    mortal = any(isinstance(rule, AliveRule) for rule in definition.inclusion)
    if mortal:
        columns += ["deceased", "deceased_at"]
    require_columns(frame, "patient", [source.subject_column, *columns])
    if mortal:
        facts.append(_dead_expr(frame, source.as_of).alias("__dead"))
    return (
        frame.filter(pl.col(source.subject_column).is_not_null())
        .select(pl.col(source.subject_column).alias("patient_id"), *facts)
        # A view with one row per name or address repeats its patients.
        .unique("patient_id", keep="first", maintain_order=True)
    )


def _dead_expr(frame: pl.LazyFrame, as_of: datetime) -> pl.Expr:
    died = time_expr(frame, "deceased_at") < utc_literal(as_of)
    undated = pl.col("deceased") & pl.col("deceased_at").is_null()
    return died.fill_null(value=False) | undated.fill_null(value=False)


def _find_index(source: EventSource, definition: CohortDefinition) -> pl.LazyFrame:
    """Return the day of the entry event of each patient with one, and whether a unit was in the way."""
    day = pl.col("day").filter(pl.col("fits"))
    return (
        source.find(definition.entry)
        .group_by("patient_id")
        .agg(
            (day.min() if definition.entry.occurrence == "first" else day.max()).alias("index_date"),
            pl.col("wrong_unit").any().alias("__wrong_unit"),
        )
    )


def _count_days(
    source: EventSource, rule: ObservedRule | AbsentRule, indexed: pl.LazyFrame, number: int
) -> pl.LazyFrame:
    """Return on how many days of the window each patient had the event."""
    return (
        source.find(rule)
        .join(indexed, on="patient_id", how="inner")
        .filter(_in_window(rule.window))
        .group_by("patient_id")
        .agg(
            pl.col("day").filter(pl.col("fits")).n_unique().alias(f"__days_{number}"),
            pl.col("wrong_unit").any().alias(f"__wrong_unit_{number}"),
        )
    )


def _in_window(window: Window) -> pl.Expr:
    offset = (pl.col("day") - pl.col("index_date")).dt.total_days()
    inside = pl.lit(value=True)
    if window.from_day is not None:
        inside &= offset >= window.from_day
    if window.to_day is not None:
        inside &= offset <= window.to_day
    return inside


def _judge(rule: InclusionRule, number: int, as_of: datetime) -> _Step:
    no = pl.lit(value=False)
    match rule:
        case ObservedRule() | AbsentRule():
            days = pl.col(f"__days_{number}").fill_null(0)
            passes = days >= rule.count if isinstance(rule, ObservedRule) else days == 0
            return _Step(rule.describe(), passes, pl.col(f"__wrong_unit_{number}").fill_null(value=False), no)
        case AgeRule():
            age = age_expr(pl.col("birth_date"), _age_date(rule, as_of))
            passes = age.is_not_null()
            if rule.at_least is not None:
                passes &= age >= rule.at_least
            if rule.at_most is not None:
                passes &= age <= rule.at_most
            return _Step(rule.describe(), passes.fill_null(value=False), no, age.is_null())
        case SexRule():
            passes = pl.col("gender").is_in(rule.any_of).fill_null(value=False)
            return _Step(rule.describe(), passes, no, pl.col("gender").is_null())
        case AliveRule():
            return _Step(rule.describe(), ~pl.col("__dead"), no, no)


def _age_date(rule: AgeRule, as_of: datetime) -> pl.Expr:
    if rule.at == "index":
        return pl.col("index_date")
    day: date = as_of.astimezone(UTC).date()
    return pl.lit(day)


def _count_steps(flags: pl.LazyFrame, steps: list[_Step]) -> pl.LazyFrame:
    kept = [pl.lit(value=True), *[pl.col(f"__kept_{position}") for position in range(len(steps))]]
    counts = {
        "n_before": kept[:-1],
        "n_after": kept[1:],
        "n_unit_mismatch": [k & step.wrong_unit for k, step in zip(kept, steps, strict=False)],
        "n_unknown": [k & step.unknown for k, step in zip(kept, steps, strict=False)],
    }
    return (
        flags.select(
            pl.concat_list([_count(condition) for condition in conditions]).alias(name)
            for name, conditions in counts.items()
        )
        .explode(list(counts))
        .with_columns(
            pl.Series("step", range(1, len(steps) + 1), pl.Int64),
            pl.Series("criterion", [step.criterion for step in steps]),
            (pl.col("n_before") - pl.col("n_after")).alias("n_excluded"),
        )
        .select("step", "criterion", "n_before", "n_excluded", "n_after", "n_unit_mismatch", "n_unknown")
    )


def _count(condition: pl.Expr) -> pl.Expr:
    return pl.when(condition).then(pl.col("patient_id")).count().cast(pl.Int64)
