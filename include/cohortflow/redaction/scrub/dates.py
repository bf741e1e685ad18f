"""Dates in texts: read where they can be read one way only, and moved like the dates of the tables."""

from __future__ import annotations

from datetime import date
from typing import Final

import polars as pl

from cohortflow.redaction.dates import PLACEHOLDERS
from cohortflow.redaction.scrub.days import WEEKDAY_AFTER, WEEKDAY_BEFORE
from cohortflow.redaction.scrub.spans import cut_texts

__all__ = ["read_dates", "take_weekdays", "write_dates"]

_GERMAN: Final = {
    "januar": "january",
    "februar": "february",
    "märz": "march",
    "maerz": "march",
    "mai": "may",
    "juni": "june",
    "juli": "july",
    "oktober": "october",
    "dezember": "december",
}
_WELL_KNOWN: Final = (
    *PLACEHOLDERS,
    *(date(1960, 1, 1), date(1980, 1, 1), date(1980, 1, 6), date(1999, 12, 31), date(2000, 1, 1)),
    # What the day is named after.
    *(date(1963, 11, 22), date(2001, 9, 11)),
)
"""Days that a reader recognises: what they became would tell by how many days the patient's dates moved."""

_FORMATS: Final = ("%B %d %Y", "%b %d %Y", "%d %B %Y", "%d %b %Y")


def read_dates(texts: pl.Expr) -> pl.Expr:
    """Return days, null for what is no whole date or could be two.

    ``2020-03-04``, ``March 4, 2020``, ``4 March 2020``, ``04.03.2020`` and ``3/14/2020`` can be read one way;
    ``3/4/2020`` cannot, nor can years of two digits.
    """
    iso = texts.str.extract(r"^(\d{4}-\d{2}-\d{2})(?:$|[T ])").str.to_date("%Y-%m-%d", strict=False)
    compact = texts.str.extract(r"^(\d{8})").str.to_date("%Y%m%d", strict=False)
    joined = texts.str.extract(r"^(\d{1,2}[A-Za-z]{3}\d{4})$").str.to_date("%d%b%Y", strict=False)
    dotted = texts.str.replace_all(" ", "", literal=True)
    dotted = dotted.str.extract(r"^(\d{1,2}\.\d{1,2}\.\d{4})$").str.to_date("%d.%m.%Y", strict=False)
    american = texts.str.replace_all("-", "/", literal=True)
    first = american.str.extract(r"^(\d{1,2})/\d{1,2}/\d{4}$").cast(pl.Int64)
    second = american.str.extract(r"^\d{1,2}/(\d{1,2})/\d{4}$").cast(pl.Int64)
    plain = (second > 12) | (first == second)  # noqa: PLR2004 - months
    american = pl.when(plain).then(american).str.to_date("%m/%d/%Y", strict=False)
    named = texts.str.to_lowercase().str.replace_all(r"(\d)(?:st|nd|rd|th)\b", "$1")
    named = named.str.replace_all(r"\bof\b|[.,-]", " ").str.replace_all(r"\bsept\b", "sep")
    named = named.str.replace_many(list(_GERMAN), list(_GERMAN.values()))
    named = named.str.replace_all(r"\s+", " ").str.strip_chars()
    whole = pl.when(named.str.contains(r"\d{4}$") & named.str.contains(r"[a-z]{3} ?|[a-z] \d")).then(named)
    spoken = [whole.str.to_date(form, strict=False) for form in _FORMATS]
    return pl.coalesce(iso, compact, joined, dotted, american, *spoken)


def write_dates(texts: pl.Expr, days: pl.Expr, floor: int | None, ceiling: int | None) -> pl.Expr:
    """Return what takes the place of dates: ``[DATE 2020-03-04]`` moved, ``[DATE]`` where that cannot be.

    Args:
        texts: Dates as they stand.
        days: By how many days each is moved; null where that is not known.
        floor: First year that is told; earlier dates would tell an age above the cap.
        ceiling: Last year of real dates: later ones mean "no end", and are recognised as well-known days are.
    """
    day = read_dates(texts)
    real = ~day.is_in(_WELL_KNOWN)
    if ceiling is not None:
        real &= day.dt.year() <= ceiling
    moved = pl.when(real).then(day + pl.duration(days=days))
    if floor is not None:
        moved = pl.when(moved >= date(floor, 1, 1)).then(moved)
    told = pl.concat_str(pl.lit("[DATE "), moved.dt.to_string("%Y-%m-%d"), pl.lit("]"))
    return told.fill_null("[DATE]")


def take_weekdays(texts: pl.Series, spans: pl.DataFrame) -> pl.DataFrame:
    """Return spans of which those of moved dates take the day of the week beside them along.

    Args:
        texts: The texts.
        spans: Rows with ``SPANS``, in order, without overlaps.
    """
    dates = (spans["tag"] == "DATE") & spans["put"].is_not_null()
    if not dates.any():
        return spans
    before = spans.select(pl.col("end").shift(1).over("row").fill_null(0))["end"]
    size = texts.str.len_bytes().cast(pl.Int64).gather(spans["row"])
    after = spans.select(pl.col("start").shift(-1).over("row"))["start"].fill_null(-1)
    after = pl.select(pl.when(after < 0).then(size).otherwise(after)).to_series()
    rows = spans["row"]
    day_before = cut_texts(texts, rows, before, spans["start"]).str.extract(WEEKDAY_BEFORE)
    day_after = cut_texts(texts, rows, spans["end"], after).str.extract(WEEKDAY_AFTER)
    more = [
        pl.select(
            pl.when(dates).then(day.str.len_bytes().cast(pl.Int64)).otherwise(0).fill_null(0)
        ).to_series()
        for day in (day_before, day_after)
    ]
    return spans.with_columns(start=pl.col("start") - more[0], end=pl.col("end") + more[1])
