"""Single terminology resources of FHIR, R4 or R5, as releases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import Any, TypeVar

import polars as pl
from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from cohortflow.errors import CatalogError, InputError, MalformedDataError
from cohortflow.terminology.concept_map import parse_concept_map
from cohortflow.terminology.resource import Element, validate_resource
from cohortflow.terminology.systems import canonical_code, canonical_system
from cohortflow.terminology.tables import ATTRIBUTES, CONCEPTS, EDGES, MAPS, MEMBERS, SYNONYMS, Release

__all__ = ["READERS", "Origin"]

_HL7_LICENCE = (
    "CC0 1.0: HL7 dedicates the FHIR specification and HL7 Terminology to the public domain; "
    "https://terminology.hl7.org/license.html."
)
_HL7_URLS = ("http://hl7.org/fhir", "http://terminology.hl7.org/")
_UNKNOWN_LICENCE = "The resource names no licence: ask its publisher."
_INACTIVE = frozenset({"inactive", "retired"})
_IS_A = frozenset({None, "is-a"})
_PROPERTY_URI = "http://hl7.org/fhir/concept-properties#"
_ISO_DATE_LENGTH = 10

_ElementT = TypeVar("_ElementT", bound=Element)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a resource comes from.

    Attributes:
        file: Name of the file that was named.
        place: File and element, for messages.
        version: Version of a resource that does not tell its own.
        licence: Licence of a resource that does not tell its own.
    """

    file: str
    place: str
    version: str
    licence: str


class _Camel(Element):
    """An element whose names are FHIR's in another spelling: `value_code` is ``valueCode``."""

    model_config = ConfigDict(alias_generator=to_camel)


class _Property(_Camel):
    code: str
    value_code: str | None = None
    value_string: str | None = None
    value_boolean: bool | None = None
    value_integer: int | None = None
    value_decimal: float | None = None
    value_date_time: str | None = None
    value_coding: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """The value as text, empty without one."""
        if self.value_coding is not None:
            return str(self.value_coding.get("code") or "")
        if self.value_boolean is not None:
            return "true" if self.value_boolean else "false"
        for value in (self.value_code, self.value_string, self.value_date_time):
            if value is not None:
                return value
        number = self.value_integer if self.value_integer is not None else self.value_decimal
        return "" if number is None else str(number)


class _Designation(_Camel):
    value: str


class _Concept(_Camel):
    code: str
    display: str | None = None
    definition: str | None = None
    designation: tuple[_Designation, ...] = ()
    property: tuple[_Property, ...] = ()
    concept: tuple[_Concept, ...] = ()


class _PropertyKind(_Camel):
    code: str
    uri: str | None = None


class _Canonical(_Camel):
    url: str | None = None
    version: str | None = None
    name: str | None = None
    title: str | None = None
    copyright: str | None = None


class _CodeSystem(_Canonical):
    content: str = "complete"
    hierarchy_meaning: str | None = None
    property: tuple[_PropertyKind, ...] = ()
    concept: tuple[_Concept, ...] = ()


class _SetConcept(_Camel):
    code: str


class _SetPart(_Camel):
    system: str | None = None
    concept: tuple[_SetConcept, ...] = ()
    filter: tuple[Any, ...] = ()
    value_set: tuple[str, ...] = ()


class _Compose(_Camel):
    include: tuple[_SetPart, ...] = ()
    exclude: tuple[_SetPart, ...] = ()


class _Contained(_Camel):
    system: str | None = None
    code: str | None = None
    abstract: bool = False
    contains: tuple[_Contained, ...] = ()


class _Expansion(_Camel):
    total: int | None = None
    offset: int | None = None
    contains: tuple[_Contained, ...] = ()


class _ValueSet(_Canonical):
    compose: _Compose | None = None
    expansion: _Expansion | None = None


@dataclass(slots=True)
class _Columns:
    """Rows of the tables of a code system, as they grow."""

    concepts: list[tuple[str, str, bool, date | None, str | None]] = field(default_factory=list)
    terms: list[tuple[str, str, str]] = field(default_factory=list)
    edges: list[tuple[str, str]] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)


def _read_code_system(data: Mapping[str, Any], origin: Origin) -> Release | str:
    """Read a CodeSystem, or say why there is nothing to store."""
    resource = _validate(_CodeSystem, "CodeSystem", data, origin)
    if resource.content in {"not-present", "supplement"} or not resource.concept:
        return f"The content of the code system is '{resource.content}': it lists no concept of its own."
    system, version = _identify(resource, origin)
    roles = {
        kind.code: kind.uri.removeprefix(_PROPERTY_URI) if kind.uri else kind.code
        for kind in resource.property
    }
    columns = _Columns()
    nested = resource.hierarchy_meaning in _IS_A
    for concept, parent in _walk(resource.concept, None):
        _read_concept(concept, parent if nested else None, system, roles, columns)
    edges = pl.LazyFrame(columns.edges, schema={"child": pl.String, "parent": pl.String}, orient="row")
    release = (pl.lit(system).alias("system"), pl.lit(version).alias("version"))
    content = "" if resource.content == "complete" else f" ({resource.content})"
    return Release(
        system=system,
        version=version,
        title=f"{resource.title or resource.name or system}{content}",
        licence=_licence(resource, origin),
        source=(origin.file,),
        tables={
            "concepts": _frame(columns.concepts, CONCEPTS, release),
            "synonyms": _frame(columns.terms, SYNONYMS, release).unique(),
            "edges": edges.select(*release, *EDGES.names()[2:]).unique(),
            "attributes": _frame(columns.attributes, ATTRIBUTES, release).unique(),
        },
    )


def _read_value_set(data: Mapping[str, Any], origin: Origin) -> Release | str:
    """Read a ValueSet that lists its members, or say why there is nothing to store."""
    resource = _validate(_ValueSet, "ValueSet", data, origin)
    members = _list_members(resource)
    if isinstance(members, str):
        return members
    url, version = _identify(resource, origin)
    rows = [(system, version, url, canonical_code(system, code)) for system, code in members]
    return Release(
        system=url,
        version=version,
        title=resource.title or resource.name or url,
        licence=_licence(resource, origin),
        source=(origin.file,),
        tables={"members": pl.LazyFrame(rows, schema=MEMBERS, orient="row").unique()},
    )


def _read_concept_map(data: Mapping[str, Any], origin: Origin) -> Release | str:
    """Read a ConceptMap."""
    resource = _validate(_Canonical, "ConceptMap", data, origin)
    if not _is_plain(data):
        return "The map has elements without codes, or rules beside them: these are not supported."
    url, version = _identify(resource, origin)
    try:
        found = parse_concept_map(data, name=resource.name or url, place=origin.place)
    except CatalogError as error:
        raise MalformedDataError(error.message, place=error.place, remedy=error.remedy) from None
    return Release(
        system=url,
        version=version,
        title=found.title,
        licence=_licence(resource, origin),
        source=(origin.file,),
        tables={
            "maps": found.to_frame()
            .lazy()
            .with_columns(
                pl.lit(url).alias("map"),
                pl.lit(version).alias("version"),
                pl.lit(1, pl.UInt16).alias("group"),
                pl.lit(1, pl.UInt16).alias("priority"),
                pl.lit(None, pl.String).alias("rule"),
                pl.lit(None, pl.String).alias("advice"),
            )
            .select(MAPS.names())
        },
    )


READERS: Mapping[str, Callable[[Mapping[str, Any], Origin], Release | str]] = MappingProxyType(
    {"CodeSystem": _read_code_system, "ValueSet": _read_value_set, "ConceptMap": _read_concept_map}
)
"""Reader of each type of resource: it returns a release, or says why there is none."""


def _validate(model: type[_ElementT], kind: str, data: Mapping[str, Any], origin: Origin) -> _ElementT:
    try:
        return validate_resource(model, kind, data, origin.place)
    except CatalogError as error:
        raise MalformedDataError(error.message, place=error.place, remedy=error.remedy) from None


def _identify(resource: _Canonical, origin: Origin) -> tuple[str, str]:
    # Some of HL7's tables have one URL for several versions: .../v2-0360|2.7
    url, _, named = (resource.url or "").partition("|")
    version = named or resource.version or origin.version
    if not url:
        raise MalformedDataError(
            "The resource has no 'url'.", place=origin.place, remedy="Give it its canonical URL."
        )
    if not version:
        raise InputError(
            f"{url} does not tell its version.", place=origin.place, remedy="Name it: --version."
        )
    return canonical_system(url), version


def _is_plain(concept_map: Mapping[str, Any]) -> bool:
    """Return whether a map says which code of a system stands for which of another, and nothing more.

    FHIR lets a map leave systems and codes out, where it maps value sets or profiles, and add rules:
    ``unmapped``, ``dependsOn``, ``product``.
    """
    groups = concept_map.get("group") or ()
    elements = [element for group in groups for element in group.get("element") or ()]
    targets = [target for element in elements for target in element.get("target") or ()]
    return (
        bool(elements)
        and all(group.get("source") and group.get("target") and "unmapped" not in group for group in groups)
        and all(element.get("code") for element in elements)
        and not any(target.get("dependsOn") or target.get("product") for target in targets)
    )


def _licence(resource: _Canonical, origin: Origin) -> str:
    if resource.copyright:
        return " ".join(resource.copyright.split())
    if (resource.url or "").startswith(_HL7_URLS):
        return _HL7_LICENCE
    return origin.licence or _UNKNOWN_LICENCE


def _walk(concepts: tuple[_Concept, ...], parent: str | None) -> Iterator[tuple[_Concept, str | None]]:
    for concept in concepts:
        yield concept, parent
        yield from _walk(concept.concept, concept.code)


def _read_concept(
    concept: _Concept, parent: str | None, system: str, roles: Mapping[str, str], columns: _Columns
) -> None:
    code = canonical_code(system, concept.code)
    display = (concept.display or concept.code).strip()
    active, effective, successor = True, None, None
    if parent is not None:
        columns.edges.append((code, canonical_code(system, parent)))
    for found in concept.property:
        role, text = roles.get(found.code, found.code), found.text
        if not text:
            continue
        columns.attributes.append((code, found.code, text))
        if role in {"parent", "subsumedBy"}:
            columns.edges.append((code, canonical_code(system, text)))
        elif role == "child":
            columns.edges.append((canonical_code(system, text), code))
        elif (role == "status" and text in _INACTIVE) or (role == "inactive" and text == "true"):
            active = False
        elif role == "effectiveDate":
            effective = _read_date(text)
        elif role in {"replacedBy", "replaced-by"}:
            successor = canonical_code(system, text)
    columns.concepts.append((code, display, active, effective, successor))
    columns.terms.append((code, display, "preferred"))
    columns.terms += [
        (code, text.strip(), "synonym")
        for text in (designation.value for designation in concept.designation)
        if text.strip() and text.strip() != display
    ]
    if concept.definition and concept.definition.strip():
        columns.terms.append((code, " ".join(concept.definition.split()), "definition"))


def _read_date(text: str) -> date | None:
    try:
        return date.fromisoformat(text[:_ISO_DATE_LENGTH])
    except ValueError:
        return None  # a year, or a year and a month: no day is made up


def _list_members(resource: _ValueSet) -> list[tuple[str, str]] | str:
    """Return systems and codes, or why they cannot be listed without a terminology."""
    expansion = resource.expansion
    if expansion is not None and expansion.contains:
        found = [
            (canonical_system(member.system or ""), member.code)
            for member in _walk_expansion(expansion.contains)
            if member.code and not member.abstract
        ]
        partial = bool(expansion.offset) or (expansion.total is not None and expansion.total > len(found))
        return "The expansion is one page of several." if partial else found
    compose = resource.compose or _Compose()
    listed = all(part.system and part.concept and not part.value_set for part in compose.include)
    if not compose.include or not listed or compose.exclude:
        return "The value set is made of rules: put it into the catalog's valuesets to expand it."
    return [
        (canonical_system(part.system or ""), concept.code)
        for part in compose.include
        for concept in part.concept
    ]


def _walk_expansion(members: tuple[_Contained, ...]) -> Iterator[_Contained]:
    for member in members:
        yield member
        yield from _walk_expansion(member.contains)


def _frame(rows: list[Any], schema: pl.Schema, release: tuple[pl.Expr, pl.Expr]) -> pl.LazyFrame:
    columns = {name: dtype for name, dtype in schema.items() if name not in {"system", "version"}}
    return pl.LazyFrame(rows, schema=columns, orient="row").select(*release, *columns)
