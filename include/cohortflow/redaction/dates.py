"""Dates: moved by days, or cut to the year or the month; as dates, or as FHIR writes them.

FHIR's dates may be partial, and text columns hold them as written: ``2020``, ``2020-03``, ``2020-03-04`` or
``2020-03-04T05:06:07+01:00``. A partial date stands for the first day of what it spans, as in columns of
dates, and keeps its precision. What is no date becomes null, also where it begins with one.

No date is told that lies before ``floor``, the year whose dates would tell an age above the policy's cap.
One after ``ceiling`` becomes null, and so does each of ``PLACEHOLDERS`` where dates are moved: systems write
9999-12-31 or 2099-12-31 for "no end" and 1970-01-01 for "unknown", and what became of it would tell by how
many days the patient's dates were moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Final

import polars as pl

__all__ = ["PLACEHOLDERS", "Span", "only_dates", "shift_date", "shift_text", "to_year", "to_year_month"]

PLACEHOLDERS: Final = (
    *(date(1753, 1, 1), date(1800, 1, 1), date(1840, 12, 31), date(1841, 1, 1), date(1858, 11, 17)),
    *(date(1899, 12, 30), date(1899, 12, 31), date(1900, 1, 1), date(1901, 1, 1), date(1904, 1, 1)),
    *(date(1911, 11, 11), date(1969, 12, 31), date(1970, 1, 1), date(2038, 1, 19)),
)
"""Days where systems begin or end to count, and write for "unknown".

The first days of 1960, 1980 and 2000 are such days too, but oftener a year of which no more is known.
"""

# ASCII digits only: \d would also match those of other scripts.
_MONTH: Final = r"[0-9]{4}-(?:0[1-9]|1[0-2])"
_DAY: Final = rf"{_MONTH}-(?:0[1-9]|[12][0-9]|3[01])"
_CLOCK: Final = r"T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?:Z|[+-][0-9]{2}:[0-9]{2})?"
# Without groups to capture, which would take six times as long.
_WRITTEN: Final = rf"^(?:[0-9]{{4}}|{_MONTH}|{_DAY}(?:{_CLOCK})?)$"
_CLOCK_ALONE: Final = r"^[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?$"
_DAY_DIGITS: Final = 10
_LAST_PLAIN_YEAR: Final = 9999
_REST: Final = "-01-01"
"""What a date lacks that is only a year."""


@dataclass(frozen=True, slots=True)
class Span:
    """The years whose dates may be told.

    Attributes:
        floor: The first; earlier dates are told as its first day. ``None``: no such limit.
        ceiling: The last; later dates are placeholders.
    """

    floor: int | None = None
    ceiling: int = _LAST_PLAIN_YEAR


def only_dates(value: pl.Expr) -> pl.Expr:
    """Return dates and times of day as FHIR writes them; null for any other text."""
    return pl.when(value.str.contains(_WRITTEN) | value.str.contains(_CLOCK_ALONE)).then(value)


def shift_date(value: pl.Expr, days: pl.Expr, span: Span, dtype: pl.DataType) -> pl.Expr:
    """Return dates or moments of a type moved by whole days; null where ``days`` is, and for placeholders."""
    return _move(value, days, span, dtype, _is_placeholder(value.cast(pl.Date)))


def _is_placeholder(day: pl.Expr) -> pl.Expr:
    return day.is_in(PLACEHOLDERS)


def _move(value: pl.Expr, days: pl.Expr, span: Span, dtype: pl.DataType, is_placeholder: pl.Expr) -> pl.Expr:
    shifted = pl.when(value.dt.year() <= span.ceiling).then((value + days).cast(dtype))
    told = pl.when(~is_placeholder).then(shifted)
    if span.floor is None:
        return told
    first = pl.lit(date(span.floor, 1, 1)).cast(dtype)
    return pl.when(shifted < first).then(first).otherwise(told)


def shift_text(value: pl.Expr, days: pl.Expr, span: Span, *, times: bool) -> pl.Expr:
    """Return dates as FHIR writes them, moved by whole days.

    Args:
        value: The dates.
        days: Duration by which each is moved.
        span: The years that may be told.
        times: Whether times of day, and their zones, are kept; they are not moved.
    """
    written = _read_written(value)
    digits = written.str.len_bytes()
    missing = pl.lit(_REST).str.slice(digits.cast(pl.Int64) - 4)
    day = pl.concat_str(written, missing).str.to_date("%Y-%m-%d", strict=False)
    # A year or a month alone is what is known, and no placeholder.
    is_placeholder = (digits == _DAY_DIGITS) & _is_placeholder(day)
    moved = _move(day, days, span, pl.Date(), is_placeholder)
    shifted = moved.dt.to_string("%Y-%m-%d").str.head(digits)
    if not times:
        return shifted
    # The first moment that may be told has no time before it.
    early = pl.lit(value=False) if span.floor is None else day + days < date(span.floor, 1, 1)
    time = pl.when(early).then(pl.lit("")).otherwise(value.str.slice(_DAY_DIGITS))
    return pl.concat_str(shifted, time)


def _read_written(value: pl.Expr) -> pl.Expr:
    """Return dates as written, without the time; null for what is no date."""
    return pl.when(value.str.contains(_WRITTEN)).then(value.str.head(_DAY_DIGITS))


def to_year(value: pl.Expr, span: Span, *, text: bool) -> pl.Expr:
    """Return the years, as 64-bit numbers."""
    year = _read_written(value).str.head(4) if text else value.dt.year()
    year = year.cast(pl.Int64)
    year = pl.when(year <= span.ceiling).then(year)
    return year if span.floor is None else year.clip(lower_bound=span.floor)


def to_year_month(value: pl.Expr, span: Span, *, text: bool) -> pl.Expr:
    """Return years with months as ``YYYY-MM``; null where the month is not known."""
    month = _read_written(value).str.extract("^(.{7})") if text else value.dt.strftime("%Y-%m")
    month = pl.when(month <= f"{span.ceiling:04d}-12").then(month)
    if span.floor is None:
        return month
    first = pl.lit(f"{span.floor:04d}-01")
    return pl.when(month < first).then(first).otherwise(month)
