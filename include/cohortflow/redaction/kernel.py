"""Carries out a redaction plan on a table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Final

import polars as pl
import polars_hash

from cohortflow.errors import PolicyError
from cohortflow.model import ColumnType
from cohortflow.redaction.keys import PSEUDONYM_DIGITS, SHIFT_DIGITS, ProjectKey
from cohortflow.redaction.plan import ColumnRedaction, RedactionPlan
from cohortflow.redaction.policy import Action, Generalization
from cohortflow.redaction.zip3 import OUTSIDE

__all__ = ["MASK", "count_rows_without_subject", "redact"]

MASK: Final = "[redacted]"
"""What a masked value becomes."""

_DAYS: Final = "cohortflow:shift_days"  # a name that no view can give a column
_US_ZIP: Final = r"^\s*(\d{3})(?:\d{2}(?:-?\d{4})?)?\s*$"
_YEAR: Final = r"^(\d{4})(?:-|$)"
_YEAR_MONTH: Final = r"^(\d{4}-\d{2})(?:-|$)"


class _KeyedHash:
    """HMAC-SHA256 of a text column, under a sub-key that stays out of the query plan.

    A native HMAC expression would carry the key as an argument, and serialising the plan would write it
    out. Inside a function of the plan it is not shown, and the project key refuses to be pickled.
    """

    __slots__ = ("_finish", "_key", "_subkey")

    def __init__(
        self, key: ProjectKey, subkey: Callable[[ProjectKey], str], finish: Callable[[pl.Expr], pl.Expr]
    ) -> None:
        self._key = key
        self._subkey = subkey
        self._finish = finish

    def __call__(self, values: pl.Series) -> pl.Series:
        digest = polars_hash.col("value").chash.hmac_sha256(key=self._subkey(self._key))
        frame = values.rename("value").to_frame()
        return frame.select(self._finish(digest)).to_series().rename(values.name)


def redact(frame: pl.LazyFrame, plan: RedactionPlan, key: ProjectKey, *, as_of: date) -> pl.LazyFrame:
    """Carry out a plan: the result has the plan's output columns, in their order, and no other.

    Row order is kept. Rows without a patient are dropped unless the policy says ``keep``; their dates
    are never left unshifted.

    Args:
        frame: Table with at least the columns that the plan does not drop.
        plan: What happens to each column.
        key: The project's key.
        as_of: Day at which ages are counted, the end of the data interval: with an age cap of 89, no
            date lies before 1 January of the year 90 years earlier, since it would tell an age over 89.

    Raises:
        PolicyError: The table lacks a column of the plan, or a date column has another type.
    """
    _check_schema(frame, plan)
    cap = plan.policy.age_cap
    floor = None if cap is None else as_of.year - cap - 1
    if plan.subject and plan.policy.rows_without_subject == "drop":
        frame = frame.filter(_names_subject(plan.subject))
    if any(entry.treatment.action is Action.SHIFT for entry in plan.columns):
        frame = frame.with_columns(_draw_days(plan, key).alias(_DAYS))
    return frame.select(
        _redact_column(entry, entry.output.name, plan, key, floor)
        for entry in plan.columns
        if entry.output is not None
    )


def count_rows_without_subject(frame: pl.LazyFrame, plan: RedactionPlan) -> pl.LazyFrame:
    """Return one row, ``rows: u32``: how many rows of the table name no patient."""
    nameless = ~_names_subject(plan.subject) if plan.subject else pl.lit(value=True)
    return frame.filter(nameless).select(pl.len().alias("rows"))


def _names_subject(subject: str) -> pl.Expr:
    value = pl.col(subject)
    return value.is_not_null() & (value.cast(pl.String) != "")


def _redact_column(
    entry: ColumnRedaction, name: str, plan: RedactionPlan, key: ProjectKey, floor: int | None
) -> pl.Expr:
    value = pl.col(entry.column.name)
    match entry.treatment.action:
        case Action.KEEP:
            redacted = value
        case Action.HASH:
            redacted = _hash(value, entry.kind, key)
        case Action.SHIFT:
            redacted = _shift(value, entry.column.type, floor)
        case Action.MASK:
            redacted = pl.when(value.is_not_null()).then(pl.lit(MASK))
        case Action.GENERALIZE:
            redacted = _generalize(value, entry, plan, floor)
        case Action.DROP:  # the caller leaves such columns out
            redacted = pl.lit(None)
    return redacted.alias(name)


def _hash(value: pl.Expr, kind: str, key: ProjectKey) -> pl.Expr:
    keyed = _KeyedHash(
        key, lambda project: project.pseudonym_key(kind), lambda digest: digest.str.head(PSEUDONYM_DIGITS)
    )
    return value.cast(pl.String).map_batches(keyed, return_dtype=pl.String, is_elementwise=True)


def _draw_days(plan: RedactionPlan, key: ProjectKey) -> pl.Expr:
    """Return the days by which each row's patient is shifted; null where the row names none."""
    window = plan.policy.shift_days

    def draw(digest: pl.Expr) -> pl.Expr:
        days = digest.str.head(SHIFT_DIGITS).str.to_integer(base=16, dtype=pl.Int64) % (2 * window) - window
        return pl.when(days < 0).then(days).otherwise(days + 1)

    keyed = _KeyedHash(key, ProjectKey.shift_key, draw)
    subject = pl.col(plan.subject).cast(pl.String)
    subject = pl.when(subject != "").then(subject)
    return subject.map_batches(keyed, return_dtype=pl.Int64, is_elementwise=True)


def _shift(value: pl.Expr, kind: ColumnType, floor: int | None) -> pl.Expr:
    shifted = (value + pl.duration(days=pl.col(_DAYS))).cast(_DTYPES[kind])
    if floor is None:
        return shifted
    first = pl.lit(date(floor, 1, 1)).cast(_DTYPES[kind])
    return pl.when(shifted < first).then(first).otherwise(shifted)


def _generalize(value: pl.Expr, entry: ColumnRedaction, plan: RedactionPlan, floor: int | None) -> pl.Expr:
    text = entry.column.type is ColumnType.STRING
    match entry.treatment.to:
        case Generalization.YEAR:
            year = value.str.extract(_YEAR) if text else value.dt.year()
            year = year.cast(pl.Int64)
            return year if floor is None else year.clip(lower_bound=floor)
        case Generalization.YEAR_MONTH:
            month = value.str.extract(_YEAR_MONTH) if text else value.dt.strftime("%Y-%m")
            if floor is None:
                return month
            first = pl.lit(f"{floor:04d}-01")
            return pl.when(month < first).then(first).otherwise(month)
        case Generalization.ZIP3:
            prefix = value.str.extract(_US_ZIP)
            restricted = prefix.is_in(sorted(plan.policy.restricted_prefixes()))
            safe = pl.when(restricted).then(pl.lit(OUTSIDE)).otherwise(prefix).fill_null(OUTSIDE)
            return pl.when(value.is_not_null()).then(safe)
        case Generalization.AGE:
            cap = plan.policy.age_cap
            if cap is None:
                return value
            # An age between the cap and the next birthday, such as 89.5, is not above the cap.
            return pl.when(value >= cap + 1).then(cap + 1).otherwise(value).cast(_DTYPES[entry.column.type])
        case _:
            raise PolicyError(f"No way to generalize to '{entry.treatment.to}'.", place=entry.column.name)


_DTYPES: Final[dict[ColumnType, pl.DataType]] = {
    ColumnType.STRING: pl.String(),
    ColumnType.BOOLEAN: pl.Boolean(),
    ColumnType.INTEGER: pl.Int64(),
    ColumnType.FLOAT: pl.Float64(),
    ColumnType.DECIMAL: pl.Decimal(38, 10),
    ColumnType.DATE: pl.Date(),
    ColumnType.DATETIME: pl.Datetime("us", "UTC"),
}


def _check_schema(frame: pl.LazyFrame, plan: RedactionPlan) -> None:
    schema = frame.collect_schema()
    needed = [entry for entry in plan.columns if entry.output is not None]
    missing = [entry.column.name for entry in needed if entry.column.name not in schema]
    if plan.subject and plan.subject not in schema:
        missing.append(plan.subject)
    if missing:
        raise PolicyError(
            f"The table lacks {', '.join(sorted(set(missing)))}.",
            place=plan.view,
            remedy="Plan the redaction from the columns of this table.",
        )
    for entry in needed:
        found = schema[entry.column.name]
        expected = _DTYPES[entry.column.type]
        if entry.treatment.action in {Action.SHIFT, Action.GENERALIZE} and found != expected:
            raise PolicyError(
                f"The column has type {found}, but the plan was made for {expected}.",
                place=f"{plan.view}.{entry.column.name}",
                remedy="Plan the redaction from the columns of this table.",
            )
