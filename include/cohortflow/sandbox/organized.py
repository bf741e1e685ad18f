"""``organizeOutputBy=Patient``: files of blocks, one block per patient (B8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import orjson

from cohortflow.sandbox.export_job import Export, ExportFile
from cohortflow.sandbox.ndjson_index import NO_PATIENT
from cohortflow.sandbox.resource_table import ResourceTable, Rows
from cohortflow.sandbox.shaping import Shaper

__all__ = ["write_blocks"]

Chosen = Mapping[str, tuple[ResourceTable, Rows]]


def write_blocks(export: Export, chosen: Chosen, shaper: Shaper, size: int) -> None:
    """Write the resources of an export patient by patient, each block under its header.

    What belongs to no patient is left out, as the specification allows. A block that does not fit
    goes on in the next file, under the same header.

    Args:
        export: Takes the files.
        chosen: Per type its table and the rows to write.
        shaper: How resources are shown.
        size: Most lines per file.
    """
    files: list[list[bytes]] = [[]]
    split: set[int] = set()
    for header, lines in _blocks(export, chosen, shaper):
        if export.cancelled:
            return
        if len(files[-1]) + 2 > size and files[-1]:
            files.append([])
        files[-1].append(header)
        for line in lines:
            if len(files[-1]) >= max(size, 2):
                split.add(len(files) - 1)
                files.append([header])
            files[-1].append(line)
    if not files[0]:
        return
    names = [f"output.{number:03}.ndjson" for number in range(len(files))]
    for number, (name, lines) in enumerate(zip(names, files, strict=True)):
        (export.folder / name).write_bytes(b"".join(lines))
        following = names[number + 1] if number in split else None
        export.files.append(ExportFile("output", "", name, len(lines), following))
    export.done = 1.0


def _blocks(export: Export, chosen: Chosen, shaper: Shaper) -> Iterator[tuple[bytes, list[bytes]]]:
    patient_table, patient_rows = chosen.get("Patient", (None, np.empty(0, dtype=np.int64)))
    if patient_table is None:
        return
    sorted_rows = {
        name: (table, rows[np.argsort(table.patients[rows], kind="stable")])
        for name, (table, rows) in chosen.items()
        if table.has_patients and name != "Patient"
    }
    for row in patient_rows.tolist():
        patient = patient_table.patients[row]
        if patient == NO_PATIENT:
            continue
        line = patient_table.line(row).rstrip(b"\n")
        reference = f"Patient/{shaper.shown_id('Patient', orjson.loads(line)['id'])}"
        parameter = {"name": "header", "valueReference": {"reference": reference}}
        header = orjson.dumps({"resourceType": "Parameters", "parameter": [parameter]}) + b"\n"
        kept = export.request.kept_elements
        lines = [shaper.line("Patient", line, kept("Patient")) + b"\n"]
        for name, (table, rows) in sorted_rows.items():
            numbers = table.patients[rows]
            low, high = np.searchsorted(numbers, [patient, patient + 1])
            lines += [
                shaper.line(name, found.rstrip(b"\n"), kept(name)) + b"\n"
                for found in table.lines(rows[low:high])
            ]
        yield header, lines
