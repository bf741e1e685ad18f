"""Dates in texts: read where they can be read one way only, and moved like the dates of the tables."""

from __future__ import annotations

from datetime import date
from typing import Final

import polars as pl

__all__ = ["read_dates", "write_dates"]

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
_FORMATS: Final = ("%B %d %Y", "%b %d %Y", "%d %B %Y", "%d %b %Y")


def read_dates(texts: pl.Expr) -> pl.Expr:
    """Return days, null for what is no whole date or could be two.

    ``2020-03-04``, ``March 4, 2020``, ``4 March 2020``, ``04.03.2020`` and ``3/14/2020`` can be read one way;
    ``3/4/2020`` cannot, nor can years of two digits.
    """
    iso = texts.str.extract(r"^(\d{4}-\d{2}-\d{2})(?:$|[T ])").str.to_date("%Y-%m-%d", strict=False)
    compact = texts.str.extract(r"^(\d{8})").str.to_date("%Y%m%d", strict=False)
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
    return pl.coalesce(iso, compact, dotted, american, *spoken)


def write_dates(texts: pl.Expr, days: pl.Expr, floor: int | None) -> pl.Expr:
    """Return what takes the place of dates: ``[DATE 2020-03-04]`` moved, ``[DATE]`` where that cannot be.

    Args:
        texts: Dates as they stand.
        days: By how many days each is moved; null where that is not known.
        floor: First year that is told; earlier dates would tell an age above the cap.
    """
    moved = read_dates(texts) + pl.duration(days=days)
    if floor is not None:
        moved = pl.when(moved >= date(floor, 1, 1)).then(moved)
    told = pl.concat_str(pl.lit("[DATE "), moved.dt.to_string("%Y-%m-%d"), pl.lit("]"))
    return told.fill_null("[DATE]")
