"""ICD-10-CM's order file: all codes in order, with their long and short names.

Source: ``icd10cm_order_2026.txt`` of the Centers for Medicare & Medicaid Services,
https://www.cms.gov/medicare/coding-billing/icd-10-codes.
"""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from cohortflow.errors import InputError
from cohortflow.terminology.loaders.files import PUBLIC_DOMAIN_US, find_file
from cohortflow.terminology.loaders.order_file import read_order_file
from cohortflow.terminology.loaders.rows import NO_DATE, NO_TEXT, make_table
from cohortflow.terminology.systems import ICD10CM
from cohortflow.terminology.tables import Release

__all__ = ["load_icd10cm_order"]

_CODE = "[A-Z][0-9][0-9A-Z](?: {4}|[0-9A-Z]{1,4} {0,3})"
_SHORTEST, _LONGEST = 3, 7


def load_icd10cm_order(path: Path, *, version: str | None = None) -> Release:
    """Read the order file.

    It has no chapters and no blocks; a code's parent is the longest code that it begins with.

    Args:
        path: The file, or the folder with it.
        version: Name of the version; by default the year in the file's name.

    Returns:
        Concepts with their long names, synonyms (short names), edges, and the attributes ``level``
        (``category`` or ``subcategory``) and ``billable``.

    Raises:
        InputError: The file is not there, or is not an order file.
        MalformedDataError: A line has another layout, or a code stands twice; the place names the line.
    """
    file = (find_file(path, "icd10cm?order*.txt") or path) if path.is_dir() else path
    codes = read_order_file(file, _CODE, "ICD-10-CM").lazy()
    name = version or "".join(re.findall(r"(20[0-9]{2})", file.name)[:1])
    if not name:
        raise InputError("The file does not tell its version.", place=str(file), remedy="Name it: --version.")
    category = pl.col("bare").str.len_chars() == _SHORTEST
    codes = codes.with_columns(
        code=pl.col("bare").str.replace(r"^(.{3})(.+)$", "${1}.${2}"),
        level=pl.when(category).then(pl.lit("category")).otherwise(pl.lit("subcategory")),
        billable=pl.when("billable").then(pl.lit("true")).otherwise(pl.lit("false")),
    )
    terms = [
        codes.select("code", term="long", kind=pl.lit("preferred")),
        codes.filter(pl.col("short") != pl.col("long")).select("code", term="short", kind=pl.lit("synonym")),
    ]
    attributes = [codes.select("code", attribute=pl.lit(part), value=part) for part in ("level", "billable")]
    concepts = codes.select(
        "code", display="long", active=pl.lit(value=True), effective=NO_DATE, replaced_by=NO_TEXT
    )
    tables = {
        "concepts": concepts,
        "synonyms": pl.concat(terms),
        "edges": _find_parents(codes),
        "attributes": pl.concat(attributes),
    }
    return Release(
        system=ICD10CM.uri,
        version=name,
        title=ICD10CM.title,
        licence=PUBLIC_DOMAIN_US,
        source=(file.name,),
        tables={
            table: make_table(table, rows, system=ICD10CM.uri, version=name) for table, rows in tables.items()
        },
    )


def _find_parents(codes: pl.LazyFrame) -> pl.LazyFrame:
    """Return each code with the longest other code that it begins with."""
    known = codes.select(prefix="bare", parent="code")
    prefixes = pl.concat(
        [
            codes.filter(pl.col("bare").str.len_chars() > length).select(
                child="code", prefix=pl.col("bare").str.head(length), length=pl.lit(length)
            )
            for length in range(_SHORTEST, _LONGEST)
        ]
    )
    return prefixes.join(known, on="prefix").group_by("child").agg(pl.col("parent").sort_by("length").last())
