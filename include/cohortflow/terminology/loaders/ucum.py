"""UCUM: units of measure and their prefixes.

Source: ``ucum-essence.xml`` of https://ucum.org. A unit of measurement is an expression, such as ``mmol/L``,
of which UCUM defines the atoms; these are the concepts here. Prefixes share codes with units (``m`` is milli
and metre) and are therefore a system of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import polars as pl

from cohortflow.errors import InputError, MalformedDataError
from cohortflow.terminology.loaders.files import open_failure, require_file
from cohortflow.terminology.loaders.rows import NO_DATE, NO_TEXT, make_table
from cohortflow.terminology.systems import UCUM
from cohortflow.terminology.tables import Release

__all__ = ["PREFIX_SYSTEM", "load_ucum"]

PREFIX_SYSTEM = f"{UCUM.uri}/prefix"
"""URI under which the prefixes are kept."""

_NAMESPACE = "{http://unitsofmeasure.org/ucum-essence}"
_LICENCE = (
    "Copyright Regenstrief Institute, Inc. and The UCUM Organization; free of charge under the UCUM "
    "Copyright Notice and License, https://ucum.org/license: codes must not be changed, and the notice goes "
    "with them."
)
_TERMS = ("name", "printSymbol")


def load_ucum(path: Path, *, version: str | None = None) -> tuple[Release, Release]:
    """Read the essence: its units, and its prefixes.

    Args:
        path: The XML file.
        version: Name of the version; by default the one in the file.

    Returns:
        Two releases with concepts, synonyms (further names, printed symbols, the code for systems without
        lower case) and attributes. Those of a unit are ``kind`` (``base`` or ``derived``), ``dimension``,
        ``property``, ``class``, ``metric``, ``special``, ``arbitrary``, ``factor`` and ``unit``; that of a
        prefix is ``factor``.

    Raises:
        InputError: The file is not there, or is not the essence.
        MalformedDataError: The XML is damaged, or a unit lacks code or name.
    """
    try:
        root = ET.parse(require_file(path)).getroot()  # noqa: S314  # expat bounds entities
    except ET.ParseError as error:
        raise MalformedDataError(
            f"The XML is damaged: {error}.", place=str(path), remedy="Get the file again: it may be cut."
        ) from None
    if root.tag != f"{_NAMESPACE}root":
        raise open_failure(path, "UCUM's essence (ucum-essence.xml)")
    name = version or root.get("version", "")
    if not name:
        raise InputError("The file does not tell its version.", place=str(path), remedy="Name it: --version.")
    units = [*root.iterfind(f"{_NAMESPACE}base-unit"), *root.iterfind(f"{_NAMESPACE}unit")]
    prefixes = list(root.iterfind(f"{_NAMESPACE}prefix"))
    return (
        _make_release(units, UCUM.uri, name, f"{UCUM.title} units", path),
        _make_release(prefixes, PREFIX_SYSTEM, name, f"{UCUM.title} prefixes", path),
    )


def _make_release(elements: list[ET.Element], system: str, version: str, title: str, path: Path) -> Release:
    if not elements:
        raise MalformedDataError(
            f"The file has no {title.rpartition(' ')[2]}.", place=str(path), remedy="Get the file again."
        )
    names = [_read_name(element, path) for element in elements]
    terms = [term for element in elements for term in _read_terms(element)]
    attributes = [row for element in elements for row in _read_attributes(element)]
    tables = {
        "concepts": pl.LazyFrame(names, schema=["code", "display"], orient="row").with_columns(
            active=pl.lit(value=True), effective=NO_DATE, replaced_by=NO_TEXT
        ),
        "synonyms": pl.LazyFrame(terms, schema=["code", "term", "kind"], orient="row").unique(),
        "attributes": pl.LazyFrame(attributes, schema=["code", "attribute", "value"], orient="row"),
    }
    return Release(
        system=system,
        version=version,
        title=title,
        licence=_LICENCE,
        source=(path.name,),
        tables={
            name: make_table(name, rows, system=system, version=version) for name, rows in tables.items()
        },
    )


def _read_name(element: ET.Element, path: Path) -> tuple[str, str]:
    code, name = element.get("Code"), _text(element.find(f"{_NAMESPACE}name"))
    if not code or not name:
        raise MalformedDataError(
            f"The unit '{code or name}' has no {'name' if code else 'code'}.",
            place=str(path),
            remedy="Get the file again: it may be cut.",
        )
    return code, name


def _read_terms(element: ET.Element) -> Iterator[tuple[str, str, str]]:
    code = element.get("Code", "")
    found = [_text(child) for tag in _TERMS for child in element.iterfind(f"{_NAMESPACE}{tag}")]
    first, *further = found
    yield code, first, "preferred"
    for term in (*further, element.get("CODE", "")):
        if term and term != first:
            yield code, term, "synonym"


def _read_attributes(element: ET.Element) -> Iterator[tuple[str, str, str]]:
    code, value = element.get("Code", ""), element.find(f"{_NAMESPACE}value")
    kind = {"base-unit": "base", "unit": "derived"}.get(element.tag.removeprefix(_NAMESPACE), "")
    found = {
        "kind": kind,
        "dimension": element.get("dim", ""),
        "class": element.get("class", ""),
        "metric": element.get("isMetric", ""),
        "special": element.get("isSpecial", ""),
        "arbitrary": element.get("isArbitrary", ""),
        "factor": value.get("value", "") if value is not None else "",
        "unit": value.get("Unit", "") if value is not None else "",
    }
    yield from ((code, attribute, text) for attribute, text in found.items() if text)
    for child in element.iterfind(f"{_NAMESPACE}property"):
        yield code, "property", _text(child)


def _text(element: ET.Element | None) -> str:
    return " ".join("".join(element.itertext()).split()) if element is not None else ""
