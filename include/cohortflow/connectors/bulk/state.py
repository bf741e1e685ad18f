"""What is remembered of an export, so that any worker can go on with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cohortflow.connectors.bulk.manifest import Manifest, ManifestFile
from cohortflow.connectors.extraction.extractor import Phase
from cohortflow.connectors.extraction.folder import RawSink
from cohortflow.errors import SourceError

__all__ = [
    "ExportState",
    "FilePart",
    "FileState",
    "Reason",
    "Section",
    "plan_files",
    "read_state",
    "settle_state",
    "write_state",
]

Section = Literal["output", "deleted", "error"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Reason(_Part):
    """Issues of one kind in an error file.

    Attributes:
        severity: Severity, as the profile's code table corrects it.
        code: The issue's codes, such as ``processing/59204``; empty where it has none.
        type: Resource type it is about; empty where it does not say.
        count: How many there are.
    """

    severity: str
    code: str = ""
    type: str = ""
    count: int = 1


class FilePart(_Part):
    """The lines of one resource type of a file that held several.

    Attributes:
        type: Resource type.
        name: Name in the sink.
        bytes: Size in the sink.
        lines: Resources in it.
        sha256: Hex digest.
    """

    type: str
    name: str
    bytes: int
    lines: int
    sha256: str


class FileState(_Part):
    """One file of an export.

    Attributes:
        section: Part of the manifest.
        type: Resource type of its lines; empty where it holds several.
        name: Name in the sink; where it holds several types, that of its parts without the type.
        url: Where it is on the server.
        count: Resources that the manifest announces, if it does.
        done: Whether it is complete in the sink.
        bytes: Size in the sink.
        lines: Resources in it.
        sha256: Hex digest of the file in the sink.
        severities: For an error file: issues by severity.
        reasons: For an error file: issues by severity, code and type.
        parts: For a file of several types: where its lines went.
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
    reasons: tuple[Reason, ...] = ()
    parts: tuple[FilePart, ...] = ()

    @property
    def pieces(self) -> tuple[FilePart, ...]:
        """What of it is in the sink, type by type; none before it is done."""
        if not self.done or not self.type:
            return self.parts
        whole = FilePart(
            type=self.type, name=self.name, bytes=self.bytes, lines=self.lines, sha256=self.sha256
        )
        return (whole,)


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
        types: Resource types that were asked for; empty: all.
        parameters: Names of the request's parameters.
        absent: Types that this kind of server leaves out of exports.
        transaction_time: FHIR instant of the manifest.
        requires_access_token: Whether files need the token.
        organized_by: ``Manifest.organized_by``.
        files: All files of the manifest, or those that are known while the export runs.
    """

    version: Literal[1] = 1
    server: str
    request_digest: str
    phase: Phase = Phase.PENDING
    status_url: str = Field(default="", repr=False)
    kicked_off_at: datetime | None = None
    unreachable_since: datetime | None = None
    types: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    transaction_time: str = ""
    requires_access_token: bool = True
    organized_by: str = ""
    files: tuple[FileState, ...] = ()

    def evolve(self, **changes: object) -> ExportState:
        """Return a copy with other values."""
        return self.model_copy(update=changes)


def plan_files(manifest: Manifest, known: tuple[FileState, ...] = ()) -> tuple[FileState, ...] | None:
    """Name the files of a manifest: by type, numbered in the manifest's order.

    Args:
        manifest: The manifest, or what there is of it.
        known: What was planned from an earlier part: it keeps its names and progress, its addresses
            are renewed, and new files follow.

    Returns:
        The files; ``None`` where the manifest lacks a known one, so that it is another's.
    """
    counters: dict[str, int] = {}
    for item in known:
        counters[_folder(item)] = counters.get(_folder(item), 0) + 1
    fresh = {(section, file.url): (section, file) for section, file in _sections(manifest)}
    files = list[FileState]()
    if known:
        places = _match(known, fresh)
        if places is None:
            return None
        files.extend(
            item.model_copy(update={"url": url}) for item, (_, url) in zip(known, places, strict=True)
        )
        for place in places:
            del fresh[place]
    for section, file in fresh.values():
        item = FileState(
            section=section, type=_KINDS.get(section, file.type), name="", url=file.url, count=file.count
        )
        if section == "output" and manifest.organized_by:
            item = item.model_copy(update={"type": ""})
        folder = _folder(item)
        counters[folder] = number = counters.get(folder, 0) + 1
        name = f"{folder}/{item.type}.{number:04d}.ndjson" if item.type else f"block.{number:04d}.ndjson"
        files.append(item.model_copy(update={"name": name}))
    return tuple(files)


_KINDS: dict[Section, str] = {"deleted": "Bundle", "error": "OperationOutcome"}
_FOLDERS: dict[Section, str] = {"deleted": "_deleted", "error": "_errors"}


def _folder(item: FileState) -> str:
    return _FOLDERS.get(item.section, item.type)


def _sections(manifest: Manifest) -> Iterator[tuple[Section, ManifestFile]]:
    # Outcomes belong into "error", but some servers list them among the resources.
    outcomes = [item for item in manifest.output if item.type == "OperationOutcome"]
    yield from (("output", item) for item in manifest.output if item.type != "OperationOutcome")
    yield from (("deleted", item) for item in manifest.deleted)
    yield from (
        ("error", item) for item in {item.url: item for item in (*outcomes, *manifest.error)}.values()
    )


def _match(
    known: tuple[FileState, ...], fresh: Mapping[tuple[Section, str], object]
) -> list[tuple[Section, str]] | None:
    """Find each known file among those of a manifest, by its address or by that without its signature."""
    exact = [(item.section, item.url) for item in known]
    if all(place in fresh for place in exact):
        return exact
    stable = {(section, _unsigned(url)): (section, url) for section, url in fresh}
    places = [stable.get((item.section, _unsigned(item.url))) for item in known]
    if len(stable) < len(fresh) or len(set(places)) < len(known):
        return None
    found = [place for place in places if place is not None]
    return found if len(found) == len(known) else None


def _unsigned(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path}"


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
