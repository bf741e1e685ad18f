"""CVX: CDC's codes of administered vaccines.

Source: https://www2a.cdc.gov/vaccines/iis/iisstandards/vaccines.asp?rpt=cvx, the flat file ``cvx.txt``:
fields between bars, without a header, sometimes in UTF-16, codes filled up with blanks. Its fields are code,
short name, full name, notes, status, an internal number, whether it is no vaccine, and the date of the last
update; older files lack the internal number.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import polars as pl

from cohortflow.errors import InputError, MalformedDataError
from cohortflow.terminology.loaders.files import PUBLIC_DOMAIN_US, open_failure, require_file
from cohortflow.terminology.loaders.rows import NO_TEXT, make_table
from cohortflow.terminology.systems import CVX, canonical_code
from cohortflow.terminology.tables import Release

__all__ = ["load_cvx"]

_STATUSES = frozenset({"active", "inactive", "pending", "non-us", "never active"})
_FIELDS, _OLD_FIELDS = 8, 7
_DATES = ("%Y/%m/%d", "%m/%d/%Y", "%Y-%m-%d", "%Y%m%d")

# code, short name, full name, status, whether it is no vaccine, last update
_Vaccine = tuple[str, str, str, str, str, date | None]


def load_cvx(path: Path, *, version: str | None = None) -> Release:
    """Read CDC's flat file.

    A vaccine that is no longer given is *inactive* to CDC, but records of the past hold it rightly: its
    concept stays active here, with CDC's status as an attribute. Only codes that were ``never active`` are
    not.

    Args:
        path: The file.
        version: Name of the version; by default the latest date of an update in it, as CDC names none.

    Returns:
        Concepts with their short names, synonyms (full names), and the attributes ``status`` and
        ``nonvaccine``.

    Raises:
        InputError: The file is not there, or has no fields between bars.
        MalformedDataError: A line has too few fields, an unknown status or a malformed date; the place names
            it.
    """
    vaccines = list(_read(_decode(require_file(path)), path))
    latest = max((updated for *_, updated in vaccines if updated is not None), default=None)
    name = version or (latest.isoformat() if latest else "")
    if not name:
        raise InputError("The file does not tell its version.", place=str(path), remedy="Name it: --version.")
    rows = pl.LazyFrame(
        vaccines,
        schema={
            "code": pl.String,
            "display": pl.String,
            "full": pl.String,
            "status": pl.String,
            "nonvaccine": pl.String,
            "effective": pl.Date,
        },
        orient="row",
    )
    tables = {
        "concepts": rows.with_columns(active=pl.col("status") != "never active", replaced_by=NO_TEXT),
        "synonyms": pl.concat(
            [
                rows.select("code", term="display", kind=pl.lit("preferred")),
                rows.filter(pl.col("full") != pl.col("display")).select(
                    "code", term="full", kind=pl.lit("synonym")
                ),
            ]
        ),
        "attributes": pl.concat(
            [rows.select("code", attribute=pl.lit(part), value=part) for part in ("status", "nonvaccine")]
        ).filter(pl.col("value") != ""),
    }
    return Release(
        system=CVX.uri,
        version=name,
        title=CVX.title,
        licence=PUBLIC_DOMAIN_US,
        source=(path.name,),
        tables={
            table: make_table(table, columns, system=CVX.uri, version=name)
            for table, columns in tables.items()
        },
    )


def _decode(path: Path) -> str:
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE} else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise open_failure(path, "text in UTF-8 or UTF-16") from None


def _read(text: str, path: Path) -> Iterator[_Vaccine]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        fields = [field.strip() for field in line.split("|")]
        if number == 1 and len(fields) == 1:
            raise open_failure(path, "CDC's cvx.txt, with bars between the fields")
        if number == 1 and not re.fullmatch(r"[0-9]+", fields[0]):
            continue  # a header that somebody added
        yield _read_vaccine(fields, place)


def _read_vaccine(fields: list[str], place: str) -> _Vaccine:
    remedy = "Get the file again; a line must not be broken, and its fields hold no bar."
    if len(fields) not in {_FIELDS, _OLD_FIELDS}:
        raise MalformedDataError(
            f"The line has {len(fields)} fields, not {_FIELDS}.", place=place, remedy=remedy
        )
    code = canonical_code(CVX.uri, fields[0])
    if not re.fullmatch(CVX.syntax, code) or not fields[1]:
        raise MalformedDataError("The line has no code, or no name.", place=place, remedy=remedy)
    status = fields[4].lower()
    if status not in _STATUSES:
        raise MalformedDataError("The status is none of CDC's.", place=place, remedy=remedy)
    return code, fields[1], fields[2] or fields[1], status, fields[-2].lower(), _read_date(fields[-1], place)


def _read_date(text: str, place: str) -> date | None:
    if not text:
        return None
    day = re.split(r"[ T]", text)[0]
    for form in _DATES:
        try:
            return datetime.strptime(day, form).date()  # noqa: DTZ007  # a date has no zone
        except ValueError:
            continue
    raise MalformedDataError(
        "The date of the last update is malformed.", place=place, remedy="Write it as 2026/01/31."
    )
