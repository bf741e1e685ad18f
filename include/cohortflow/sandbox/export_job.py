"""An export that was accepted: what it is for, how far it is, and which files it has."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cohortflow.sandbox.export_request import ExportRequest

__all__ = ["Export", "ExportFile", "Section"]

Section = Literal["output", "deleted", "error"]


@dataclass(frozen=True, slots=True)
class ExportFile:
    """One file of a finished export.

    Attributes:
        section: The list of the manifest that it stands in.
        resource_type: Type of its resources; empty where files are organized otherwise.
        name: Last part of its URL.
        count: Its lines.
        continues_in: Name of the file in which its last block goes on.
    """

    section: Section
    resource_type: str
    name: str
    count: int
    continues_in: str | None = None


@dataclass(slots=True, eq=False)
class Export:
    """One export and how far it is.

    Attributes:
        id: Unguessable part of its URLs.
        client_id: Who asked.
        request: What for.
        types: The resource types that the client may have and asked for.
        transaction_time: The moment whose state it shows, in microseconds.
        folder: Where its files are.
        outcomes: OperationOutcomes for its error file.
        links_signed: Whether file URLs need the signature of a manifest.
        started: Monotonic seconds at kick-off.
        finished: Monotonic seconds when all files were there.
        polls: Status requests so far.
        done: Share of the resource types that are written.
        failed: Whether it broke.
        cancelled: Whether the client deleted it.
        files: What it made.
        pages: First file, and file after the last, of each manifest that a client has seen.
        links: Signatures of file URLs, and until when they hold, in monotonic seconds.
    """

    id: str
    client_id: str
    request: ExportRequest
    types: tuple[str, ...]
    transaction_time: int
    folder: Path
    outcomes: list[dict[str, Any]]
    links_signed: bool = False
    started: float = field(default_factory=time.monotonic)
    finished: float | None = None
    polls: int = 0
    done: float = 0.0
    failed: bool = False
    cancelled: bool = False
    files: list[ExportFile] = field(default_factory=list)
    pages: list[tuple[int, int]] = field(default_factory=list)
    links: dict[str, float] = field(default_factory=dict)

    def has_link(self, signature: str) -> bool:
        """Whether a file URL with this signature, or with none, still works."""
        if not self.links_signed:
            return True
        return self.links.get(signature, 0.0) > time.monotonic()
