"""Writes the files of an export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import orjson

from cohortflow.sandbox.export_job import Export, ExportFile, Section
from cohortflow.sandbox.export_request import ExportRequest
from cohortflow.sandbox.ndjson_index import NO_PATIENT
from cohortflow.sandbox.organized import write_blocks
from cohortflow.sandbox.outcome import RefusalError, operation_outcome
from cohortflow.sandbox.persona import Persona
from cohortflow.sandbox.resource_table import ResourceTable, Rows
from cohortflow.sandbox.resource_types import SUPPORTING_TYPES
from cohortflow.sandbox.search_parameters import values_at
from cohortflow.sandbox.shaping import Shaper
from cohortflow.sandbox.store import ALL_PATIENTS, Deletion, ResourceStore
from cohortflow.sandbox.visibility import Visibility

__all__ = ["ExportBuilder"]

PatientSet = npt.NDArray[np.int32]
Tables = dict[str, ResourceTable]

_DELETIONS_PER_BUNDLE = 100
_FILTERED_AT_ONCE = 10_000  # between two looks at whether the export was cancelled


class ExportBuilder:
    """Finds what belongs into an export, and writes it.

    Args:
        store: The records.
        persona: Whose manners to follow.
        shaper: How resources are shown.
        visibility: Which resources are shown.
    """

    def __init__(
        self, store: ResourceStore, persona: Persona, shaper: Shaper, visibility: Visibility
    ) -> None:
        self._store = store
        self._persona = persona
        self._shaper = shaper
        self._visibility = visibility

    def patients(self, request: ExportRequest) -> PatientSet | None:
        """The patients of an export by number; ``None`` stands for all that there are.

        Raises:
            RefusalError: 404 or 400, when the Group or a patient is unknown, or the Group too large.
        """
        members = None
        if request.group_id is not None:
            members = self._store.group(request.group_id)
            if members is None:
                raise RefusalError(404, "not-found", "there is no such Group")
            most = self._persona.max_group_patients
            if most is not None and len(members) > most:  # O4
                raise RefusalError(400, "too-costly", f"a Group may have at most {most} patients")
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

    def build(self, export: Export, tables: Tables) -> None:
        """Write all files of an export; stops early when it is cancelled.

        Args:
            export: Takes the files as they are finished.
            tables: The records as they were at the kick-off.
        """
        export.folder.mkdir()
        patients = self.patients(export.request)
        if export.request.organize_by is not None:
            rows = {name: self._rows(export, name, tables, patients) for name in export.types}
            chosen = {name: (tables[name], found) for name, found in rows.items() if len(found)}
            write_blocks(export, chosen, self._shaper, self._persona.resources_per_file)
        else:
            for number, resource_type in enumerate(export.types):
                if export.cancelled:
                    break
                rows_of_type = self._rows(export, resource_type, tables, patients)
                self._write_type(export, resource_type, tables, rows_of_type)
                export.done = (number + 1) / len(export.types)
        if export.request.since is not None and self._persona.lists_deleted:
            self._write_deletions(export, export.request.since, patients)
        self._write_lines(export, "error", "OperationOutcome", export.outcomes)

    def _rows(self, export: Export, resource_type: str, tables: Tables, patients: PatientSet | None) -> Rows:
        request = export.request
        nothing = np.empty(0, dtype=np.int64)
        table = tables.get(resource_type)
        if table is None:
            return nothing
        compartment = table.has_patients
        associated = resource_type == "Provenance" and request.provenance
        if request.level != "system" and not (compartment or associated or resource_type in SUPPORTING_TYPES):
            return nothing
        rows = self._standing(export, table, patients if compartment else None)
        if request.level == "patient" and compartment:
            rows = rows[table.patients[rows] != NO_PATIENT]
        if any(query.resource_type == resource_type for query in request.filters):
            rows = self._filter(export, resource_type, table, rows)
        if associated and request.level != "system":
            rows = self._associated(table, rows, tables, patients)
        if self._visibility.hides_any(table, rows):
            export.outcomes.append(
                operation_outcome(
                    "warning",
                    "suppressed",
                    f"some resources of type {resource_type} were left out",
                    system=self._persona.issue_system,
                    issue="4134",
                )
            )
        return self._visibility.rows(resource_type, table, rows)

    def _standing(self, export: Export, table: ResourceTable, patients: PatientSet | None) -> Rows:
        request, since = export.request, export.request.since
        if since is None and self._persona.recent_seconds is not None:  # O15
            since = export.transaction_time - int(self._persona.recent_seconds * 1_000_000)
        until = min(export.transaction_time, request.until or export.transaction_time)
        rows = table.select(until=until, since=since, patients=patients)
        if request.since is None or request.group_id is None or patients is None:
            return rows
        if self._persona.new_member_history:  # B10
            newcomers = self._store.joined_after(request.group_id, request.since)
            newcomers = newcomers[np.isin(newcomers, patients)]
            if len(newcomers):
                rows = np.union1d(rows, table.select(until=until, patients=newcomers))
        return rows

    def _filter(self, export: Export, resource_type: str, table: ResourceTable, rows: Rows) -> Rows:
        filters = [query for query in export.request.filters if query.resource_type == resource_type]
        found = [rows[:0]]
        for first in range(0, len(rows), _FILTERED_AT_ONCE):
            if export.cancelled:
                break
            some = rows[first : first + _FILTERED_AT_ONCE]
            found.extend(query.rows(table, some, self._store.patient_number) for query in filters)
        return np.unique(np.concatenate(found))

    def _associated(
        self, table: ResourceTable, rows: Rows, tables: Tables, patients: PatientSet | None
    ) -> Rows:
        # Provenance is in no compartment here: it follows what it is about.
        def concerns(line: bytes) -> bool:
            for value in values_at(orjson.loads(line), "target"):
                parts = str(value.get("reference", "")).split("/")
                other = tables.get(parts[-2]) if len(parts) > 1 else None
                row = None if other is None else other.find(parts[-1])
                if other is not None and row is not None and other.patients[row] != NO_PATIENT:
                    return patients is None or bool(np.isin(other.patients[row], patients))
            return False

        return rows[np.array([concerns(line) for line in table.lines(rows)], dtype=np.bool_)]

    def _write_type(self, export: Export, resource_type: str, tables: Tables, rows: Rows) -> None:
        if not len(rows):
            return
        size = self._persona.resources_per_file
        parts = [rows[first : first + size] for first in range(0, len(rows), size)]
        if self._persona.repeats_resources:  # O14
            parts = [*(np.append(part, part[0]) for part in parts), rows[:1]]
        for number, part in enumerate(parts):
            if export.cancelled:
                return
            name = f"{resource_type}.{number:03}.ndjson"
            with (export.folder / name).open("wb") as target:
                self._write_rows(export, resource_type, tables[resource_type], part, target)
            export.files.append(ExportFile("output", resource_type, name, len(part)))

    def _write_rows(
        self, export: Export, resource_type: str, table: ResourceTable, rows: Rows, target: BinaryIO
    ) -> None:
        elements = export.request.kept_elements(resource_type)
        if elements is None and self._shaper.changes_nothing:
            table.copy(rows, target)
            return
        target.writelines(
            self._shaper.line(resource_type, line.rstrip(b"\n"), elements) + b"\n"
            for line in table.lines(rows)
        )

    def _write_deletions(self, export: Export, since: int, patients: PatientSet | None) -> None:
        gone = [
            deletion
            for deletion in self._store.deletions(since, export.transaction_time)
            if deletion.resource_type in export.types and _concerns(deletion, export.request, patients)
        ]
        self._write_lines(export, "deleted", "Bundle", self._deletion_bundles(gone))

    def _deletion_bundles(self, deletions: list[Deletion]) -> Iterator[dict[str, Any]]:
        for first in range(0, len(deletions), _DELETIONS_PER_BUNDLE):
            yield {
                "resourceType": "Bundle",
                "type": "transaction",
                "entry": [
                    {
                        "request": {
                            "method": "DELETE",
                            "url": f"{gone.resource_type}/"
                            f"{self._shaper.shown_id(gone.resource_type, gone.resource_id)}",
                        }
                    }
                    for gone in deletions[first : first + _DELETIONS_PER_BUNDLE]
                ],
            }

    def _write_lines(
        self, export: Export, section: Section, resource_type: str, resources: Iterable[dict[str, Any]]
    ) -> None:
        lines = [orjson.dumps(resource) + b"\n" for resource in resources]
        if lines and not export.cancelled:
            name = f"{section}.000.ndjson"
            (export.folder / name).write_bytes(b"".join(lines))
            export.files.append(ExportFile(section, resource_type, name, len(lines)))


def _concerns(deletion: Deletion, request: ExportRequest, patients: PatientSet | None) -> bool:
    if request.level == "system":
        return True
    if request.patients is None and request.group_id in {None, ALL_PATIENTS}:
        return deletion.patient != NO_PATIENT  # a deleted patient is no longer a member
    return patients is not None and bool(np.isin(deletion.patient, patients))
