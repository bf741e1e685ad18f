"""Where the export of a run is, what is asked for, and what it builds on."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cohortflow.connectors import (
    ExportRequest,
    ExtractionResult,
    FhirSource,
    HydrationRequest,
    load_extracted,
)
from cohortflow.errors import ArtifactNotFoundError
from cohortflow.lake import RawExport
from cohortflow.registry import Subject
from cohortflow.workflow.datasets import views_to_read
from cohortflow.workflow.run import Run

if TYPE_CHECKING:
    from cohortflow.connectors import RequestedMode
    from cohortflow.lake import Store
    from cohortflow.workflow.spec import SourceSpec

__all__ = [
    "ExportLink",
    "ExportPlan",
    "Extraction",
    "plan_extraction",
    "read_chain",
    "read_link",
    "write_link",
]

_SECONDS_PER_HOUR = 3600
_LONGEST_CHAIN = 10_000


@dataclasses.dataclass(frozen=True, slots=True)
class Extraction:
    """A complete export.

    Attributes:
        export: Its folder in the raw zone.
        result: Files and counts.
        digest: SHA-256 over the files' digests: equal exports have equal ones.
        since: FHIR instant that it begins at; empty for a full one.
    """

    export: RawExport
    result: ExtractionResult
    digest: str
    since: str = ""

    def uris(self, resource: str) -> list[str]:
        """Return the URIs of a resource type's files."""
        return [self.export.uri(name) for name in self.result.files.get(resource, ())]


@dataclasses.dataclass(frozen=True, slots=True)
class ExportPlan:
    """What a run exports.

    Attributes:
        source: The server.
        request: What is asked for, but for ``since``.
        export: The folder for it.
        subject: What the server allows one export of at a time.
        chain: Identity of the sequence of exports that it may build on: server, client, request and
            the study's rule on when to begin anew.
        full_every: Days after which everything is exported again; ``None``: every time.
        mode: Bulk export, search per patient or per type, or whichever fits.
        hydration: What is fetched by reference afterwards, if anything.
    """

    source: FhirSource
    request: ExportRequest
    export: RawExport
    subject: Subject
    chain: str
    full_every: float | None
    mode: RequestedMode = "bulk"
    hydration: HydrationRequest | None = None


class ExportLink(BaseModel):
    """What an export builds on; a JSON file beside its folder, written before the kick-off.

    It makes a chain of exports readable from the raw zone alone, and a request repeatable after a
    worker was killed.

    Attributes:
        version: Of this layout.
        kind: Whether the export holds everything, or what changed since another.
        since: ``transactionTime`` of the one before, verbatim; empty for a full one.
        base: Folder of the one before; empty for a full one.
        reason: Why it is a full one.
        members: Digests of the Group's members when it was asked for; ``None`` where the Group cannot
            be read.
        hydrated: Whether what its resources refer to is fetched, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    version: Literal[1] = 1
    kind: Literal["full", "incremental"] = "full"
    since: str = ""
    base: str = ""
    reason: str = ""
    members: tuple[str, ...] | None = None
    hydrated: bool = False

    def complete(self, request: ExportRequest) -> ExportRequest:
        """Return the request with this link's ``since``."""
        return (
            dataclasses.replace(request, since=datetime.fromisoformat(self.since)) if self.since else request
        )


def plan_extraction(run: Run) -> ExportPlan:
    """Return what a run exports, and where to.

    The folder depends on the request and the interval and not on the study or the run: a run that is
    repeated, and another study that asks for the same, work on the data that the interval had.
    ``fresh_export`` asks for new ones.

    Raises:
        ConfigurationError: The connection is missing or wrong.
        ProjectKeyError: The project key is; checked here, before patient data are fetched.
    """
    run.key.fingerprint  # noqa: B018  # reading it checks the key
    spec = run.plan.spec.source
    source = FhirSource.from_connection(run.deployment.connection(spec.connection))
    if spec.max_wait_hours is not None:
        seconds = spec.max_wait_hours * _SECONDS_PER_HOUR
        patient = dataclasses.replace(source.profile, max_wait_seconds=seconds)
        source = dataclasses.replace(source, profile=patient)
    views = (run.plan.datasets[name].view for name in views_to_read(run.plan.spec))
    resources = {view.resource for view in views if view is not None}
    request = ExportRequest(
        level=spec.level,
        group_id=spec.group or "",
        types=tuple(sorted(resources | set(spec.resource_types) | run.plan.exclusions.resource_types)),
        type_filters=spec.type_filters,
    )
    full_every = None if spec.incremental is None else spec.incremental.full_every
    folder = request.digest[:16]
    if spec.mode != "bulk":
        folder += f"-{spec.mode}"
    if full_every is not None:
        # A study that wants full exports must not be given another one's increments.
        folder += f"-i{full_every:g}"
    hydration = _plan_hydration(spec, source, request.types)
    if hydration is not None:
        # A study that follows references must not be given a folder whose pass leaves some out.
        folder += "-r" + hashlib.sha256(_describe(hydration).encode()).hexdigest()[:8]
    if run.fresh_export:
        folder += "-" + hashlib.sha256(run.run_id.encode()).hexdigest()[:8]
    prefix = f"{spec.connection}/{run.interval.key}/{folder}"
    if source.profile.single_flight:
        subject = Subject(source.base_url, source.client_id)
    else:
        subject = Subject.of(source.base_url, source.client_id, spec.level, spec.group or "")
    identity = [source.base_url, source.client_id, request.digest, str(full_every), spec.mode]
    if hydration is not None:
        identity.append(_describe(hydration))
    chain = hashlib.sha256("\n".join(identity).encode()).hexdigest()
    return ExportPlan(
        source, request, RawExport(run.raw, prefix), subject, chain, full_every, spec.mode, hydration
    )


def _plan_hydration(spec: SourceSpec, source: FhirSource, types: tuple[str, ...]) -> HydrationRequest | None:
    wanted = spec.references == "always" or (spec.references == "auto" and source.profile.withholds_members)
    if not wanted and not spec.attachments:
        return None
    rules = HydrationRequest().rules if wanted else ()
    return HydrationRequest(rules=rules, types=types, attachments=tuple(sorted(spec.attachments)))


def _describe(hydration: HydrationRequest) -> str:
    return f"references {','.join(hydration.rules)} attachments {','.join(hydration.attachments)}"


def read_link(raw: Store, folder: str) -> ExportLink:
    """Return what an export builds on; an export without a link is a full one.

    Raises:
        ArtifactNotFoundError: The link is damaged or from another version.
    """
    content = raw.read(_path(folder))
    if content is None:
        return ExportLink()
    try:
        return ExportLink.model_validate_json(content)
    except ValidationError:
        raise ArtifactNotFoundError(
            "What an export builds on cannot be read: the file is damaged or from another version.",
            place=raw.child(_path(folder)),
            remedy="Delete it together with the folder of this export; the next run exports anew.",
        ) from None


def write_link(raw: Store, folder: str, link: ExportLink) -> None:
    """Write what an export builds on."""
    raw.write(_path(folder), link.model_dump_json(indent=1).encode())


def read_chain(raw: Store, folder: str) -> tuple[Extraction, ...]:
    """Return the exports that together give the source's state, from the last full one to that of ``folder``.

    Raises:
        ArtifactNotFoundError: One is missing or not complete, or was replaced after the next was made.
    """
    return tuple(reversed(list(_walk(raw, folder))))


def _walk(raw: Store, folder: str) -> Iterator[Extraction]:
    expected = ""
    for _ in range(_LONGEST_CHAIN):
        export = RawExport(raw, folder)
        link = read_link(raw, folder)
        try:
            extracted = asyncio.run(load_extracted(export, hydrated=link.hydrated))
        except ArtifactNotFoundError:
            raise ArtifactNotFoundError(
                "The raw zone holds no complete export of this interval."
                if not expected
                else "An export that this interval's one builds on is missing.",
                place=raw.child(folder),
                remedy="Run the extraction first." if not expected else "Run the extraction again.",
            ) from None
        if expected and extracted.result.transaction_time != expected:
            raise ArtifactNotFoundError(
                "An export was replaced after the next one had built on it.",
                place=raw.child(folder),
                remedy="Run the extraction again: it begins with a full export.",
            )
        yield Extraction(export, extracted.result, extracted.digest, link.since)
        if not link.base:
            return
        folder, expected = link.base, link.since


def _path(folder: str) -> str:
    # Beside the folder: what is in it is removed when an export is begun anew.
    return f"{folder}.json"
