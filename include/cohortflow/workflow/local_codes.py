"""The vocabulary of the workbench for local codes: loaded terminologies, or else what the catalog names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from cohortflow.errors import InputError
from cohortflow.terminology import load_compose, load_concept_map
from cohortflow.terminology.map_table import MapTable
from cohortflow.terminology.review import Target
from cohortflow.terminology.systems import STANDARD_SYSTEMS, canonical_system
from cohortflow.terminology.tables import MAPS

if TYPE_CHECKING:
    from cohortflow.lake.terminology import TerminologyStore
    from cohortflow.model import Catalog

__all__ = ["LOADED", "Vocabulary", "find_vocabulary", "known_targets", "loaded_codes"]

LOADED = "loaded terminologies"
"""Stands for a map where codes are only looked up."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The concepts of a code system.

    Attributes:
        label: Name and version, for people.
        system: Canonical URI.
        concepts: ``code``, ``display`` and ``active``.
        terms: ``code`` and ``term``: names and synonyms of active concepts.
    """

    label: str
    system: str
    concepts: pl.LazyFrame
    terms: pl.LazyFrame


def find_vocabulary(
    catalog: Catalog, store: TerminologyStore, system: str, version: str | None = None
) -> Vocabulary:
    """Find the concepts of a code system: those loaded, or else those of the catalog's maps and value sets.

    Args:
        catalog: The catalog.
        store: The loaded terminologies.
        system: In any known spelling.
        version: The newest loaded one where none is named.

    Raises:
        InputError: The version is not loaded, or nobody knows the system.
    """
    uri = canonical_system(system)
    if version is None and not store.has(uri):
        return _of_catalog(catalog, uri)
    release = store.release(uri, version)
    tables = store.tables(uri, release.version)
    if "concepts" not in tables:
        raise InputError(
            f"{release.title} {release.version} has no concepts.",
            remedy="Name a code system, or load one with 'cohortflow terminology load'.",
        )
    concepts = tables["concepts"].select("code", "display", "active")
    active = concepts.filter("active")
    names = [active.select("code", pl.col("display").alias("term"))]
    if "synonyms" in tables:
        synonyms = tables["synonyms"].filter(pl.col("kind") != "definition")
        names.append(synonyms.select("code", "term").join(active, on="code", how="semi"))
    return Vocabulary(f"{release.title} {release.version}", uri, concepts, pl.concat(names))


def known_targets(
    catalog: Catalog, store: TerminologyStore, pairs: Iterable[tuple[str, str]]
) -> tuple[dict[tuple[str, str], Target], dict[str, str]]:
    """Look concepts up.

    Args:
        catalog: The catalog.
        store: The loaded terminologies.
        pairs: Systems and codes in canonical spelling.

    Returns:
        Those that are known, and the label of each system whose concepts are.
    """
    wanted: dict[str, set[str]] = {}
    for system, code in pairs:
        wanted.setdefault(system, set()).add(code)
    targets: dict[tuple[str, str], Target] = {}
    labels: dict[str, str] = {}
    for system, codes in wanted.items():
        try:
            vocabulary = find_vocabulary(catalog, store, system)
        except InputError:
            continue  # the check of the review says so, with the line
        labels[system] = vocabulary.label
        found = vocabulary.concepts.filter(pl.col("code").is_in(sorted(codes))).collect()
        targets |= {(system, code): Target(display, active) for code, display, active in found.iter_rows()}
    return targets, labels


def loaded_codes(store: TerminologyStore, systems: Iterable[str]) -> tuple[MapTable, ...]:
    """Return the concepts of code systems as maps of each to itself: what they map is known.

    Args:
        store: The loaded terminologies.
        systems: Canonical URIs; those that are not loaded are left out.
    """
    tables = []
    for system in sorted(set(systems)):
        if not store.has(system):
            continue
        release = store.release(system)
        if "concepts" not in release.tables:
            continue
        concepts = store.tables(system, release.version)["concepts"]
        given = {
            "source_system": "system",
            "source_code": "code",
            "target_system": "system",
            "target_code": "code",
            "target_display": "display",
        }
        rows = concepts.select(*(pl.col(column).alias(name) for name, column in given.items()))
        entries = (
            rows.with_row_index("order").with_columns(pl.lit("equivalent").alias("relationship")).collect()
        )
        tables.append(MapTable(system, f"{release.title} {release.version}", entries))
    return tuple(tables) or (MapTable(LOADED, LOADED, pl.DataFrame(schema=MAPS)),)


def _of_catalog(catalog: Catalog, uri: str) -> Vocabulary:
    """Return the concepts that the catalog's own maps and value sets name."""
    rows: list[tuple[str, str | None]] = []
    for name in catalog.names("conceptmaps"):
        rows += [
            (entry.target_code, entry.target_display)
            for entry in load_concept_map(catalog, name).entries
            if entry.target_system == uri and entry.target_code
        ]
    for name in catalog.names("valuesets"):
        rows += [
            (concept.code, concept.display)
            for part in load_compose(catalog, name).include
            if part.system == uri
            for concept in part.concepts or ()
        ]
    if not rows:
        known = ", ".join(system.title for system in STANDARD_SYSTEMS.values() if system.uri == uri) or uri
        raise InputError(
            f"No version of {known} is loaded, and the catalog names no concept of it.",
            remedy="Load it with 'cohortflow terminology load FORMAT PATH'.",
        )
    concepts = (
        pl.LazyFrame(rows, schema={"code": pl.String(), "display": pl.String()}, orient="row")
        .sort("code", "display", nulls_last=True)
        .unique("code", keep="first", maintain_order=True)
        .with_columns(pl.lit(value=True).alias("active"))
    )
    terms = pl.LazyFrame(rows, schema={"code": pl.String(), "term": pl.String()}, orient="row").drop_nulls()
    return Vocabulary("the catalog's maps and value sets", uri, concepts, terms)
