"""Carries out a redaction plan on a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Final

import polars as pl

from cohortflow.errors import PolicyError
from cohortflow.model import Column, ColumnType, PhiClass
from cohortflow.redaction.actions import Action, Generalization
from cohortflow.redaction.ages import NO_AGES, cap_results
from cohortflow.redaction.dates import Span, only_dates, shift_date, shift_text, to_year, to_year_month
from cohortflow.redaction.keyed import (
    KeyedColumn,
    add_keyed_columns,
    days_column,
    fraction_column,
    pseudonym_column,
)
from cohortflow.redaction.keys import ProjectKey
from cohortflow.redaction.numbers import add_noise, bin_numbers, limit
from cohortflow.redaction.plan import ColumnRedaction, RedactionPlan
from cohortflow.redaction.zip3 import OUTSIDE

__all__ = ["MASK", "OTHER", "Scrubber", "count_rows_without_subject", "redact"]

MASK: Final = "[redacted]"
"""What a masked value becomes."""

OTHER: Final = "other"
"""What a rare category becomes."""

Scrubber = Callable[[pl.Expr, Column], pl.Expr]
"""Takes identifiers out of a text column: the text and its column to the text that is left."""

# Names that no view can give a column.
_DAYS: Final = "cohortflow:shift_days"
_SUBJECT: Final = "cohortflow:subject"
_SEED: Final = "cohortflow:seed:"
_KEYED: Final = "cohortflow:keyed:"
_US_ZIP: Final = r"^\s*([0-9]{3})(?:[0-9]{2}(?:-?[0-9]{4})?)?\s*$"
_YEARS_AHEAD: Final = 20
"""Coverage, authorisations and care plans end within so many years; what is later is no plan but "no end"."""
_BETWEEN: Final = "\x1f"


@dataclass(frozen=True, slots=True)
class _Context:
    """What the redaction of each column may need."""

    plan: RedactionPlan
    span: Span
    scrub: Scrubber | None


def redact(
    frame: pl.LazyFrame,
    plan: RedactionPlan,
    key: ProjectKey,
    *,
    as_of: date,
    scrub: Scrubber | None = None,
    ages: pl.LazyFrame | None = None,
) -> pl.LazyFrame:
    """Carry out a plan: the result has the plan's output columns, in their order, and no other.

    Row order is kept. Rows without a patient are dropped unless the policy says ``keep``; their dates
    are never left unshifted.

    Args:
        frame: Table with at least the columns that the plan does not drop.
        plan: What happens to each column.
        key: The project's key.
        as_of: Day at which ages are counted, the end of the data interval: with an age cap of 89, no
            date lies before 1 January of the year 90 years earlier, since it would tell an age over 89.
            Dates more than 20 years later are placeholders, and null where dates are shifted or cut.
        scrub: Takes identifiers out of texts, where the plan asks for that.
        ages: Which results are ages above the cap, with the schema ``AGES``; demanded where the table shows
            results and the policy caps ages. ``NO_AGES`` says that none is.

    Raises:
        PolicyError: The table lacks a column of the plan, or one has another type; the plan asks to scrub,
            and nothing is given that does; it caps ages among results, and nothing says which these are.
    """
    _check_schema(frame, plan)
    if plan.age_places and ages is None:
        raise PolicyError(
            "The table shows results, and nothing says which of them are ages.",
            place=plan.view,
            remedy="Give the ages that were found in the records, or NO_AGES where none is a result.",
        )
    cap = plan.policy.age_cap
    floor = None if cap is None else as_of.year - cap - 1
    if plan.subject and plan.policy.rows_without_subject == "drop":
        frame = frame.filter(_names_subject(plan.subject))
    if ages is not None and ages is not NO_AGES:
        frame = cap_results(frame, plan, ages)
    context = _Context(plan, Span(floor, as_of.year + _YEARS_AHEAD), scrub)
    kept = [entry for entry in plan.columns if entry.output is not None]
    seeds, keyed = _plan_keyed(plan)
    needed = [entry.column.name for entry in kept] + ([plan.subject] if plan.subject else [])
    frame = frame.select(*dict.fromkeys(needed), *seeds)
    return add_keyed_columns(frame, keyed, key).select(
        _REDACTIONS[entry.treatment.action](pl.col(entry.column.name), entry, context).alias(
            entry.output.name
        )
        for entry in kept
        if entry.output is not None
    )


def _plan_keyed(plan: RedactionPlan) -> tuple[list[pl.Expr], list[KeyedColumn]]:
    """Return the columns to compute with the key, and before them what they are computed from."""
    seeds: list[pl.Expr] = []
    keyed: list[KeyedColumn] = []
    for entry in plan.columns:
        name = entry.column.name
        source, target = f"{_SEED}{name}", f"{_KEYED}{name}"
        if entry.treatment.action is Action.HASH:
            seeds.append(pl.col(name).cast(pl.String).alias(source))
            keyed.append(pseudonym_column(source, target, entry.kind))
        elif entry.treatment.action is Action.NOISE:
            # The same for the same patient, row and value, wherever the row stands.
            parts = [pl.col(part).cast(pl.String) for part in _identify_row(plan)]
            seed = pl.concat_str(
                [*parts, pl.col(name).cast(pl.String)], separator=_BETWEEN, ignore_nulls=True
            )
            seeds.append(pl.when(pl.col(name).is_not_null()).then(seed).alias(source))
            keyed.append(fraction_column(source, target, f"{plan.view}.{name}"))
    if any(entry.treatment.action is Action.SHIFT for entry in plan.columns):
        subject = pl.col(plan.subject).cast(pl.String)
        seeds.append(pl.when(subject != "").then(subject).alias(_SUBJECT))
        weeks = plan.policy.keep_day_of_week
        keyed.append(days_column(_SUBJECT, _DAYS, plan.policy.shift_days, weeks=weeks))
    return seeds, keyed


def _identify_row(plan: RedactionPlan) -> list[str]:
    return [name for name in dict.fromkeys((plan.subject, plan.row_key)) if name]


def count_rows_without_subject(frame: pl.LazyFrame, plan: RedactionPlan) -> pl.LazyFrame:
    """Return one row, ``rows: u32``: how many rows of the table name no patient."""
    nameless = ~_names_subject(plan.subject) if plan.subject else pl.lit(value=True)
    return frame.filter(nameless).select(pl.len().alias("rows"))


def _names_subject(subject: str) -> pl.Expr:
    value = pl.col(subject)
    return value.is_not_null() & (value.cast(pl.String) != "")


def _keep(value: pl.Expr, entry: ColumnRedaction, _context: _Context) -> pl.Expr:
    column = entry.column
    written = column.type is ColumnType.STRING and not column.collection and not column.computed
    # A text that is let out because it is a date must be one.
    return only_dates(value) if column.phi is PhiClass.DATE and written else value


def _mask(value: pl.Expr, _entry: ColumnRedaction, _context: _Context) -> pl.Expr:
    return pl.when(value.is_not_null()).then(pl.lit(MASK))


def _drop(_value: pl.Expr, _entry: ColumnRedaction, _context: _Context) -> pl.Expr:
    return pl.lit(None)  # dropped columns are left out before


def _hash(_value: pl.Expr, entry: ColumnRedaction, _context: _Context) -> pl.Expr:
    return pl.col(f"{_KEYED}{entry.column.name}")


def _shift(value: pl.Expr, entry: ColumnRedaction, context: _Context) -> pl.Expr:
    days = pl.duration(days=pl.col(_DAYS))
    times = context.plan.policy.times == "keep"
    if entry.column.type is ColumnType.STRING:
        return shift_text(value, days, context.span, times=times)
    shifted = shift_date(value, days, context.span, _DTYPES[entry.column.type])
    return shifted if times else shifted.cast(pl.Date)


def _scrub(value: pl.Expr, entry: ColumnRedaction, context: _Context) -> pl.Expr:
    if context.scrub is None:
        raise PolicyError(
            "The policy scrubs a text, and nothing is there that does so.",
            place=f"{context.plan.view}.{entry.column.name}",
            remedy="Let the study drop the column, or run it where texts can be scrubbed.",
        )
    return context.scrub(value, entry.column)


def _add_noise(value: pl.Expr, entry: ColumnRedaction, _context: _Context) -> pl.Expr:
    fraction = pl.col(f"{_KEYED}{entry.column.name}")
    return add_noise(value, fraction, entry.treatment, _DTYPES[entry.column.type])


def _generalize(value: pl.Expr, entry: ColumnRedaction, context: _Context) -> pl.Expr:
    generalization = entry.treatment.to
    if generalization is None:  # a treatment that generalizes says to what
        raise AssertionError
    return _GENERALIZATIONS[generalization](value, entry, context)


def _to_year(value: pl.Expr, entry: ColumnRedaction, context: _Context) -> pl.Expr:
    return to_year(value, context.span, text=entry.column.type is ColumnType.STRING)


def _to_year_month(value: pl.Expr, entry: ColumnRedaction, context: _Context) -> pl.Expr:
    return to_year_month(value, context.span, text=entry.column.type is ColumnType.STRING)


def _to_zip3(value: pl.Expr, _entry: ColumnRedaction, context: _Context) -> pl.Expr:
    prefix = value.str.extract(_US_ZIP)
    restricted = prefix.is_in(sorted(context.plan.policy.restricted_prefixes()))
    safe = pl.when(restricted).then(pl.lit(OUTSIDE)).otherwise(prefix).fill_null(OUTSIDE)
    return pl.when(value.is_not_null()).then(safe)


def _cap_age(value: pl.Expr, entry: ColumnRedaction, context: _Context) -> pl.Expr:
    cap = context.plan.policy.age_cap
    if cap is None:
        return value
    # An age between the cap and the next birthday, such as 89.5, is not above the cap.
    return pl.when(value >= cap + 1).then(cap + 1).otherwise(value).cast(_DTYPES[entry.column.type])


def _to_bins(value: pl.Expr, entry: ColumnRedaction, _context: _Context) -> pl.Expr:
    return bin_numbers(value, entry.treatment.edges or ())


def _limit(value: pl.Expr, entry: ColumnRedaction, _context: _Context) -> pl.Expr:
    return limit(value, entry.treatment).cast(_DTYPES[entry.column.type])


def _group_rare(value: pl.Expr, entry: ColumnRedaction, context: _Context) -> pl.Expr:
    patients = pl.col(context.plan.subject).drop_nulls().n_unique().over(value)
    common = pl.when(patients >= (entry.treatment.under or 0)).then(value).otherwise(pl.lit(OTHER))
    return pl.when(value.is_not_null()).then(common)


_Redaction = Callable[[pl.Expr, ColumnRedaction, _Context], pl.Expr]

_GENERALIZATIONS: Final[Mapping[Generalization, _Redaction]] = MappingProxyType(
    {
        Generalization.YEAR: _to_year,
        Generalization.YEAR_MONTH: _to_year_month,
        Generalization.ZIP3: _to_zip3,
        Generalization.AGE: _cap_age,
        Generalization.BINS: _to_bins,
        Generalization.LIMITS: _limit,
        Generalization.RARE: _group_rare,
    }
)

_REDACTIONS: Final[Mapping[Action, _Redaction]] = MappingProxyType(
    {
        Action.KEEP: _keep,
        Action.HASH: _hash,
        Action.SHIFT: _shift,
        Action.SCRUB: _scrub,
        Action.NOISE: _add_noise,
        Action.MASK: _mask,
        Action.GENERALIZE: _generalize,
        Action.DROP: _drop,
    }
)


_DTYPES: Final[dict[ColumnType, pl.DataType]] = {
    ColumnType.STRING: pl.String(),
    ColumnType.BOOLEAN: pl.Boolean(),
    ColumnType.INTEGER: pl.Int64(),
    ColumnType.FLOAT: pl.Float64(),
    ColumnType.DECIMAL: pl.Decimal(38, 10),
    ColumnType.DATE: pl.Date(),
    ColumnType.DATETIME: pl.Datetime("us", "UTC"),
}


_TYPED: Final = frozenset({Action.SHIFT, Action.GENERALIZE, Action.NOISE, Action.SCRUB})


def _check_schema(frame: pl.LazyFrame, plan: RedactionPlan) -> None:
    schema = frame.collect_schema()
    needed = [entry for entry in plan.columns if entry.output is not None]
    missing = [entry.column.name for entry in needed if entry.column.name not in schema]
    also = _identify_row(plan) if any(e.treatment.action is Action.NOISE for e in needed) else [plan.subject]
    also += [plan.record_key(place) for place in plan.age_places]
    missing += [name for name in also if name and name not in schema]
    if missing:
        raise PolicyError(
            f"The table lacks {', '.join(sorted(set(missing)))}.",
            place=plan.view,
            remedy="Plan the redaction from the columns of this table.",
        )
    for entry in needed:
        found = schema[entry.column.name]
        expected = _DTYPES[entry.column.type]
        if entry.treatment.action in _TYPED and found != expected:
            raise PolicyError(
                f"The column has type {found}, but the plan was made for {expected}.",
                place=f"{plan.view}.{entry.column.name}",
                remedy="Plan the redaction from the columns of this table.",
            )
