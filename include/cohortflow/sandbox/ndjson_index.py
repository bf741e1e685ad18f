"""Byte offsets of the resources in NDJSON files: what stays in memory of a folder of any size.

A row costs about 30 bytes: where its line starts, a hash of its id, its patient as a number and
when it was last updated. The line itself is read from disk when somebody asks for it.
"""

from __future__ import annotations

import gzip
import os
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import orjson

from cohortflow.errors import InputError
from cohortflow.sandbox.instants import date_range
from cohortflow.sandbox.resource_types import PATIENT_ELEMENTS, RESOURCE_TYPES

__all__ = [
    "NO_PATIENT",
    "IndexedFile",
    "Offsets",
    "PatientNumbers",
    "data_files",
    "index_file",
    "index_resources",
    "patient_of",
]

Offsets = npt.NDArray[np.int64]
NO_PATIENT = -1

_FILE_NAME = re.compile(r"([A-Z][A-Za-z]+)(?:[._-][^.]*)*\.ndjson(?:\.gz)?")


class PatientNumbers(dict[str, int]):
    """Numbers patient ids in order of appearance."""

    def __missing__(self, patient_id: str) -> int:
        number = self[patient_id] = len(self)
        return number


@dataclass(frozen=True, slots=True, eq=False)
class IndexedFile:
    """One NDJSON file, one line per resource, no blank lines, each line ended by a line feed.

    Attributes:
        descriptor: Open for reading with ``os.pread``.
        starts: Where each line starts, and at the end where the file ends: rows + 1 numbers.
        id_hashes: ``hash(id)`` per row.
        patients: Number of the patient per row, or ``NO_PATIENT``.
        updated: ``meta.lastUpdated`` in microseconds; the time of the file where there is none.
        stated: Whether the row has a ``meta.lastUpdated``.
    """

    descriptor: int
    starts: Offsets
    id_hashes: Offsets
    patients: npt.NDArray[np.int32]
    updated: Offsets
    stated: npt.NDArray[np.bool_]


def data_files(folder: Path) -> list[tuple[str, Path]]:
    """List the resource type and path of each ``<Type>[.part].ndjson[.gz]`` in a folder.

    Raises:
        InputError: The folder has none, or a name does not start with a resource type.
    """
    if not folder.is_dir():
        raise InputError(
            "this data folder does not exist", place=str(folder), remedy="Name a folder of NDJSON."
        )
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.endswith((".ndjson", ".ndjson.gz")):
            match = _FILE_NAME.fullmatch(path.name)
            if match is None or match[1] not in RESOURCE_TYPES:
                raise InputError(
                    "the file name does not start with a FHIR R4 resource type",
                    place=str(path),
                    remedy="Name it <ResourceType>.ndjson, such as Patient.ndjson.",
                )
            found.append((match[1], path))
    if not found:
        raise InputError(
            "no .ndjson or .ndjson.gz file here",
            place=str(folder),
            remedy="Name a folder of <ResourceType>.ndjson.",
        )
    return found


def patient_of(resource: dict[str, Any]) -> str | None:
    """The id of the patient in whose compartment a resource is, by its subject or patient reference."""
    if resource["resourceType"] == "Patient":
        return str(resource["id"])
    for element in PATIENT_ELEMENTS:
        target = resource.get(element)
        reference = target.get("reference") if isinstance(target, dict) else None
        if isinstance(reference, str):
            if reference.startswith("urn:uuid:"):
                return reference.removeprefix("urn:uuid:")
            parts = reference.split("/_history/")[0].split("/")
            if len(parts) > 1 and parts[-2] == "Patient":
                return parts[-1]
    return None


def index_file(path: Path, resource_type: str, patients: PatientNumbers, spool: Path) -> IndexedFile:
    """Index one file; a compressed or untidy one is first rewritten into the spool folder.

    Args:
        path: NDJSON, plain or gzip.
        resource_type: What every line has to be.
        patients: Takes the patients that appear.
        spool: Folder for rewritten copies.

    Raises:
        InputError: A line is no resource of this type; the place names the file and line.
    """
    if path.suffix != ".gz":
        with path.open("rb") as plain:
            columns = _read(plain, None, path, resource_type, patients)
        if columns is not None:
            return columns.finish(path, path.stat().st_mtime_ns // 1000)
    tidy = spool / f"{path.name.removesuffix('.gz')}"
    with _open(path) as source, tidy.open("wb") as copy:
        columns = _read(source, copy, path, resource_type, patients)
    if columns is None:
        raise InputError("the file cannot be read as NDJSON", place=str(path))
    return columns.finish(tidy, path.stat().st_mtime_ns // 1000)


def index_resources(
    path: Path, resources: list[dict[str, Any]], patients: PatientNumbers, updated: int
) -> IndexedFile:
    """Write resources as a new file and index it; ``updated`` is the time of those that state none."""
    columns = _Columns()
    with path.open("wb") as file:
        for resource in resources:
            line = orjson.dumps(resource) + b"\n"
            columns.add(len(line), resource, patients)
            file.write(line)
    return columns.finish(path, updated)


class _Columns:
    def __init__(self) -> None:
        self.starts = array("q", [0])
        self.id_hashes = array("q")
        self.patients = array("i")
        self.updated = array("q")
        self.stated = array("b")

    def add(self, length: int, resource: dict[str, Any], patients: PatientNumbers) -> None:
        self.starts.append(self.starts[-1] + length)
        self.id_hashes.append(hash(resource["id"]))
        patient_id = patient_of(resource)
        self.patients.append(NO_PATIENT if patient_id is None else patients[patient_id])
        last_updated = (resource.get("meta") or {}).get("lastUpdated")
        self.stated.append(last_updated is not None)
        self.updated.append(0 if last_updated is None else date_range(last_updated)[0])

    def finish(self, path: Path, unstated_time: int) -> IndexedFile:
        stated = np.array(self.stated, dtype=np.bool_)
        return IndexedFile(
            descriptor=os.open(path, os.O_RDONLY),
            starts=np.array(self.starts, dtype=np.int64),
            id_hashes=np.array(self.id_hashes, dtype=np.int64),
            patients=np.array(self.patients, dtype=np.int32),
            updated=np.where(stated, np.array(self.updated, dtype=np.int64), unstated_time),
            stated=stated,
        )


def _open(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _lines(source: BinaryIO | gzip.GzipFile, path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        yield from enumerate(source, start=1)
    except (EOFError, gzip.BadGzipFile) as error:
        raise InputError("the gzip file is damaged", place=str(path), remedy="Fetch it again.") from error


def _read(
    source: BinaryIO | gzip.GzipFile,
    copy: BinaryIO | None,
    path: Path,
    resource_type: str,
    patients: PatientNumbers,
) -> _Columns | None:
    # Without a copy to tidy up in, an untidy line ends the attempt with None.
    columns = _Columns()
    for number, raw in _lines(source, path):
        line = raw
        if not raw.endswith(b"\n") or raw.endswith(b"\r\n") or raw.isspace():
            if copy is None:
                return None
            if raw.isspace():
                continue
            line = raw.rstrip(b"\r\n") + b"\n"
        try:
            columns.add(len(line), _resource(line, resource_type), patients)
        except (ValueError, KeyError, TypeError, AttributeError):
            # Not chained: the parser's message may quote the line.
            raise InputError(
                f"this line is no {resource_type} with an id",
                place=f"{path}:{number}",
                remedy="Correct the line or take it out.",
            ) from None
        if copy is not None:
            copy.write(line)
    return columns


def _resource(line: bytes, resource_type: str) -> dict[str, Any]:
    resource: dict[str, Any] = orjson.loads(line)
    if resource["resourceType"] != resource_type or not isinstance(resource["id"], str):
        raise ValueError(resource_type)
    return resource
