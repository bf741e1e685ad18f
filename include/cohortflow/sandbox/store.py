"""The hospital's records: tables per type, patient numbers, groups, changes and deletions."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from cohortflow.sandbox.instants import date_range, format_instant
from cohortflow.sandbox.instants import now as current_time
from cohortflow.sandbox.ndjson_index import (
    NO_PATIENT,
    IndexedFile,
    PatientNumbers,
    data_files,
    index_file,
    index_resources,
    patient_of,
)
from cohortflow.sandbox.resource_table import ResourceTable

__all__ = ["ALL_PATIENTS", "Deletion", "ResourceStore"]

ALL_PATIENTS = "all-patients"

PatientSet = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Deletion:
    """A resource that was deleted while the sandbox ran.

    Attributes:
        resource_type: Its type.
        resource_id: Its id.
        patient: Number of its patient, or ``NO_PATIENT``.
        time: Microseconds since 1970.
    """

    resource_type: str
    resource_id: str
    patient: int
    time: int


class ResourceStore:
    """Finds and reads resources of a folder of NDJSON; changes are kept apart from the folder.

    Args:
        data: Folder of ``<Type>.ndjson`` and ``<Type>.ndjson.gz``.
        spool: Folder for unpacked copies and changes.

    Raises:
        InputError: The folder, a file name or a line is not as it has to be.
    """

    def __init__(self, data: Path, spool: Path) -> None:
        self._spool = spool
        self._lock = threading.Lock()
        self._patients = PatientNumbers()
        self._changes = 0
        self._frozen_time: int | None = None
        files: dict[str, list[IndexedFile]] = {}
        for resource_type, path in data_files(data):
            files.setdefault(resource_type, []).append(index_file(path, resource_type, self._patients, spool))
        self._tables = {name: ResourceTable.of(tuple(parts)) for name, parts in files.items()}
        self._deletions: tuple[Deletion, ...] = ()
        self._synthesised_group = "Group" not in self._tables
        if self._synthesised_group:
            self._write_all_patients()
        self._joined: dict[str, dict[int, int]] = {}
        self._groups: dict[str, PatientSet] = {}
        self._groups = self._read_groups(joined=0)

    @property
    def types(self) -> list[str]:
        """The resource types that have data."""
        return sorted(self._tables)

    @property
    def now(self) -> int:
        """The hospital's time in microseconds: the clock, unless a test has set it."""
        return current_time() if self._frozen_time is None else self._frozen_time

    def set_time(self, microseconds: int | None) -> None:
        """Set the hospital's time; ``None`` lets the clock run."""
        self._frozen_time = microseconds

    def table(self, resource_type: str) -> ResourceTable | None:
        """The rows of a type as they are at this moment."""
        return self._tables.get(resource_type)

    def snapshot(self) -> dict[str, ResourceTable]:
        """All tables as they are at this moment."""
        return dict(self._tables)

    def patient_number(self, patient_id: str) -> int | None:
        """The number of a patient that appears in the data."""
        return self._patients.get(patient_id)

    def group(self, group_id: str) -> PatientSet | None:
        """The patients of a Group, by number."""
        return self._groups.get(group_id)

    def joined_after(self, group_id: str, since: int) -> PatientSet:
        """The patients, by number, who became members of a Group after a moment."""
        joined = self._joined.get(group_id, {})
        return np.array(sorted(number for number, moment in joined.items() if moment > since), dtype=np.int32)

    def deletions(self, since: int, until: int) -> Iterator[Deletion]:
        """Deletions after ``since`` and not after ``until``."""
        return (deletion for deletion in self._deletions if since < deletion.time <= until)

    def is_deleted(self, resource_type: str, resource_id: str) -> bool:
        """Whether a resource was there and was deleted."""
        return any(
            (deletion.resource_type, deletion.resource_id) == (resource_type, resource_id)
            for deletion in self._deletions
        )

    def read(self, resource_type: str, resource_id: str) -> bytes | None:
        """The resource as stored, or ``None``."""
        table = self._tables.get(resource_type)
        row = None if table is None else table.find(resource_id)
        if table is None or row is None or not table.stands(row, self.now):
            return None
        return table.line(row).rstrip(b"\n")

    def put(self, resources: Iterable[dict[str, Any]]) -> None:
        """Add resources, or replace those with the same type and id.

        A resource without ``meta.lastUpdated`` gets the hospital's time.
        """
        stamp = {"lastUpdated": format_instant(self.now)}
        latest = {
            (str(resource["resourceType"]), str(resource["id"])): resource
            | {"meta": stamp | (resource.get("meta") or {})}
            for resource in resources
        }
        by_type: dict[str, list[dict[str, Any]]] = {}
        for (resource_type, _), resource in latest.items():
            by_type.setdefault(resource_type, []).append(resource)
        with self._lock:
            for resource_type, group in by_type.items():
                self._write(resource_type, group)
            self._deletions = tuple(
                gone for gone in self._deletions if (gone.resource_type, gone.resource_id) not in latest
            )
            self._refresh_groups(by_type)

    def delete(self, resource_type: str, resource_id: str) -> bool:
        """Delete a resource; ``False`` if there is none."""
        with self._lock:
            table = self._tables.get(resource_type)
            row = None if table is None else table.find(resource_id)
            if table is None or row is None or not table.live[row]:
                return False
            patient = int(table.patients[row])
            self._tables[resource_type] = table.without([row])
            self._deletions += (Deletion(resource_type, resource_id, patient, self.now),)
            self._refresh_groups([resource_type])
        return True

    def close(self) -> None:
        """Close the files."""
        for table in self._tables.values():
            for file in table.files:
                os.close(file.descriptor)
        self._tables = {}

    def _write(self, resource_type: str, resources: list[dict[str, Any]]) -> None:
        self._changes += 1
        path = self._spool / f"change-{self._changes:06}.ndjson"
        file = index_resources(path, resources, self._patients, self.now)
        table = self._tables.get(resource_type)
        if table is None:
            self._tables[resource_type] = ResourceTable.of((file,))
            return
        replaced = [table.find(str(resource["id"])) for resource in resources]
        self._tables[resource_type] = table.without([row for row in replaced if row is not None]).with_file(
            file
        )

    def _refresh_groups(self, changed: Collection[str]) -> None:
        if "Patient" in changed and self._synthesised_group:
            self._write_all_patients()
        if "Group" in changed or "Patient" in changed:
            self._groups = self._read_groups(joined=self.now)

    def _write_all_patients(self) -> None:
        table = self._tables.get("Patient")
        if table is None:
            return
        rows = table.select(until=self.now)
        members = [
            {"entity": {"reference": f"Patient/{orjson.loads(line)['id']}"}} for line in table.lines(rows)
        ]
        group = {
            "resourceType": "Group",
            "id": ALL_PATIENTS,
            "type": "person",
            "actual": True,
            "name": "All patients",
            "quantity": len(members),
            "member": members,
        }
        self._write("Group", [group])

    def _read_groups(self, joined: int) -> dict[str, PatientSet]:
        # ``joined`` is when those became members who were none before, unless the Group says so itself.
        table = self._tables.get("Group")
        groups = {}
        for line in table.lines(table.select(until=self.now)) if table is not None else ():
            group = orjson.loads(line)
            moments = {}
            for member in group.get("member", []):
                number = self._patients.get(_member_id(member), NO_PATIENT)
                if number != NO_PATIENT and not member.get("inactive", False):
                    moments[number] = _member_since(member)
            name = str(group["id"])
            known = self._joined.get(name, {})
            self._joined[name] = {
                number: known.get(number, joined) if moment is None else moment
                for number, moment in moments.items()
            }
            groups[name] = np.array(sorted(moments), dtype=np.int32)
        return groups


def _member_id(member: dict[str, Any]) -> str:
    return patient_of({"resourceType": "Group.member", "patient": member.get("entity")}) or ""


def _member_since(member: dict[str, Any]) -> int | None:
    start = (member.get("period") or {}).get("start")
    return None if start is None else date_range(start)[0]
