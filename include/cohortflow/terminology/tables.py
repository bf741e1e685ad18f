"""The tables that hold a terminology: one shape for every distributor.

A loader turns a distributor's files into a `Release`; the store keeps releases, one version beside another;
the kernels read the same tables whatever they came from. Codes and systems are in canonical spelling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import polars as pl

from cohortflow.errors import MalformedDataError
from cohortflow.terminology.systems import canonical_system

__all__ = [
    "ATTRIBUTES",
    "CLOSURE",
    "CONCEPTS",
    "EDGES",
    "MAPS",
    "MEMBERS",
    "SYNONYMS",
    "TABLES",
    "Release",
]

CONCEPTS = pl.Schema(
    {
        "system": pl.String(),
        "version": pl.String(),
        "code": pl.String(),
        "display": pl.String(),
        "active": pl.Boolean(),
        "effective": pl.Date(),
        "replaced_by": pl.String(),
    }
)
"""One row per concept. ``effective`` and ``replaced_by``, the code of its successor, may be null."""

SYNONYMS = pl.Schema(
    {
        "system": pl.String(),
        "version": pl.String(),
        "code": pl.String(),
        "term": pl.String(),
        "kind": pl.String(),
    }
)
"""One row per term of a concept; ``kind`` is ``preferred``, ``synonym`` or ``definition``."""

EDGES = pl.Schema(
    {
        "system": pl.String(),
        "version": pl.String(),
        "child": pl.String(),
        "parent": pl.String(),
    }
)
"""One row per is-a relationship."""

CLOSURE = pl.Schema(
    {
        "system": pl.String(),
        "version": pl.String(),
        "descendant": pl.String(),
        "ancestor": pl.String(),
        "distance": pl.UInt16(),
    }
)
"""One row per concept and proper ancestor; ``distance`` is the least number of edges between them."""

ATTRIBUTES = pl.Schema(
    {
        "system": pl.String(),
        "version": pl.String(),
        "code": pl.String(),
        "attribute": pl.String(),
        "value": pl.String(),
    }
)
"""One row per property of a concept: relationships other than is-a, LOINC parts, ingredients."""

MEMBERS = pl.Schema(
    {
        "system": pl.String(),
        "version": pl.String(),
        "refset": pl.String(),
        "code": pl.String(),
    }
)
"""One row per member of a published set; ``refset`` is the code or name of the set."""

MAPS = pl.Schema(
    {
        "map": pl.String(),
        "version": pl.String(),
        "source_system": pl.String(),
        "source_code": pl.String(),
        "target_system": pl.String(),
        "target_code": pl.String(),
        "target_display": pl.String(),
        "relationship": pl.String(),
        "group": pl.UInt16(),
        "priority": pl.UInt16(),
        "rule": pl.String(),
        "advice": pl.String(),
        "order": pl.UInt32(),
    }
)
"""One row per mapping. ``target_code`` is null where the map says that there is no target; ``relationship``
is a value of `concept_map.Relationship`; ``rule`` and ``advice`` are as distributed."""

TABLES: Mapping[str, pl.Schema] = MappingProxyType(
    {
        "concepts": CONCEPTS,
        "synonyms": SYNONYMS,
        "edges": EDGES,
        "closure": CLOSURE,
        "attributes": ATTRIBUTES,
        "members": MEMBERS,
        "maps": MAPS,
    }
)
"""Schema of each table by its name."""


@dataclass(frozen=True)
class Release:
    """One version of a terminology, as its distributor published it.

    Attributes:
        system: Canonical URI of the code system; for maps alone, of the map.
        version: The distributor's own name of the version.
        title: Name for people.
        licence: Who owns the content and what its use asks for, as text.
        source: Names of the files that it was read from.
        tables: Tables by name, of the schemas in `TABLES`. What a distributor does not publish is left out.

    Raises:
        MalformedDataError: A table is not one of `TABLES`, system or version is blank, or the system has
            another canonical URI, under which it would be looked for.
    """

    system: str
    version: str
    title: str
    licence: str
    source: tuple[str, ...]
    tables: Mapping[str, pl.LazyFrame]

    def __post_init__(self) -> None:
        place = ", ".join(self.source)
        for name in ("system", "version"):
            if not getattr(self, name).strip():
                raise MalformedDataError(
                    f"The release has no {name}.", place=place, remedy=f"Name the {name} when you load it."
                )
        if (canonical := canonical_system(self.system)) != self.system:
            raise MalformedDataError(
                f"The system is spelled '{self.system}', not {canonical}.",
                place=place,
                remedy="Mend the loader: it gives systems and codes in canonical spelling.",
            )
        if unknown := sorted(set(self.tables) - set(TABLES)):
            raise MalformedDataError(
                f"A terminology has no table '{unknown[0]}'.",
                place=place,
                remedy=f"Use {', '.join(TABLES)}.",
            )
        object.__setattr__(self, "tables", MappingProxyType(dict(self.tables)))
