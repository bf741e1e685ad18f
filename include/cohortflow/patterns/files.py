"""Pattern files of the catalog: read, and refused with file and line where they are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from cohortflow.errors import CatalogError
from cohortflow.model import Catalog
from cohortflow.model.located_yaml import LocatedYaml, read_located
from cohortflow.patterns.definition import PatternDefinition

__all__ = ["LocatedDefinition", "pattern_names", "read_definitions"]

_KEY = "patterns"
_REMEDY = f"Begin it with '{_KEY}:'; docs/patterns.md shows one."


@dataclass(frozen=True, slots=True)
class LocatedDefinition:
    """A definition with its place.

    Attributes:
        definition: The definition.
        place: File and line.
    """

    definition: PatternDefinition
    place: str


def pattern_names(catalog: Catalog) -> tuple[str, ...]:
    """Return the names of all patterns, shipped and the catalog's own, sorted; no pattern is tried.

    Raises:
        CatalogError: A pattern file is malformed.
    """
    return tuple(sorted(read_definitions(catalog)))


def read_definitions(catalog: Catalog) -> dict[str, LocatedDefinition]:
    """Read all pattern files: those that ship with the package, and the catalog's own.

    A pattern of the catalog takes the place of the shipped one of the same name.

    Raises:
        CatalogError: A file is no YAML, lacks or misspells a key, or a catalog has two patterns of a name.
    """
    found: dict[str, LocatedDefinition] = {}
    for root in dict.fromkeys((_shipped().root.resolve(), catalog.root.resolve())):
        folder = Catalog(root)
        own: dict[str, LocatedDefinition] = {}
        for name in folder.names("patterns"):
            path = folder.path("patterns", name)
            state = path.stat()
            for item in _read_file(path, state.st_mtime_ns, state.st_size):
                former = own.setdefault(item.definition.name, item)
                if former is not item:
                    raise CatalogError(
                        f"A pattern '{item.definition.name}' is already defined at {former.place}.",
                        place=item.place,
                        remedy="Give one of them another name.",
                    )
        found |= own
    return found


def _shipped() -> Catalog:
    """Return the catalog that stands beside this package, wherever the deployment has its own."""
    return Catalog(Path(__file__).resolve().parents[2] / "catalog")


@lru_cache(maxsize=256)
def _read_file(path: Path, modified: int, size: int) -> tuple[LocatedDefinition, ...]:
    """Read a file, once per state of it."""
    del modified, size  # they are part of the key
    located = read_located(path, CatalogError, remedy=_REMEDY, texts=True)
    entries = located.data.get(_KEY)
    if set(located.data) != {_KEY} or not isinstance(entries, list):
        raise CatalogError(
            f"A pattern file holds one key, '{_KEY}', with a list of patterns.",
            place=located.place(()),
            remedy=_REMEDY,
        )
    return tuple(_read_entry(located, index, entry) for index, entry in enumerate(entries))


def _read_entry(located: LocatedYaml, index: int, entry: object) -> LocatedDefinition:
    try:
        return LocatedDefinition(PatternDefinition.model_validate(entry), located.place((_KEY, index)))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        # A misspelled key explains a missing one.
        fault = min(faults, key=lambda item: item["type"] != "extra_forbidden")
        at = ".".join(str(step) for step in fault["loc"])
        number = f"number {index + 1}"
        named = entry.get("name", number) if isinstance(entry, dict) else number
        raise CatalogError(
            f"Pattern {named}: {at or 'entry'}: {fault['msg']}.",
            place=located.place((_KEY, index, *fault["loc"])),
            remedy="Mend the entry; docs/patterns.md lists the keys.",
        ) from None
