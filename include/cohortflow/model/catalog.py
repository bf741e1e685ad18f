"""The catalog: the files that people edit, found by kind and name."""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from cohortflow.errors import CatalogError

__all__ = ["Catalog", "Kind"]

Kind = Literal[
    "views",
    "valuesets",
    "conceptmaps",
    "redaction",
    "scrub",
    "expectations",
    "environments",
    "leaks",
    "patterns",
    "populations",
    "queries",
    "units",
]

_SUFFIXES = (".json", ".yaml")


@dataclass(frozen=True, slots=True)
class Catalog:
    """A folder with one sub-folder per kind and one JSON or YAML file per entry.

    Attributes:
        root: The folder; ``include/catalog`` of the project by default.
    """

    root: Path

    @classmethod
    def default(cls) -> Catalog:
        """Return the catalog of ``COHORTFLOW_HOME``, or the one beside this package."""
        home = os.environ.get("COHORTFLOW_HOME")
        include = Path(home) / "include" if home else Path(__file__).resolve().parents[2]
        return cls(include / "catalog")

    def names(self, kind: Kind) -> list[str]:
        """Return the names of all entries of a kind, sorted."""
        folder = self.root / kind
        return sorted(path.stem for path in folder.glob("*") if path.suffix in _SUFFIXES)

    def path(self, kind: Kind, name: str) -> Path:
        """Return the file of an entry.

        Raises:
            CatalogError: There is no such entry; the remedy names the nearest one.
        """
        known = self.names(kind)
        if name in known:  # and nothing outside the folder, such as '../secret'
            return next(
                path for suffix in _SUFFIXES if (path := self.root / kind / f"{name}{suffix}").is_file()
            )
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(known) or 'none'}."
        raise CatalogError(
            f"No entry '{name}' in the catalog's {kind}.", remedy=hint, place=str(self.root / kind)
        )

    def load(self, kind: Kind, name: str) -> dict[str, Any]:
        """Read an entry.

        Raises:
            CatalogError: There is no such entry, or its file is not a mapping in JSON or YAML.
        """
        path = self.path(kind, name)
        text = path.read_text(encoding="utf-8")
        try:
            value = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        except (ValueError, yaml.YAMLError) as error:
            raise CatalogError(
                f"Not valid {path.suffix[1:].upper()}: {error}", place=str(path), remedy="Mend the file."
            ) from error
        if not isinstance(value, dict):
            raise CatalogError("The file does not hold a mapping.", place=str(path), remedy="Mend the file.")
        return value
