"""Pattern files of the catalog: read, and refused with file and line where they are wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cohortflow.errors import CatalogError
from cohortflow.model import Catalog
from cohortflow.patterns.definition import PatternDefinition

__all__ = ["LocatedDefinition", "pattern_names", "read_definitions"]

_KEY = "patterns"
# All scalars stay text: 0123, 1950-03-14 and 12:30 are values here, not numbers, dates and minutes.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


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
    text = path.read_text(encoding="utf-8")
    try:
        root = yaml.compose(text, Loader=_LOADER)
        value = yaml.load(text, Loader=_LOADER)  # noqa: S506 - it makes nothing but text
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "malformed"
        raise CatalogError(
            f"Not valid YAML: {problem}.", place=f"{path}{line}", remedy="Mend the file."
        ) from None
    if not isinstance(value, dict) or set(value) != {_KEY} or not isinstance(value[_KEY], list):
        raise CatalogError(
            f"A pattern file holds one key, '{_KEY}', with a list of patterns.",
            place=f"{path}, line 1",
            remedy=f"Begin it with '{_KEY}:'; docs/patterns.md shows one.",
        )
    return tuple(_read_entries(path, root, value[_KEY]))


def _read_entries(path: Path, root: Any, entries: list[Any]) -> Iterator[LocatedDefinition]:  # noqa: ANN401 - a node of YAML
    for index, entry in enumerate(entries):
        try:
            definition = PatternDefinition.model_validate(entry)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False, include_context=False)
            # A misspelled key explains a missing one.
            fault = min(faults, key=lambda item: item["type"] != "extra_forbidden")
            at = ".".join(str(step) for step in fault["loc"])
            named = (
                entry.get("name", f"number {index + 1}") if isinstance(entry, dict) else f"number {index + 1}"
            )
            raise CatalogError(
                f"Pattern {named}: {at or 'entry'}: {fault['msg']}.",
                place=f"{path}, line {_find_line(root, (_KEY, index, *fault['loc']))}",
                remedy="Mend the entry; docs/patterns.md lists the keys.",
            ) from None
        yield LocatedDefinition(definition, f"{path}, line {_find_line(root, (_KEY, index))}")


def _find_line(node: Any, steps: Sequence[str | int]) -> int:  # noqa: ANN401 - a node of YAML
    """Return the line of the deepest node on a way through a document."""
    line = int(node.start_mark.line) + 1
    for step in steps:
        following = None
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            following = node.value[step]
            line = int(following.start_mark.line) + 1
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == step:
                    following, line = value, int(key.start_mark.line) + 1
        if following is None:
            return line
        node = following
    return line
