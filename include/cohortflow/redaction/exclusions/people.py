"""Patients who are left out or masked for who they are: their age, or that they are on a list."""

from __future__ import annotations

import re
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
                {"name": "died_on", "path": "deceased.ofType(dateTime)"},
                {"name": "is_deceased", "path": "deceased.ofType(boolean)"},
            ]
        }
    ],
}
"""A ViewDefinition with a row per Patient; dates are the texts that the source gives."""

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
# A remark begins after a blank: a number may hold the sign.
_REMARK: Final = re.compile(r"(?:^|\s)#.*")
# Marks of byte order, and blanks of no width, that editors and concatenated files leave behind.
_INVISIBLE: Final = str.maketrans("", "", "\ufeff\u200b\u2060")
_PATIENT: Final = "Patient/"


def find_minors(people: pl.LazyFrame, *, below: int, on: date) -> pl.LazyFrame:
    """Return the ids of patients who may be younger than an age.

    Of a birth date without day or month the latest day that it may mean counts. Without a birth date nobody
    knows, so the patient is among them. The dead do not grow older: the age at death counts, by the earliest
    day that the date may mean, and of whom it is only known that they died, nobody knows.

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
    died = _earliest_day(pl.col("died_on"))
    last_day = (
        pl.when(pl.col("died_on").is_not_null())
        .then(pl.when(died <= on).then(died).when(died > on).then(pl.lit(on)))
        .when(pl.col("is_deceased").fill_null(value=False))
        .then(None)
        .otherwise(pl.lit(on))
    )
    return people.filter(~(of_age <= last_day).fill_null(value=False)).select("patient_id").unique()


def _latest_birthday(text: pl.Expr) -> pl.Expr:
    length = text.str.len_bytes()
    year = (text.str.slice(0, _YEAR) + "-12-31").str.to_date("%Y-%m-%d", strict=False)
    month = (text + "-01").str.to_date("%Y-%m-%d", strict=False).dt.month_end()
    day = text.str.to_date("%Y-%m-%d", strict=False)
    return (
        pl.when(length == _DAY).then(day).when(length == _MONTH).then(month).when(length == _YEAR).then(year)
    )


def _earliest_day(text: pl.Expr) -> pl.Expr:
    """Return the first day that a FHIR dateTime may mean, as it is written."""
    length = text.str.len_bytes()
    padded = (
        pl.when(length == _YEAR)
        .then(text + "-01-01")
        .when(length == _MONTH)
        .then(text + "-01")
        .otherwise(text.str.slice(0, _DAY))
    )
    return padded.str.to_date("%Y-%m-%d", strict=False)


def parse_list(content: bytes, *, place: str) -> pl.DataFrame:
    """Read a list of patients: one id or identifier a line, or ``system|value``; ``#`` begins a remark.

    Blanks around systems and values, quotation marks around a line, and ``Patient/`` before an id do not
    count.

    Args:
        content: The file, UTF-8.
        place: Its name, for messages.

    Returns:
        ``system: str`` (null for any), ``value: str``, each once.

    Raises:
        ConfigurationError: It is not UTF-8, or a line names a system without a value, or nobody is named: an
            empty list protects no one. The text holds no line of it.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(
            "The list of patients is not UTF-8 text.", place=place, remedy="Save it as UTF-8."
        ) from None
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        entry = _REMARK.sub("", line.translate(_INVISIBLE)).strip().strip('"').strip()
        system, _, value = (part.strip() for part in entry.rpartition("|"))
        if value:
            rows.append((system or None, value if system else value.removeprefix(_PATIENT)))
        elif entry:
            raise ConfigurationError(
                f"Line {number} of the list of patients names nobody.",
                place=place,
                remedy="Write an id, an identifier or 'system|value'; begin remarks with '#'.",
            )
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
    """Find the patients of a list by their id or by any of their identifiers, in capitals or not.

    Args:
        people: Rows of ``PERSON_VIEW``.
        identifiers: Rows of ``IDENTIFIER_VIEW``.
        entries: As ``parse_list`` gives them.

    Returns:
        ``patient_id``, unique; and the entries that fit nobody, in small letters.
    """
    plain = [pl.col(name).str.strip_chars().str.to_lowercase() for name in ("system", "value")]
    wanted = entries.lazy().select(plain).unique(maintain_order=True)
    known = pl.concat(
        [
            people.select("patient_id", pl.lit(None, dtype=pl.String).alias("system"), value="patient_id"),
            identifiers.select("patient_id", "system", "value"),
        ]
    ).select("patient_id", *plain)
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
