"""ICD-10-CM's tabular list: chapters, blocks, categories, and codes with their seventh character.

Source: the file ``icd10c-tabular-*.xml`` of the National Center for Health Statistics (CDC),
https://www.cdc.gov/nchs/icd/icd-10-cm/files.html. The XML lists a code once and its seventh characters
apart, in ``sevenChrDef``, for all codes below; here they are codes of their own, filled up with the
placeholder ``X``. A few combinations that this yields do not exist: a list of the valid codes beside the XML
tells which.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import polars as pl

from cohortflow.errors import InputError, MalformedDataError
from cohortflow.terminology.loaders.files import PUBLIC_DOMAIN_US, find_file, open_failure, require_file
from cohortflow.terminology.loaders.rows import NO_DATE, NO_TEXT, make_table
from cohortflow.terminology.systems import ICD10CM, canonical_code
from cohortflow.terminology.tables import Release

__all__ = ["load_icd10cm"]

_CODE_LISTS = ("code-list*.txt", "icd10cm?codes*.txt", "icd10cm?order*.txt")
_CATEGORY_LENGTH = 3
_EXTENDED_LENGTH = 7  # with the dot; the seventh character is the eighth
_ORDER_LINE = re.compile(r"[0-9]{5} ([0-9A-Z]{3,7}) +[01] ")
_PLAIN_LINE = re.compile(r"([0-9A-Z][0-9A-Z.\-]*)(?:\s|$)")


@dataclass(slots=True)
class _Rows:
    """Columns of the tables, as they grow."""

    concepts: list[tuple[str, str]] = field(default_factory=list)
    terms: list[tuple[str, str]] = field(default_factory=list)
    edges: list[tuple[str, str]] = field(default_factory=list)
    levels: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, code: str, display: str, level: str, parent: str | None, *, billable: bool) -> None:
        self.concepts.append((code, display))
        self.levels += [(code, "level", level), (code, "billable", "true" if billable else "false")]
        if parent is not None:
            self.edges.append((code, parent))


def load_icd10cm(path: Path, *, version: str | None = None) -> Release:
    """Read the tabular list.

    Args:
        path: The XML file, or the folder with it. Where ``code-list*.txt``, ``icd10cm-codes*.txt`` or
            ``icd10cm-order*.txt`` stands in its folder, codes with a seventh character that are not in it
            are left out.
        version: Name of the version; by default the date in the file's name, as ``2026-04-01``, else the
            year in the file.

    Returns:
        Concepts, synonyms (inclusion terms), edges and attributes: ``level`` (``chapter``, ``block``,
        ``category``, ``subcategory``, ``extended``) and ``billable``, which a code is that none refines.
        Chapters are numbered ``1`` to ``22``; a block of one category, ``B99``, is coded ``B99-B99``.

    Raises:
        InputError: The file is not there, or is not the tabular list.
        MalformedDataError: The XML is damaged, or a code lacks its name.
    """
    xml = (find_file(path, "icd10c*tabular*.xml") or path) if path.is_dir() else path
    require_file(xml)
    valid, codes_file = _read_valid_codes(xml)
    rows, year = _Rows(), ""
    try:
        for _, element in ET.iterparse(xml, events=("end",)):  # noqa: S314  # expat bounds entities
            if element.tag == "version":
                year = (element.text or "").strip()
            elif element.tag == "chapter":
                _read_node(element, None, {}, rows, valid, str(xml))
                element.clear()
            elif element.tag == "ICD10CM.index":
                raise open_failure(xml, "the tabular list of ICD-10-CM, but its index")
    except ET.ParseError as error:
        raise MalformedDataError(
            f"The XML is damaged: {error}.", place=str(xml), remedy="Get the file again: it may be cut."
        ) from None
    if not rows.concepts:
        raise open_failure(xml, "the tabular list of ICD-10-CM")
    name = version or _date_in(xml.name) or year
    if not name:
        raise InputError("The file does not tell its version.", place=str(xml), remedy="Name it: --version.")
    return Release(
        system=ICD10CM.uri,
        version=name,
        title=ICD10CM.title,
        licence=PUBLIC_DOMAIN_US,
        source=(xml.name, *([codes_file.name] if codes_file else [])),
        tables=_make_tables(rows, name),
    )


def _read_node(
    node: ET.Element,
    parent: str | None,
    sevenths: Mapping[str, str],
    rows: _Rows,
    valid: frozenset[str] | None,
    place: str,
) -> None:
    """Read a chapter, section or code and all that is below it."""
    code, display = _read_head(node, parent, place)
    own = node.find("sevenChrDef")
    sevenths = _read_sevenths(own) if own is not None else sevenths
    below = [child for child in node if child.tag in {"section", "diag"}]
    extended = list(_extend(code, display, sevenths, valid)) if node.tag == "diag" and not below else []
    if node.tag == "diag":
        level = "category" if len(code) == _CATEGORY_LENGTH else "subcategory"
        rows.add(code, display, level, parent, billable=not below and not extended)
    else:
        level = "chapter" if node.tag == "chapter" else "block"
        rows.add(code, display, level, parent, billable=False)
    rows.terms += [
        (code, text) for note in node.iterfind("inclusionTerm/note") if (text := _plain(note.text))
    ]
    for longer, name in extended:
        rows.add(longer, name, "extended", code, billable=True)
    for child in below:
        _read_node(child, code, sevenths, rows, valid, place)


def _read_head(node: ET.Element, parent: str | None, place: str) -> tuple[str, str]:
    code, display = _plain(node.get("id") or node.findtext("name")), _plain(node.findtext("desc"))
    if not code or not display:
        lacking = "name" if code else "code"
        where = f"The code '{code}'" if code else f"A {node.tag} below '{parent or 'the root'}'"
        raise MalformedDataError(
            f"{where} has no {lacking}.", place=place, remedy="Get the file again: it may be cut."
        )
    if node.tag == "section" and "-" not in code:
        # A block of one category has the category's code: B99.
        code = f"{code}-{code}"
    return canonical_code(ICD10CM.uri, code), display


def _plain(text: str | None) -> str:
    """Return a text without the tabs and line breaks that some have."""
    return " ".join((text or "").split())


def _read_sevenths(definition: ET.Element) -> dict[str, str]:
    """Return the name of each seventh character; a note belongs to the one before it."""
    names: dict[str, str] = {}
    last = ""
    for child in definition:
        text = _plain(child.text)
        if child.tag == "extension":
            last = child.get("char", "")
            names[last] = text
        elif child.tag == "note" and last:
            names[last] = f"{names[last]}/{text}"
    return names


def _extend(
    code: str, display: str, sevenths: Mapping[str, str], valid: frozenset[str] | None
) -> Iterator[tuple[str, str]]:
    stem = f"{code}." if len(code) == _CATEGORY_LENGTH else code
    for character, name in sevenths.items():
        longer = f"{stem.ljust(_EXTENDED_LENGTH, 'X')}{character}"
        if valid is None or longer in valid:
            yield longer, f"{display}, {name}"


def _read_valid_codes(xml: Path) -> tuple[frozenset[str] | None, Path | None]:
    file = find_file(xml.parent, *_CODE_LISTS)
    if file is None:
        return None, None
    codes = set()
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        match = _ORDER_LINE.match(line) or _PLAIN_LINE.match(line)
        if match is not None:
            codes.add(canonical_code(ICD10CM.uri, match[1]))
        elif line.strip():
            raise MalformedDataError(
                "The line does not begin with a code.",
                place=f"{file}:{number}",
                remedy="Put CDC's list of codes there, or take the file out of the folder.",
            )
    return frozenset(codes), file


def _date_in(name: str) -> str:
    """Return the date in a file's name, such as ``April-1-2026``, in ISO form."""
    match = re.search(r"([A-Za-z]+)-([0-9]{1,2})-([0-9]{4})", name)
    if match is None:
        return ""
    try:
        return datetime.strptime(" ".join(match.groups()), "%B %d %Y").date().isoformat()  # noqa: DTZ007
    except ValueError:
        return ""


def _make_tables(rows: _Rows, version: str) -> dict[str, pl.LazyFrame]:
    names = pl.LazyFrame(rows.concepts, schema=["code", "term"], orient="row")
    terms = pl.LazyFrame(rows.terms, schema={"code": pl.String, "term": pl.String}, orient="row")
    tables = {
        "concepts": names.select(
            "code", display="term", active=pl.lit(value=True), effective=NO_DATE, replaced_by=NO_TEXT
        ),
        "synonyms": pl.concat(
            [names.with_columns(kind=pl.lit("preferred")), terms.with_columns(kind=pl.lit("synonym"))]
        ),
        "edges": pl.LazyFrame(rows.edges, schema={"child": pl.String, "parent": pl.String}, orient="row"),
        "attributes": pl.LazyFrame(rows.levels, schema=["code", "attribute", "value"], orient="row"),
    }
    return {
        name: make_table(name, table, system=ICD10CM.uri, version=version) for name, table in tables.items()
    }
