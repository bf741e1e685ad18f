"""What is asked of a pass over references, what it brought, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cohortflow.connectors.extraction.folder import RawFolder
from cohortflow.connectors.extraction.result import CoverageRow
from cohortflow.connectors.hydrate.references import REFERENCE_RULES
from cohortflow.connectors.search.units import PartFile, UnitState
from cohortflow.errors import InputError

__all__ = [
    "HYDRATION_FILE",
    "NOTE_TYPES",
    "UNAVAILABLE",
    "HydrationRequest",
    "HydrationResult",
    "HydrationState",
    "files_by_type",
]

HYDRATION_FILE = "_plan/hydration.ndjson"
"""Name of the state of a pass in the folder of the extraction."""

NOTE_TYPES = ("text/html", "text/plain", "text/rtf", "application/rtf", "application/xml", "text/xml")
"""MIME types of clinical notes."""

UNAVAILABLE = "unavailable"
"""Reason in ``HydrationState.missing``: the server kept failing."""


@dataclass(frozen=True, slots=True)
class HydrationRequest:
    """What to fetch.

    Attributes:
        rules: Names of ``REFERENCE_RULES``.
        types: Types that are wanted, such as those that a study reads; others are not fetched, whatever
            refers to them. ``None``: all that the rules name.
        attachments: MIME types of documents whose content is fetched; empty: none.
        max_attachment_bytes: Larger content is left out.
        depth: How many references after one another are followed.
        resources_per_part: Resources of one part file.
    """

    rules: tuple[str, ...] = ("medications", "members", "staff")
    types: tuple[str, ...] | None = None
    attachments: tuple[str, ...] = ()
    max_attachment_bytes: int = 5 << 20
    depth: int = 3
    resources_per_part: int = 2000

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.rules) - REFERENCE_RULES.keys()):
            raise InputError(
                f"Unknown kinds of references: {', '.join(unknown)}.",
                remedy=f"Use some of {', '.join(sorted(REFERENCE_RULES))}.",
            )


@dataclass(frozen=True, slots=True)
class HydrationResult:
    """What a pass brought.

    Attributes:
        files: Names in the folder by type.
        resources: Resources by type.
        bytes: Size of the files.
        missing: Per type, how many references led to nothing, by reason.
        digests: SHA-256 of the files.
    """

    files: Mapping[str, tuple[str, ...]]
    resources: Mapping[str, int]
    bytes: int
    missing: Mapping[str, Mapping[str, int]]
    digests: tuple[str, ...]

    @classmethod
    def from_state(cls, state: HydrationState) -> HydrationResult:
        """Sum up a complete pass."""
        resources: dict[str, int] = {}
        for file in state.files:
            resources[file.type] = resources.get(file.type, 0) + file.lines
        return cls(
            files_by_type(state.files),
            resources,
            sum(file.bytes for file in state.files),
            state.missing,
            tuple(file.sha256 for file in state.files),
        )

    @property
    def coverage(self) -> tuple[CoverageRow, ...]:
        """What came, per type that was referred to."""
        return tuple(
            CoverageRow(
                name,
                "partial" if self.missing.get(name) else "complete",
                None,
                self.resources.get(name, 0),
                len(self.files.get(name, ())),
                tuple(f"{why}: {count}" for why, count in sorted(self.missing.get(name, {}).items())),
            )
            for name in sorted({*self.resources, *self.missing})
        )


class HydrationState(BaseModel):
    """State of one pass, kept beside the files of the extraction.

    Attributes:
        version: Of this layout.
        digest: Of the request and the files that it starts from.
        complete: Whether nothing is left.
        rounds: Rounds whose references are known.
        units: Units of work by key.
        missing: Per type, how many references led to nothing, by reason.
        waiting: Types that are to wait, until when (seconds since the epoch).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    version: Literal[1] = 1
    digest: str
    complete: bool = False
    rounds: tuple[int, ...] = ()
    units: dict[str, UnitState] = Field(default_factory=dict)
    missing: dict[str, dict[str, int]] = Field(default_factory=dict)
    waiting: dict[str, float] = Field(default_factory=dict)

    @property
    def files(self) -> tuple[PartFile, ...]:
        """All files of completed parts."""
        return tuple(file for unit in self.units.values() for file in unit.files)

    @classmethod
    async def read(cls, folder: RawFolder) -> HydrationState | None:
        """Read the state of a folder; ``None`` where there is none, or none of this version."""
        if await folder.file_size(HYDRATION_FILE) is None:
            return None
        data = b"".join([bytes(chunk) async for chunk in folder.read_file(HYDRATION_FILE)])
        try:
            return cls.model_validate_json(data)
        except ValidationError:
            return None


def files_by_type(files: Iterable[PartFile]) -> dict[str, tuple[str, ...]]:
    """Return the names of files by type, sorted."""
    names: dict[str, tuple[str, ...]] = {}
    for file in sorted(files, key=lambda item: item.name):
        names[file.type] = (*names.get(file.type, ()), file.name)
    return names
