"""FHIR dates and times as Polars expressions.

A FHIR date may be a year or a month (``1970``, ``1970-06``); it then stands for a span of time. Two such
values compare only where the answer is the same for every instant of the span, else the result is empty
(FHIRPath 2.0.0, section 6.2). A dateTime without a time zone is read as UTC. A text that is no FHIR date
becomes null.
"""

from __future__ import annotations

import polars as pl

from cohortflow.fhir.views.types import BOUND_WIDTHS

__all__ = ["bound", "span_of", "to_date", "to_timestamp"]

_YEAR, _MONTH, _DAY, _MINUTE, _SECOND = 4, 7, 10, 16, 19
_STEP = pl.duration(microseconds=1)


def _pad(text: pl.Expr) -> pl.Expr:
    """Complete a partial date to its first instant, and a missing time zone to UTC."""
    length = text.str.len_bytes()
    zone = pl.when(text.str.tail(6).str.contains("[Z+-]")).then(text).otherwise(text + "Z")
    return (
        pl.when(length > _DAY)
        .then(pl.when(length == _MINUTE).then(text + ":00Z").otherwise(zone))
        .when(length == _DAY)
        .then(text + "T00:00:00Z")
        .when(length == _MONTH)
        .then(text + "-01T00:00:00Z")
        .when(length == _YEAR)
        .then(text + "-01-01T00:00:00Z")
    )


def to_timestamp(text: pl.Expr) -> pl.Expr:
    """Return the first instant of a date or dateTime, as Datetime in microseconds, UTC."""
    return _pad(text).str.to_datetime("%+", time_unit="us", strict=False)


def to_date(text: pl.Expr) -> pl.Expr:
    """Return the first day of a date or dateTime; the day is the one written, not that in UTC."""
    length = text.str.len_bytes()
    day = (
        pl.when(length >= _DAY)
        .then(text.str.slice(0, _DAY))
        .when(length == _MONTH)
        .then(text + "-01")
        .when(length == _YEAR)
        .then(text + "-01-01")
    )
    return day.str.to_date("%Y-%m-%d", strict=False)


def span_of(text: pl.Expr, kind: str) -> tuple[pl.Expr, pl.Expr]:
    """Return first and last instant of a value of the kind ``date`` or ``time``."""
    if kind == "time":
        low = to_timestamp("1970-01-01T" + bound_time(text, high=False) + "Z")
        high = to_timestamp("1970-01-01T" + bound_time(text, high=True) + "Z")
        return low, pl.when(text.str.len_bytes() < len("10:00:00")).then(high).otherwise(low)
    low = to_timestamp(text)
    length = text.str.len_bytes()
    high = (
        pl.when(length == _DAY)
        .then(low.dt.offset_by("1d") - _STEP)
        .when(length == _MONTH)
        .then(low.dt.offset_by("1mo") - _STEP)
        .when(length == _YEAR)
        .then(low.dt.offset_by("1y") - _STEP)
        .when(length == _MINUTE)
        .then(low.dt.offset_by("1m") - _STEP)
        .otherwise(low)
    )
    return low, high


def bound_date(text: pl.Expr, *, high: bool) -> pl.Expr:
    """Return the first or last day that a date may mean, as text."""
    length = text.str.len_bytes()
    first = to_date(text)
    if not high:
        return pl.when(length >= _DAY).then(text).otherwise(first.dt.strftime("%Y-%m-%d"))
    return (
        pl.when(length == _YEAR)
        .then(text + "-12-31")
        .when(length == _MONTH)
        .then(first.dt.month_end().dt.strftime("%Y-%m-%d"))
        .otherwise(text)
    )


def bound_datetime(text: pl.Expr, *, high: bool) -> tuple[pl.Expr, pl.Expr]:
    """Return the first or last instant that a dateTime may mean, as text to the millisecond, and its zone.

    Where the value has no time zone, the extreme ones count: +14:00 for the first, -12:00 for the last.
    """
    time, zone = ("T23:59:59.999", "-12:00") if high else ("T00:00:00.000", "+14:00")
    day = bound_date(text.str.slice(0, _DAY), high=high)
    rest = text.str.slice(_DAY)
    digits = rest.str.extract(r"^T([0-9:.]+)")
    given = rest.str.extract(r"(Z|[+-][0-9:]+)$").fill_null(zone)
    exact = day + "T" + bound_time(digits, high=high)
    return pl.when(text.str.len_bytes() > _DAY).then(exact).otherwise(day + time), given


def bound_time(text: pl.Expr, *, high: bool) -> pl.Expr:
    """Return the first or last instant that a time may mean, as text to the millisecond, or finer."""
    rest = "59:59.999" if high else "00:00.000"
    # What is missing: all behind the hour, ..., the last digit of the milliseconds.
    missing = {
        "HH": ":" + rest,
        "HH:MM": ":" + rest[3:],
        "HH:MM:SS": rest[5:],
        "HH:MM:SS.s": rest[-2:],
        "HH:MM:SS.ss": rest[-1:],
    }
    length = text.str.len_bytes()
    chosen = (pl.when(length == len(form)).then(text + end) for form, end in missing.items())
    return pl.coalesce(*chosen, text)


def bound(text: pl.Expr, kind: str, *, high: bool, precision: int | None) -> pl.Expr:
    """Return the first or last value that a date or time may mean, as text.

    Args:
        text: The values.
        kind: ``date``, ``dateTime`` or ``time``.
        high: Whether the last is wanted.
        precision: Number of digits of the result, one of ``BOUND_WIDTHS``.
    """
    width = None if precision is None else BOUND_WIDTHS[kind][precision]
    if kind == "date":
        found = bound_date(text.str.slice(0, _DAY), high=high)
    elif kind == "time":
        found = bound_time(text, high=high)
    else:
        found, zone = bound_datetime(text, high=high)
        if width is None or width > _DAY:
            return (found if width is None else found.str.slice(0, width)) + zone
    return found if width is None else found.str.slice(0, width)
