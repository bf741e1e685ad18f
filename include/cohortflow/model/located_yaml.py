"""YAML files that people write, with the line of everything in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cohortflow.errors import InputError

__all__ = ["LocatedYaml", "Location", "parse_located", "read_located"]

Location = tuple[str | int, ...]
"""The keys and indexes that lead from the root to a part of a document."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


@dataclass(frozen=True, slots=True)
class LocatedYaml:
    """A YAML file's content and where each part of it stands.

    Attributes:
        path: The file, for messages.
        data: The parsed mapping.
        lines: 1-based line of each key and item, by its path from the root.
    """

    path: str
    data: dict[str, Any]
    lines: Mapping[Location, int]

    def place(self, location: Location) -> str:
        """Return ``file:line`` of a location or of its nearest known parent."""
        while location not in self.lines and location:
            location = location[:-1]
        line = self.lines.get(location)
        return f"{self.path}:{line}" if line else self.path


def read_located(path: Path, fault: type[InputError], *, remedy: str, texts: bool = False) -> LocatedYaml:
    """Read a file.

    Args:
        path: The file.
        fault: The kind of error to raise.
        remedy: What to do where it does not hold a mapping.
        texts: Whether all scalars stay text as it is written: 0123, 1950-03-14 and 12:30 too.

    Raises:
        InputError: Of the kind ``fault``: it is missing, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise fault(
            f"Cannot be read ({type(error).__name__}).", place=str(path), remedy="Check the path."
        ) from None
    except UnicodeDecodeError:
        raise fault("Not UTF-8 text.", place=str(path), remedy="Save it as UTF-8.") from None
    return parse_located(text, str(path), fault, remedy=remedy, texts=texts)


def parse_located(
    text: str, path: str, fault: type[InputError], *, remedy: str, texts: bool = False
) -> LocatedYaml:
    """Parse a text; see ``read_located``."""
    lines: dict[Location, int] = {}
    try:
        loader = (_TEXT_LOADER if texts else _LOADER)(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                _walk(node, (), lines, path, fault)
            data = loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise fault(
            f"Not valid YAML: {error.problem}.", place=f"{path}:{line}", remedy="Mend the syntax."
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # A character that YAML forbids, a date that does not exist, an alias inside its own anchor.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise fault(f"Not valid YAML: {reason}.", place=path, remedy="Mend the syntax.") from None
    if not isinstance(data, dict):
        raise fault("The file does not hold a mapping.", place=path, remedy=remedy)
    return LocatedYaml(path, data, lines)


def _walk(
    node: yaml.Node, at: Location, lines: dict[Location, int], path: str, fault: type[InputError]
) -> None:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            location = (*at, str(key.value))
            if location in lines:
                raise fault(
                    f"The key '{key.value}' stands twice.",
                    place=f"{path}:{key.start_mark.line + 1}",
                    remedy=f"Remove one of them; the first is in line {lines[location]}.",
                )
            lines[location] = key.start_mark.line + 1
            _walk(value, location, lines, path, fault)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*at, index), lines, path, fault)
