"""ICD-10-PCS' order file: the tables' headers and all codes of procedures.

Source: ``icd10pcs_order_2026.txt`` in "ICD-10-PCS Order File (Long and Abbreviated Titles)" of the Centers
for Medicare & Medicaid Services, https://www.cms.gov/medicare/coding-billing/icd-10-codes.
"""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from cohortflow.errors import InputError, MalformedDataError
from cohortflow.terminology.loaders.files import PUBLIC_DOMAIN_US, find_file
from cohortflow.terminology.loaders.order_file import read_order_file
from cohortflow.terminology.loaders.rows import NO_DATE, NO_TEXT, make_table
from cohortflow.terminology.systems import ICD10PCS
from cohortflow.terminology.tables import Release

__all__ = ["load_icd10pcs"]

# A character is a digit or a letter other than I and O; three are a table, seven a code.
_CHARACTER = "[0-9A-HJ-NP-Z]"
_CODE = f"{_CHARACTER}{{3}}(?: {{4}}|{_CHARACTER}{{4}})"
_TABLE_LENGTH = 3


def load_icd10pcs(path: Path, *, version: str | None = None) -> Release:
    """Read the order file.

    Args:
        path: The file, or the folder with it.
        version: Name of the version; by default the year in the file's name.

    Returns:
        Concepts with their long names: tables (three characters) and codes (seven); synonyms (short names);
        edges from each code to its table; the attributes ``level`` (``table`` or ``code``) and ``billable``.

    Raises:
        InputError: The file is not there, or is not an order file of ICD-10-PCS.
        MalformedDataError: A line has another layout, a code stands twice or has no table; the place names
            the line.
    """
    file = (find_file(path, "icd10pcs?order*.txt") or path) if path.is_dir() else path
    codes = read_order_file(file, _CODE, "ICD-10-PCS")
    name = version or "".join(re.findall(r"(20[0-9]{2})", file.name)[:1])
    if not name:
        raise InputError("The file does not tell its version.", place=str(file), remedy="Name it: --version.")
    is_table = pl.col("bare").str.len_chars() == _TABLE_LENGTH
    codes = codes.with_columns(
        code="bare",
        parent=pl.when(~is_table).then(pl.col("bare").str.head(_TABLE_LENGTH)),
        level=pl.when(is_table).then(pl.lit("table")).otherwise(pl.lit("code")),
        billable=pl.when("billable").then(pl.lit("true")).otherwise(pl.lit("false")),
    )
    orphans = codes.filter(pl.col("parent").is_not_null() & ~pl.col("parent").is_in(codes["code"].implode()))
    if orphans.height:
        raise MalformedDataError(
            f"The table {orphans['parent'][0]} of this code has no line.",
            place=f"{file}:{orphans['number'][0]}",
            remedy="Get the file again: it may be cut.",
        )
    rows, release = codes.lazy(), {"system": ICD10PCS.uri, "version": name}
    terms = [
        rows.select("code", term="long", kind=pl.lit("preferred")),
        rows.filter(pl.col("short") != pl.col("long")).select("code", term="short", kind=pl.lit("synonym")),
    ]
    return Release(
        system=ICD10PCS.uri,
        version=name,
        title=ICD10PCS.title,
        licence=PUBLIC_DOMAIN_US,
        source=(file.name,),
        tables={
            "concepts": make_table(
                "concepts",
                rows.select(
                    "code",
                    display="long",
                    active=pl.lit(value=True),
                    effective=NO_DATE,
                    replaced_by=NO_TEXT,
                ),
                **release,
            ),
            "synonyms": make_table("synonyms", pl.concat(terms), **release),
            "edges": make_table("edges", rows.drop_nulls("parent").select("parent", child="code"), **release),
            "attributes": make_table(
                "attributes",
                pl.concat(
                    [
                        rows.select("code", attribute=pl.lit(part), value=part)
                        for part in ("level", "billable")
                    ]
                ),
                **release,
            ),
        },
    )
