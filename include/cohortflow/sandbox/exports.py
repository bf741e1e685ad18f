"""Bulk exports: built on disk in the background, kept for a while, then removed."""

from __future__ import annotations

import logging
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson

from cohortflow.sandbox.config import SandboxConfig
from cohortflow.sandbox.export_request import ExportRequest
from cohortflow.sandbox.ndjson_index import NO_PATIENT
from cohortflow.sandbox.outcome import RefusalError, operation_outcome
from cohortflow.sandbox.resource_table import ResourceTable, Rows
from cohortflow.sandbox.resource_types import SUPPORTING_TYPES
from cohortflow.sandbox.store import ALL_PATIENTS, Deletion, ResourceStore

__all__ = ["Export", "ExportBoard", "ExportFile"]

_LOGGER = logging.getLogger("cohortflow.sandbox")
_DELETIONS_PER_BUNDLE = 100
_FILTERED_AT_ONCE = 10_000  # between two looks at whether the export was cancelled


@dataclass(frozen=True, slots=True)
class ExportFile:
    """One file of a finished export.

    Attributes:
        section: The list of the manifest that it stands in.
        resource_type: Type of its resources.
        name: Last part of its URL.
        count: Its lines.
    """

    section: Literal["output", "deleted", "error"]
    resource_type: str
    name: str
    count: int


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
        started: Monotonic seconds at kick-off.
        finished: Monotonic seconds when all files were there.
        polls: Status requests so far.
        done: Share of the resource types that are written.
        failed: Whether it broke.
        cancelled: Whether the client deleted it.
        files: What it made.
    """

    id: str
    client_id: str
    request: ExportRequest
    types: tuple[str, ...]
    transaction_time: int
    folder: Path
    outcomes: list[dict[str, Any]]
    started: float = field(default_factory=time.monotonic)
    finished: float | None = None
    polls: int = 0
    done: float = 0.0
    failed: bool = False
    cancelled: bool = False
    files: list[ExportFile] = field(default_factory=list)

    def file(self, name: str) -> Path | None:
        """The path of a file of a finished export."""
        return self.folder / name if any(file.name == name for file in self.files) else None


class ExportBoard:
    """Starts, shows and removes exports.

    Args:
        store: The records.
        config: Pace and lifetime of exports.
        folder: Where files go.
    """

    def __init__(self, store: ResourceStore, config: SandboxConfig, folder: Path) -> None:
        self._store = store
        self._config = config
        self._folder = folder
        self._lock = threading.Lock()
        self._exports: dict[str, Export] = {}
        self._workers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sandbox-export")

    def start(
        self,
        request: ExportRequest,
        client_id: str,
        types: tuple[str, ...],
        outcomes: list[dict[str, Any]],
    ) -> Export:
        """Accept an export.

        Raises:
            RefusalError: 429, when the client has as many unfinished exports as it may; 404 or 400,
                when the Group or a patient is unknown.
        """
        self._patients(request)
        with self._lock:
            self._sweep()
            running = sum(
                export.client_id == client_id and not self.is_complete(export) and not export.failed
                for export in self._exports.values()
            )
            if self._config.max_running_exports is not None and running >= self._config.max_running_exports:
                raise RefusalError(
                    429,
                    "throttled",
                    "another export of this client is not finished yet",
                    {"Retry-After": str(self._config.retry_after)},
                )
            export_id = uuid.uuid4().hex
            notices = [
                operation_outcome("warning", "not-supported", f"parameter '{name}' was ignored")
                for name in request.ignored
            ]
            export = Export(
                id=export_id,
                client_id=client_id,
                request=request,
                types=types,
                transaction_time=self._store.now,
                folder=self._folder / export_id,
                outcomes=notices + outcomes,
            )
            self._exports[export_id] = export
        self._workers.submit(self._build, export, self._store.snapshot())
        return export

    def get(self, export_id: str, client_id: str | None) -> Export:
        """An export of a client; ``None`` stands for whoever knows its id.

        Raises:
            RefusalError: 404, when there is none, or it was deleted or has expired.
        """
        with self._lock:
            self._sweep()
            export = self._exports.get(export_id)
        if export is None or client_id not in {None, export.client_id}:
            raise RefusalError(
                404, "not-found", "there is no such export; it may have expired or been deleted"
            )
        return export

    def cancel(self, export: Export) -> None:
        """Stop an export and remove its files."""
        with self._lock:
            self._drop(export)

    def expire_all(self) -> None:
        """Let every export expire now."""
        with self._lock:
            for export in list(self._exports.values()):
                self._drop(export)

    def is_complete(self, export: Export) -> bool:
        """Whether the client may have the manifest."""
        return (
            export.finished is not None
            and export.polls > self._config.export_polls
            and time.monotonic() - export.started >= self._config.export_seconds
        )

    def progress(self, export: Export) -> float:
        """Share that is done, as the client is told."""
        pace = self._config.export_seconds
        elapsed = (time.monotonic() - export.started) / pace if pace > 0 else 1.0
        return min(export.done, elapsed, 0.99)

    def remaining(self, export: Export) -> float:
        """Seconds until a finished export expires."""
        ready = max(export.finished or 0.0, export.started + self._config.export_seconds)
        return ready + self._config.export_lifetime - time.monotonic()

    def close(self) -> None:
        """Stop all work."""
        self.expire_all()
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _sweep(self) -> None:
        for export in list(self._exports.values()):
            if export.finished is not None and self.remaining(export) <= 0:
                self._drop(export)

    def _drop(self, export: Export) -> None:
        export.cancelled = True
        self._exports.pop(export.id, None)
        shutil.rmtree(export.folder, ignore_errors=True)

    def _patients(self, request: ExportRequest) -> npt.NDArray[np.int32] | None:
        # The patients of the export by number; None stands for all that there are.
        members = None
        if request.group_id is not None:
            members = self._store.group(request.group_id)
            if members is None:
                raise RefusalError(404, "not-found", "there is no such Group")
        if request.patients is None:
            return members
        numbers = [
            NO_PATIENT if number is None else number
            for number in map(self._store.patient_number, request.patients)
        ]
        if NO_PATIENT in numbers or (members is not None and not np.isin(numbers, members).all()):
            raise RefusalError(
                400, "not-found", "parameter 'patient' names a patient that is not in the export"
            )
        return np.array(numbers, dtype=np.int32)

    def _build(self, export: Export, tables: dict[str, ResourceTable]) -> None:
        try:
            export.folder.mkdir()
            patients = self._patients(export.request)
            for number, resource_type in enumerate(export.types):
                if export.cancelled:
                    break
                if (table := tables.get(resource_type)) is not None:
                    self._write_type(export, resource_type, table, patients)
                export.done = (number + 1) / len(export.types)
            if export.request.since is not None:
                self._write_deletions(export, export.request.since, patients)
            self._write_lines(export, "error", "OperationOutcome", export.outcomes)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client has to be told
            export.failed = True
            if not export.cancelled:
                # The class only: a message might hold a piece of a record.
                _LOGGER.error("an export failed with %s", type(error).__name__)  # noqa: TRY400
        finally:
            if export.cancelled:
                shutil.rmtree(export.folder, ignore_errors=True)
            export.finished = time.monotonic()

    def _write_type(
        self,
        export: Export,
        resource_type: str,
        table: ResourceTable,
        patients: npt.NDArray[np.int32] | None,
    ) -> None:
        request = export.request
        compartment = table.has_patients
        if request.level != "system" and not compartment and resource_type not in SUPPORTING_TYPES:
            return
        rows = table.select(
            until=export.transaction_time, since=request.since, patients=patients if compartment else None
        )
        if request.level == "patient" and compartment:
            rows = rows[table.patients[rows] != NO_PATIENT]
        if any(query.resource_type == resource_type for query in request.filters):
            rows = self._filter(export, resource_type, table, rows)
        size = self._config.resources_per_file
        for part, first in enumerate(range(0, len(rows), size)):
            if not export.cancelled:
                self._write_file(export, table, resource_type, part, rows[first : first + size])

    def _filter(self, export: Export, resource_type: str, table: ResourceTable, rows: Rows) -> Rows:
        filters = [query for query in export.request.filters if query.resource_type == resource_type]
        found = [rows[:0]]
        for first in range(0, len(rows), _FILTERED_AT_ONCE):
            if export.cancelled:
                break
            some = rows[first : first + _FILTERED_AT_ONCE]
            found.extend(query.rows(table, some, self._store.patient_number) for query in filters)
        return np.unique(np.concatenate(found))

    def _write_file(
        self, export: Export, table: ResourceTable, resource_type: str, part: int, rows: Rows
    ) -> None:
        name = f"{resource_type}.{part:03}.ndjson"
        with (export.folder / name).open("wb") as target:
            table.copy(rows, target)
        export.files.append(ExportFile("output", resource_type, name, len(rows)))

    def _write_deletions(self, export: Export, since: int, patients: npt.NDArray[np.int32] | None) -> None:
        gone = [
            deletion
            for deletion in self._store.deletions(since, export.transaction_time)
            if deletion.resource_type in export.types and _concerns(deletion, export.request, patients)
        ]
        self._write_lines(export, "deleted", "Bundle", list(_deletion_bundles(gone)))

    def _write_lines(
        self,
        export: Export,
        section: Literal["deleted", "error"],
        resource_type: str,
        resources: list[dict[str, Any]],
    ) -> None:
        if resources and not export.cancelled:
            name = f"{section}.000.ndjson"
            (export.folder / name).write_bytes(b"".join(orjson.dumps(item) + b"\n" for item in resources))
            export.files.append(ExportFile(section, resource_type, name, len(resources)))


def _concerns(deletion: Deletion, request: ExportRequest, patients: npt.NDArray[np.int32] | None) -> bool:
    if request.level == "system":
        return True
    if request.patients is None and request.group_id in {None, ALL_PATIENTS}:
        return deletion.patient != NO_PATIENT  # a deleted patient is no longer a member
    return patients is not None and bool(np.isin(deletion.patient, patients))


def _deletion_bundles(deletions: list[Deletion]) -> Iterator[dict[str, Any]]:
    for first in range(0, len(deletions), _DELETIONS_PER_BUNDLE):
        yield {
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [
                {"request": {"method": "DELETE", "url": f"{deletion.resource_type}/{deletion.resource_id}"}}
                for deletion in deletions[first : first + _DELETIONS_PER_BUNDLE]
            ],
        }
