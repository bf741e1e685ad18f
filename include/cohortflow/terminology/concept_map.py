"""FHIR ConceptMap, R4 and R5, as a table of mappings.

Sources: https://hl7.org/fhir/R4/conceptmap.html, https://hl7.org/fhir/R5/conceptmap.html. R4 states the
*equivalence* of the target to the source, R5 the *relationship* of the source to the target: R4 ``wider`` is
R5 ``source-is-narrower-than-target``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from cohortflow.model import Catalog
from cohortflow.terminology.resource import Element, refuse, validate_resource
from cohortflow.terminology.systems import canonical_code, canonical_system

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ConceptMap", "MappingEntry", "Relationship", "load_concept_map", "parse_concept_map"]


class Relationship(StrEnum):
    """R5 ``concept-map-relationship``, best first."""

    EQUIVALENT = "equivalent"
    NARROWER = "source-is-narrower-than-target"
    BROADER = "source-is-broader-than-target"
    RELATED = "related-to"
    NOT_RELATED = "not-related-to"


_R4_EQUIVALENCE: Mapping[str, Relationship] = {
    "equal": Relationship.EQUIVALENT,
    "equivalent": Relationship.EQUIVALENT,
    "wider": Relationship.NARROWER,
    "subsumes": Relationship.NARROWER,
    "narrower": Relationship.BROADER,
    "specializes": Relationship.BROADER,
    "inexact": Relationship.RELATED,
    "relatedto": Relationship.RELATED,
    "unmatched": Relationship.NOT_RELATED,
    "disjoint": Relationship.NOT_RELATED,
}


@dataclass(frozen=True, slots=True)
class MappingEntry:
    """One target of one source concept.

    Attributes:
        source_system: Canonical URI.
        source_code: Canonical spelling.
        target_system: Canonical URI of the group's target.
        target_code: Canonical spelling; ``None`` where the map states that there is no target.
        target_display: The target's name, as the map gives it.
        relationship: Of the source to the target.
        order: Place in the file, from 0.
    """

    source_system: str
    source_code: str
    target_system: str
    target_code: str | None
    target_display: str | None
    relationship: Relationship
    order: int


@dataclass(frozen=True, slots=True)
class ConceptMap:
    """A checked ConceptMap.

    Attributes:
        name: Name in the catalog.
        version: Business version, or empty.
        title: Name for people.
        entries: One for each target, in the order of the file.
    """

    name: str
    version: str
    title: str
    entries: tuple[MappingEntry, ...]

    @property
    def label(self) -> str:
        """``name|version``, which mapped rows carry as their provenance."""
        return f"{self.name}|{self.version}" if self.version else self.name

    def to_frame(self) -> pl.DataFrame:
        """Return the entries as a table with the columns of `MappingEntry`, all strings but ``order``."""
        import polars as pl

        text = ("source_system", "source_code", "target_system", "target_code", "target_display")
        schema = dict.fromkeys((*text, "relationship"), pl.String()) | {"order": pl.UInt32()}
        columns = {name: [getattr(entry, name) for entry in self.entries] for name in schema}
        columns["relationship"] = [entry.relationship.value for entry in self.entries]
        return pl.DataFrame(columns, schema=schema)


class _Target(Element):
    code: str | None = None
    display: str | None = None
    equivalence: str | None = None
    relationship: str | None = None
    dependsOn: tuple[Any, ...] = ()  # noqa: N815 - FHIR's spelling
    product: tuple[Any, ...] = ()
    valueSet: str | None = None  # noqa: N815 - FHIR's spelling


class _Source(Element):
    code: str | None = None
    target: tuple[_Target, ...] = ()
    noMap: bool = False  # noqa: N815 - FHIR's spelling


class _Group(Element):
    source: str
    target: str
    element: tuple[_Source, ...]
    unmapped: Any = None


class _Resource(Element):
    """The elements of a ConceptMap that are read."""

    name: str | None = None
    title: str | None = None
    version: str | None = None
    group: tuple[_Group, ...]


def load_concept_map(catalog: Catalog, name: str) -> ConceptMap:
    """Read a ConceptMap of the catalog.

    Raises:
        CatalogError: There is no such map, or it is malformed or uses what is not supported.
    """
    return parse_concept_map(
        catalog.load("conceptmaps", name), name=name, place=str(catalog.path("conceptmaps", name))
    )


def parse_concept_map(data: Mapping[str, Any], *, name: str, place: str) -> ConceptMap:
    """Read a ConceptMap from JSON, R4 or R5.

    Args:
        data: The resource.
        name: Name to give it.
        place: File, for messages.

    Raises:
        CatalogError: It is malformed, or uses what changes its meaning and is not supported: ``unmapped``,
            ``dependsOn``, ``product``, or value sets in place of codes. Names file and element.
    """
    resource = validate_resource(_Resource, "ConceptMap", data, place)
    entries: list[MappingEntry] = []
    seen: set[tuple[str, str, str, str | None]] = set()
    for entry, path in _read_entries(resource, place):
        key = (entry.source_system, entry.source_code, entry.target_system, entry.target_code)
        if key in seen:
            raise refuse(place, path, "The same source and target stand twice.", "Remove one of them.")
        seen.add(key)
        entries.append(entry)
    if not entries:
        raise refuse(place, "group", "The map has no mapping.", "Give it at least one element.")
    return ConceptMap(name, resource.version or "", resource.title or name, tuple(entries))


def _read_entries(resource: _Resource, place: str) -> Iterator[tuple[MappingEntry, str]]:
    order = 0
    for g, group in enumerate(resource.group):
        if group.unmapped is not None:
            problem = "A rule for unmapped codes is not supported."
            raise refuse(place, f"group[{g}].unmapped", problem, "Remove it: unmapped codes keep their row.")
        source_system, target_system = canonical_system(group.source), canonical_system(group.target)
        for e, source in enumerate(group.element):
            path = f"group[{g}].element[{e}]"
            code = canonical_code(source_system, source.code or "")
            if not code:
                raise refuse(place, path, "The source code is missing.", "Give the element a code.")
            targets = source.target or (_Target(relationship=Relationship.NOT_RELATED.value),)
            for t, target in enumerate(targets):
                where = f"{path}.target[{t}]" if source.target else path
                relationship = _read_relationship(target, source, place, where)
                related = relationship is not Relationship.NOT_RELATED
                target_code = canonical_code(target_system, target.code or "") if related else None
                if related and not target_code:
                    raise refuse(place, where, "The target has no code.", "Give it one, or say 'unmatched'.")
                display = target.display if related else None
                yield (
                    MappingEntry(
                        source_system, code, target_system, target_code, display, relationship, order
                    ),
                    where,
                )
                order += 1


def _read_relationship(target: _Target, source: _Source, place: str, path: str) -> Relationship:
    if target.dependsOn or target.product or target.valueSet:
        problem = "'dependsOn', 'product' and 'valueSet' are not supported."
        raise refuse(place, path, problem, "Map single codes, or leave the element out.")
    if source.noMap and source.target:
        raise refuse(place, path, "'noMap' stands beside a target.", "Remove one of them.")
    if target.relationship is not None:
        if target.relationship in set(Relationship):
            return Relationship(target.relationship)
        raise refuse(
            place, path, "Unknown relationship.", f"Use one of: {', '.join(r.value for r in Relationship)}."
        )
    if target.equivalence is not None and target.equivalence in _R4_EQUIVALENCE:
        return _R4_EQUIVALENCE[target.equivalence]
    known = ", ".join(_R4_EQUIVALENCE)
    raise refuse(place, path, "The equivalence (R4) is missing or unknown.", f"Use one of: {known}.")
