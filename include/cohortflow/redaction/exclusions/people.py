"""Patients who are left out or masked for who they are: their age, or that they are on a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cohortflow.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import date

__all__ = ["IDENTIFIER_VIEW", "PERSON_VIEW", "find_listed", "find_minors", "parse_list"]

PERSON_VIEW: Final[dict[str, Any]] = {
    "resourceType": "ViewDefinition",
    "name": "exclusions_person",
    "status": "active",
    "resource": "Patient",
    "select": [
        {
            "column": [
                {"name": "patient_id", "path": "getResourceKey()"},
                {"name": "birth_date", "path": "birthDate"},
            ]
        }
    ],
}
"""A ViewDefinition with a row per Patient; the birth date is the text that the source gives."""

IDENTIFIER_VIEW: Final[dict[str, Any]] = {
    "resourceType": "ViewDefinition",
    "name": "exclusions_identifier",
    "status": "active",
    "resource": "Patient",
    "select": [
        {"column": [{"name": "patient_id", "path": "getResourceKey()"}]},
        {
            "forEach": "identifier",
            "column": [{"name": "system", "path": "system"}, {"name": "value", "path": "value"}],
        },
    ],
}
"""A ViewDefinition with a row per ``Patient.identifier``."""

_YEAR, _MONTH, _DAY = 4, 7, 10


def find_minors(people: pl.LazyFrame, *, below: int, on: date) -> pl.LazyFrame:
    """Return the ids of patients who may be younger than an age.

    Of a birth date without day or month the latest day that it may mean counts. Without a birth date nobody
    knows, so the patient is among them.

    Args:
        people: Rows of ``PERSON_VIEW``.
        below: Completed years that an adult has at least.
        on: The day.

    Returns:
        ``patient_id``, unique.
    """
    born = _latest_birthday(pl.col("birth_date"))
    # Who was born on 29 February comes of age on 1 March, as a leap day is missing in most years.
    of_age = pl.date(born.dt.year() + below, born.dt.month(), 1) + pl.duration(days=born.dt.day() - 1)
    return people.filter(~(of_age <= on).fill_null(value=False)).select("patient_id").unique()


def _latest_birthday(text: pl.Expr) -> pl.Expr:
    length = text.str.len_bytes()
    year = (text.str.slice(0, _YEAR) + "-12-31").str.to_date("%Y-%m-%d", strict=False)
    month = (text + "-01").str.to_date("%Y-%m-%d", strict=False).dt.month_end()
    day = text.str.to_date("%Y-%m-%d", strict=False)
    return (
        pl.when(length == _DAY).then(day).when(length == _MONTH).then(month).when(length == _YEAR).then(year)
    )


def parse_list(content: bytes, *, place: str) -> pl.DataFrame:
    """Read a list of patients: one id or identifier a line, or ``system|value``; ``#`` begins a remark.

    Args:
        content: The file, UTF-8.
        place: Its name, for messages.

    Returns:
        ``system: str`` (null for any), ``value: str``, each once.

    Raises:
        ConfigurationError: It is not UTF-8, or names nobody: an empty list protects no one. The text holds no
            line of it.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(
            "The list of patients is not UTF-8 text.", place=place, remedy="Save it as UTF-8."
        ) from None
    lines = [line.strip() for line in text.splitlines()]
    entries = [line.rpartition("|") for line in lines if line and not line.startswith("#")]
    rows = [(system or None, value.strip()) for system, _, value in entries if value.strip()]
    if not rows:
        raise ConfigurationError(
            "The list of patients names nobody.",
            place=place,
            remedy="Put one id or identifier on each line, or take the list out of the exclusions.",
        )
    return pl.DataFrame(rows, schema={"system": pl.String, "value": pl.String}, orient="row").unique(
        maintain_order=True
    )


def find_listed(
    people: pl.LazyFrame, identifiers: pl.LazyFrame, entries: pl.DataFrame
) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """Find the patients of a list by their id or by any of their identifiers.

    Args:
        people: Rows of ``PERSON_VIEW``.
        identifiers: Rows of ``IDENTIFIER_VIEW``.
        entries: As ``parse_list`` gives them.

    Returns:
        ``patient_id``, unique; and the entries that fit nobody.
    """
    wanted = entries.lazy()
    known = pl.concat(
        [
            people.select("patient_id", pl.lit(None, dtype=pl.String).alias("system"), value="patient_id"),
            identifiers.select("patient_id", "system", pl.col("value").str.strip_chars()),
        ]
    )
    anywhere = known.join(wanted.filter(pl.col("system").is_null()).select("value"), on="value")
    there = known.join(wanted.filter(pl.col("system").is_not_null()), on=["system", "value"])
    found = pl.concat([frame.select("patient_id") for frame in (anywhere, there)]).unique()
    unmatched = wanted.join(
        pl.concat(
            [
                anywhere.select(pl.lit(None, dtype=pl.String).alias("system"), "value"),
                there.select("system", "value"),
            ]
        ).unique(),
        on=["system", "value"],
        how="anti",
        nulls_equal=True,
    )
    return found, unmatched
