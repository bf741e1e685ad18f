"""What the store of terminologies says of a release: its manifest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from cohortflow.errors import LakeError, MalformedDataError

__all__ = ["StoredRelease", "StoredTable", "read_manifest", "slug", "version_key"]

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class StoredTable:
    """One table of a stored release.

    Attributes:
        file: Name of its file.
        rows: Number of rows.
        digest: SHA-256 of the rows; empty for a closure, which follows from the edges.
    """

    file: str
    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class StoredRelease:
    """What the store holds of one version of a terminology.

    Attributes:
        system: Canonical URI.
        version: The distributor's name of the version.
        title: Name for people.
        licence: Who owns the content and what its use asks for.
        source: Names of the files that it was read from.
        digest: SHA-256 over system, version and the digests of the tables: equal content, equal digest.
        loaded_at: When it was loaded, UTC.
        tables: Tables by name.
    """

    system: str
    version: str
    title: str
    licence: str
    source: tuple[str, ...]
    digest: str
    loaded_at: datetime
    tables: Mapping[str, StoredTable] = field(default_factory=dict)

    @property
    def concepts(self) -> int:
        """Number of concepts."""
        return self.tables["concepts"].rows if "concepts" in self.tables else 0

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {
            "format": _FORMAT,
            "system": self.system,
            "version": self.version,
            "title": self.title,
            "licence": self.licence,
            "source": list(self.source),
            "digest": self.digest,
            "loaded_at": self.loaded_at.isoformat(),
            "tables": {name: asdict(table) for name, table in self.tables.items()},
        }


def read_manifest(content: bytes | None, place: str) -> StoredRelease | None:
    """Read a manifest; ``None`` where there is none.

    Raises:
        MalformedDataError: It is damaged.
        LakeError: Another version of Cohortflow wrote it.
    """
    if content is None:
        return None
    try:
        value = json.loads(content)
        if value["format"] != _FORMAT:
            raise LakeError(
                f"The manifest has format {value['format']}, not {_FORMAT}.",
                place=place,
                remedy="Read it with the version of Cohortflow that wrote it, or load the release again.",
            )
        return StoredRelease(
            system=value["system"],
            version=value["version"],
            title=value["title"],
            licence=value["licence"],
            source=tuple(value["source"]),
            digest=value["digest"],
            loaded_at=datetime.fromisoformat(value["loaded_at"]),
            tables=MappingProxyType({name: StoredTable(**table) for name, table in value["tables"].items()}),
        )
    except (ValueError, KeyError, TypeError):
        raise MalformedDataError(
            "The manifest of a terminology is damaged.",
            place=place,
            remedy="Remove its folder and load the release again.",
        ) from None


def version_key(version: str) -> tuple[tuple[int, ...], str]:
    """Return the key by which versions sort: by their numbers, then as text.

    ``2.9`` comes before ``2.10``, ``2026`` before ``2026-04-01``, ``2026AA`` before ``2026AB``, and
    ``CVX 20260201`` before ``2026-03-01``, as eight digits that begin like a year are a date.
    """
    dates = re.sub(r"(?<![0-9])((?:19|20)[0-9]{2})([0-9]{2})([0-9]{2})(?![0-9])", r"\1-\2-\3", version)
    return tuple(int(part) for part in re.findall(r"[0-9]+", dates)), version


def slug(text: str) -> str:
    """Return a folder's name for a text: readable, and different for different texts, on any file system."""
    plain = re.sub(r"[^a-z0-9.]+", "-", re.sub(r"^https?://", "", text.lower())).strip("-.")[:80]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
