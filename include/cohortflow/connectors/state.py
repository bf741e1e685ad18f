"""What is remembered of an export, so that any worker can go on with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cohortflow.connectors.manifest import Manifest
from cohortflow.errors import SourceError

__all__ = [
    "ExportState",
    "FileState",
    "Phase",
    "RawSink",
    "Section",
    "plan_files",
    "read_state",
    "settle_state",
    "write_state",
]

Section = Literal["output", "deleted", "error"]


class RawSink(Protocol):
    """Where one export is kept: a folder of the raw zone.

    Names of files are relative, such as ``Patient/Patient.0001.ndjson``.
    """

    async def read_state(self) -> bytes | None:
        """Return what ``write_state`` wrote last, or ``None``."""
        ...

    async def write_state(self, state: bytes) -> None:
        """Replace the state in one step: readers see the old one or the new one."""
        ...

    async def write_file(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Write a file from chunks, replacing any of this name.

        The file becomes visible only once ``chunks`` is exhausted. An error that ``chunks`` raises, or
        a cancellation, leaves nothing new behind and passes through unchanged.
        """
        ...

    async def file_size(self, name: str) -> int | None:
        """Return the bytes of a complete file, or ``None`` where there is none."""
        ...

    async def remove_files(self) -> None:
        """Remove all files, but not the state."""
        ...


class Phase(StrEnum):
    """How far an export is."""

    PENDING = "pending"
    """To be started."""
    RUNNING = "running"
    """Started: the status URL is known."""
    READY = "ready"
    """The manifest is known: files can be downloaded."""
    COMPLETE = "complete"
    """All files are there."""
    EXPIRED = "expired"
    """The server has forgotten it."""
    FAILED = "failed"
    """The server gave it up."""
    CANCELLED = "cancelled"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class FileState(_Part):
    """One file of an export.

    Attributes:
        section: Part of the manifest.
        type: Resource type of its lines.
        name: Name in the sink.
        url: Where it is on the server.
        count: Resources that the manifest announces, if it does.
        done: Whether it is complete in the sink.
        bytes: Size in the sink.
        lines: Resources in it.
        sha256: Hex digest of the file in the sink.
        severities: For an error file: issues by severity.
    """

    section: Section
    type: str
    name: str
    url: str = Field(repr=False)
    count: int | None = None
    done: bool = False
    bytes: int = 0
    lines: int = 0
    sha256: str = ""
    severities: dict[str, int] = Field(default_factory=dict)


class ExportState(_Part):
    """State of one export, kept as JSON beside its files.

    Attributes:
        version: Of this layout.
        server: FHIR base URL.
        request_digest: ``ExportRequest.digest``.
        phase: How far it is.
        status_url: Where to poll.
        kicked_off_at: When it was started, UTC.
        unreachable_since: When polls began to fail, UTC; ``None`` while they succeed.
        transaction_time: FHIR instant of the manifest.
        requires_access_token: Whether files need the token.
        files: All files of the manifest.
    """

    version: Literal[1] = 1
    server: str
    request_digest: str
    phase: Phase = Phase.PENDING
    status_url: str = Field(default="", repr=False)
    kicked_off_at: datetime | None = None
    unreachable_since: datetime | None = None
    transaction_time: str = ""
    requires_access_token: bool = True
    files: tuple[FileState, ...] = ()

    def evolve(self, **changes: object) -> ExportState:
        """Return a copy with other values."""
        return self.model_copy(update=changes)


def plan_files(manifest: Manifest) -> tuple[FileState, ...]:
    """Name the files of a manifest: by type, numbered in the manifest's order."""
    counters: dict[str, int] = {}

    def name(folder: str, kind: str) -> str:
        counters[folder] = counters.get(folder, 0) + 1
        return f"{folder}/{kind}.{counters[folder]:04d}.ndjson"

    outputs = [
        FileState(
            section="output", type=item.type, name=name(item.type, item.type), url=item.url, count=item.count
        )
        for item in manifest.output
    ]
    deleted = [
        FileState(
            section="deleted", type="Bundle", name=name("_deleted", "Bundle"), url=item.url, count=item.count
        )
        for item in manifest.deleted
    ]
    errors = [
        FileState(
            section="error",
            type="OperationOutcome",
            name=name("_errors", "OperationOutcome"),
            url=item.url,
            count=item.count,
        )
        for item in manifest.error
    ]
    return (*outputs, *deleted, *errors)


async def read_state(sink: RawSink) -> ExportState | None:
    """Read the state of a sink, or ``None`` where no export was started.

    Raises:
        SourceError: The state was written by another version or damaged.
    """
    data = await sink.read_state()
    if data is None:
        return None
    try:
        return ExportState.model_validate_json(data)
    except ValidationError:
        raise SourceError(
            "The state of the export cannot be read: it is damaged or from another version.",
            remedy="Delete the folder of this export in the raw zone; the next run exports anew.",
        ) from None


async def write_state(sink: RawSink, state: ExportState) -> None:
    """Write the state of a sink."""
    await sink.write_state(state.model_dump_json(indent=1).encode())


async def settle_state(sink: RawSink, state: ExportState) -> ExportState:
    """Write the state of an unfinished export, unless another run has completed the same one meanwhile.

    Returns:
        What stands now: the given state, or the completed one.
    """
    current = await read_state(sink)
    if (
        current is not None
        and current.phase is Phase.COMPLETE
        and (current.server, current.request_digest) == (state.server, state.request_digest)
    ):
        return current
    await write_state(sink, state)
    return state
