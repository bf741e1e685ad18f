"""What a study maps by: maps and value sets of the catalog, and those of loaded terminologies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cohortflow.errors import CatalogError, ConfigurationError
from cohortflow.model import Catalog
from cohortflow.terminology import CodeMapping, ValueSet, load_concept_map, load_value_set
from cohortflow.terminology.mapping import PATH_SEPARATOR, STORED

if TYPE_CHECKING:
    import polars as pl

    from cohortflow.lake.terminology import TerminologyStore
    from cohortflow.terminology.map_lookup import MapContent
    from cohortflow.terminology.map_table import CodeMap

__all__ = [
    "find_stored_map",
    "load_code_map",
    "load_concepts",
    "load_map_content",
    "map_sources",
    "open_value_set",
]


def map_sources(catalog: Catalog, mapping: CodeMapping) -> dict[str, Any]:
    """Return what a mapping rests on, for the plan's digest; stored maps by their name alone.

    Raises:
        CatalogError: The catalog has no such map.
    """
    steps = [step.strip() for name in mapping.maps for step in name.split(PATH_SEPARATOR)]
    return {
        f"conceptmaps/{step}": step if step.startswith(STORED) else catalog.load("conceptmaps", step)
        for step in steps
    }


def load_code_map(catalog: Catalog, name: str, terminologies: Callable[[], TerminologyStore]) -> CodeMap:
    """Read a map, or a path over several.

    Args:
        catalog: The catalog.
        name: As `CodeMapping.maps` has it.
        terminologies: Opens the loaded terminologies; called where the map is one of them.

    Raises:
        CatalogError: The catalog has no such map.
        ConfigurationError: No loaded terminology has it.
        StudyError: The maps of a path do not fit.
    """
    from cohortflow.terminology.map_table import MapTable, compose_maps

    steps = [step.strip() for step in name.split(PATH_SEPARATOR)]
    maps: list[CodeMap] = [
        find_stored_map(terminologies(), step) if step.startswith(STORED) else load_concept_map(catalog, step)
        for step in steps
    ]
    if len(maps) == 1:
        return maps[0]
    composed = compose_maps(maps)
    return MapTable(name, composed.label, composed.entries)


def find_stored_map(terminologies: TerminologyStore, name: str) -> CodeMap:
    """Find a map among the loaded terminologies; of several versions the newest, where none is named.

    Args:
        terminologies: The store.
        name: ``terminology:<name>`` or ``terminology:<name>|<version>``.

    Raises:
        ConfigurationError: It is not there.
    """
    import polars as pl

    from cohortflow.terminology.map_table import select_map

    wanted, _, version = name.removeprefix(STORED).partition("|")
    known: set[str] = set()
    for release in reversed(terminologies.releases()):
        if "maps" not in release.tables or version not in {"", release.version}:
            continue
        tables = terminologies.tables(release.system, release.version)
        names = tables["maps"].select(pl.col("map").unique()).collect()["map"].to_list()
        if wanted in names:
            return select_map(wanted, tables, called=name)
        known.update(names)
    raise ConfigurationError(
        f"The map '{name}' is not loaded.",
        place=terminologies.store.uri,
        remedy="Load it with 'cohortflow terminology load FORMAT PATH'"
        + (f", or use one of: {', '.join(sorted(known)[:20])}." if known else "."),
    )


def load_map_content(
    mapping: CodeMapping, maps: Sequence[CodeMap], terminologies: Callable[[], TerminologyStore]
) -> MapContent:
    """Open the tables that a mapping needs beside its maps: of every loaded system of theirs, the newest."""
    import polars as pl

    from cohortflow.terminology.map_lookup import MapContent

    if not mapping.replace_retired and mapping.text is None:
        return MapContent()
    found: dict[str, list[pl.LazyFrame]] = {"concepts": [], "synonyms": []}
    for tables in _open_systems(_map_systems(maps), terminologies()):
        for name, parts in found.items():
            if name in tables:
                parts.append(tables[name])
    return MapContent(**{name: pl.concat(parts) if parts else None for name, parts in found.items()})


def load_concepts(
    maps: Sequence[CodeMap], terminologies: Callable[[], TerminologyStore]
) -> pl.LazyFrame | None:
    """Open the concepts of the maps' systems, of each the newest version; ``None`` where none is loaded."""
    import polars as pl

    opened = _open_systems(_map_systems(maps), terminologies())
    parts = [tables["concepts"] for tables in opened if "concepts" in tables]
    return pl.concat(parts) if parts else None


def _map_systems(maps: Sequence[CodeMap]) -> list[str]:
    frames = [code_map.to_frame() for code_map in maps]
    return sorted(
        {
            system
            for frame in frames
            for column in ("source_system", "target_system")
            for system in frame[column].drop_nulls().unique()
        }
    )


def _open_systems(systems: Sequence[str], store: TerminologyStore) -> list[Mapping[str, pl.LazyFrame]]:
    """Open those that are loaded: a local system seldom is; that none is, map_codes refuses."""
    return [store.tables(system) for system in systems if store.has(system)]


def open_value_set(catalog: Catalog, name: str, terminologies: Callable[[], TerminologyStore]) -> ValueSet:
    """Read a value set; one that the code alone does not decide is expanded.

    Args:
        catalog: The catalog.
        name: Of the set.
        terminologies: Opens the loaded terminologies; called where the set needs them.

    Raises:
        CatalogError: The set is missing or malformed.
        ConfigurationError: A terminology that it needs is not loaded.
    """
    try:
        return load_value_set(catalog, name)
    except CatalogError:
        # Malformed, or more than patterns can say: only the second can be read in full.
        from cohortflow.terminology.compose import load_compose

        compose = load_compose(catalog, name)
    from cohortflow.lake.expansions import StoredExpansions
    from cohortflow.terminology.expansion import expand, to_value_set

    store = terminologies()
    cache = StoredExpansions(store.store)
    return to_value_set(compose, expand(compose, store, cache=cache).collect())
