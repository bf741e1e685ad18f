"""A whole population, patient range by patient range, into a folder of NDJSON files."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from cohortflow.errors import InputError
from cohortflow.model import NoProgress, Progress
from cohortflow.synthetic.care import (
    render_allergies,
    render_immunizations,
    render_medications,
    render_procedures,
)
from cohortflow.synthetic.clinical import render_conditions, render_encounters
from cohortflow.synthetic.names import CLINICS
from cohortflow.synthetic.notes import render_notes
from cohortflow.synthetic.observations import render_observations, render_reports
from cohortflow.synthetic.output import GENERATOR, MANIFEST, Sink, open_sink, replace_folder
from cohortflow.synthetic.patients import identify, render_group, render_patients, render_staff
from cohortflow.synthetic.privacy import draw_wishes, label_lines, render_consents
from cohortflow.synthetic.scene import Scene, Stage
from cohortflow.synthetic.template import to_bytes
from cohortflow.synthetic.truth import COHORTS, describe_patients

__all__ = ["DEFAULT_AS_OF", "SyntheticFile", "SyntheticSummary", "generate"]

DEFAULT_AS_OF = dt.date(2026, 11, 1)
"""The day on which all records end unless another is named."""

_MAX_PATIENTS = 10_000_000
_MAX_SEED = 2**63
_FIRST_AS_OF, _LAST_AS_OF = dt.date(2015, 1, 1), dt.date(2100, 1, 1)
_CHUNK = 250
_SILENT = NoProgress()
_EPOCH = dt.date(1970, 1, 1)

_TYPES = (
    "Patient",
    "Encounter",
    "Condition",
    "Observation",
    "DiagnosticReport",
    "MedicationRequest",
    "Procedure",
    "Immunization",
    "AllergyIntolerance",
    "DocumentReference",
)
_TRUTH, _PLANTED = "ground_truth/patients.csv", "ground_truth/planted.csv"
_WISHES = "ground_truth/privacy.csv"


@dataclass(frozen=True, slots=True)
class SyntheticFile:
    """A file of resources.

    Attributes:
        name: Its name within the folder.
        resource_type: The type of all its resources.
        resources: How many it holds.
        size: Its size in bytes.
    """

    name: str
    resource_type: str
    resources: int
    size: int


@dataclass(frozen=True, slots=True)
class SyntheticSummary:
    """What was generated.

    Attributes:
        out: The folder.
        patients: Size of the population.
        seed: Seed of the population.
        as_of: The day on which all records end.
        files: The NDJSON files, one per resource type.
        cohorts: Patients of each of ``truth.COHORTS``.
    """

    out: Path
    patients: int
    seed: int
    as_of: dt.date
    files: tuple[SyntheticFile, ...]
    cohorts: Mapping[str, int]

    @property
    def size(self) -> int:
        """Bytes of all NDJSON files."""
        return sum(file.size for file in self.files)

    @property
    def counts(self) -> dict[str, int]:
        """Resources per type."""
        return {file.resource_type: file.resources for file in self.files}


@dataclass(frozen=True, slots=True)
class _Chunk:
    """The resources of a range of patients as text, and the truth about them."""

    texts: Mapping[str, memoryview]
    counts: Mapping[str, int]
    truth: pl.DataFrame
    planted: pl.DataFrame
    wishes: pl.DataFrame | None = None


def _render_chunk(stage: Stage, first: int, rows: int, *, privacy: bool = False) -> _Chunk:
    scene = Scene.play(stage, first, rows)
    identity = identify(scene)
    notes = render_notes(scene, identity)
    lines = {
        "Patient": render_patients(scene, identity),
        "Encounter": render_encounters(scene),
        "Condition": render_conditions(scene),
        "Observation": render_observations(scene),
        "DiagnosticReport": render_reports(scene),
        "MedicationRequest": render_medications(scene),
        "Procedure": render_procedures(scene),
        "Immunization": render_immunizations(scene),
        "AllergyIntolerance": render_allergies(scene),
        "DocumentReference": notes.lines,
    }
    wishes = None
    if privacy:
        drawn = draw_wishes(scene, first)
        lines = label_lines(lines, scene.patient_ids, drawn) | {"Consent": render_consents(scene, drawn)}
        wishes = drawn.truth(scene.patient_ids)
    return _Chunk(
        texts={name: to_bytes(column) for name, column in lines.items()},
        counts={name: len(column) for name, column in lines.items()},
        truth=describe_patients(scene),
        planted=notes.planted,
        wishes=wishes,
    )


def _render_chunks(
    stage: Stage, patients: int, chunk: int, executor: ThreadPoolExecutor, ahead: int, *, privacy: bool
) -> Iterator[_Chunk]:
    """Render the ranges of patients side by side and hand them over in order."""
    pending: deque[Future[_Chunk]] = deque()
    for first in range(0, patients, chunk):
        rows = min(chunk, patients - first)
        pending.append(executor.submit(_render_chunk, stage, first, rows, privacy=privacy))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _check(patients: int, seed: int, as_of: dt.date, chunk_patients: int, workers: int) -> None:
    problem = None
    if not 1 <= patients <= _MAX_PATIENTS:
        problem = f"The number of patients must lie between 1 and {_MAX_PATIENTS}, not {patients}."
    elif not 0 <= seed < _MAX_SEED:
        problem = f"The seed must lie between 0 and {_MAX_SEED - 1}, not {seed}."
    elif not _FIRST_AS_OF <= as_of <= _LAST_AS_OF:
        problem = (
            f"The day on which records end must lie between {_FIRST_AS_OF} and {_LAST_AS_OF}, not {as_of}."
        )
    elif chunk_patients < 1:
        problem = f"A chunk holds at least one patient, not {chunk_patients}."
    elif workers < 1:
        problem = f"At least one worker is needed, not {workers}."
    if problem:
        raise InputError(problem, remedy="Choose another value.")


def generate(  # noqa: PLR0913 - each is a property of the population
    out: Path,
    *,
    patients: int,
    seed: int,
    gzip: bool = False,
    as_of: dt.date = DEFAULT_AS_OF,
    progress: Progress = _SILENT,
    chunk_patients: int = _CHUNK,
    workers: int | None = None,
    privacy: bool = False,
) -> SyntheticSummary:
    """Write a population of synthetic patients as FHIR R4 NDJSON, one file per resource type.

    The same arguments give the same bytes, whatever ``chunk_patients`` and ``workers`` are; compressed files
    also need the same zlib. The files of a smaller population are the beginnings of those of a larger one
    (``Group.ndjson`` apart).

    Beside the resources, ``ground_truth/patients.csv`` says what is the case for each patient,
    ``ground_truth/planted.csv`` which identifiers stand where in which note, and
    ``ground_truth/population.json`` what was generated.

    Args:
        out: Folder to write to. It appears whole or not at all; an earlier population in it is replaced.
        patients: Size of the population.
        seed: Chooses the population.
        gzip: Writes ``.ndjson.gz`` instead of ``.ndjson``.
        as_of: The day on which all records end: nothing happens on or after it.
        progress: Is told how many patients are done.
        chunk_patients: Patients held in memory at a time by each worker, about 0.5 MB each.
        workers: Threads; by default one per core.
        privacy: Adds Consents and security labels, and ``ground_truth/privacy.csv`` with what each patient
            wants; everything else stays the same.

    Raises:
        InputError: An argument is out of range, or ``out`` holds files that this function did not write.
    """
    if workers is None:
        workers = os.cpu_count() or 1
    _check(patients, seed, as_of, chunk_patients, workers)
    stage = Stage.build(seed, (as_of - _EPOCH).days)
    suffix = ".ndjson.gz" if gzip else ".ndjson"
    counts: Counter[str] = Counter()
    cohorts: Counter[str] = Counter()
    sizes: dict[str, int] = {}
    with (
        replace_folder(out) as draft,
        ThreadPoolExecutor(workers, "synthesize") as executor,
        ExitStack() as open_files,
    ):
        (draft / "ground_truth").mkdir()

        def create(name: str) -> Sink:
            sink = open_sink(draft / f"{name}{suffix}", executor if gzip else None, 2 * workers)
            open_files.callback(sink.abandon)
            return sink

        sinks = {name: create(name) for name in (*_TYPES, *(("Consent",) if privacy else ()))}
        truth = open_files.enter_context((draft / _TRUTH).open("wb"))
        planted = open_files.enter_context((draft / _PLANTED).open("wb"))
        wishes = open_files.enter_context((draft / _WISHES).open("wb")) if privacy else None
        done = 0
        progress.update("synthesize", 0, patients, "patients")
        for chunk in _render_chunks(stage, patients, chunk_patients, executor, workers, privacy=privacy):
            for name, text in chunk.texts.items():
                sinks[name].write(text)
            counts.update(chunk.counts)
            chunk.truth.write_csv(truth, include_header=done == 0)
            chunk.planted.write_csv(planted, include_header=done == 0)
            if wishes is not None and chunk.wishes is not None:
                chunk.wishes.write_csv(wishes, include_header=done == 0)
            selected = chunk.truth.select(**{name: rule.sum() for name, rule in COHORTS.items()})
            cohorts.update(selected.row(0, named=True))
            done += len(chunk.truth)
            progress.update("synthesize", done, patients, "patients")

        for name, lines in render_staff(stage).items():
            sinks[name] = create(name)
            sinks[name].write(lines.encode())
            counts[name] = lines.count("\n")
        sinks["Group"] = create("Group")
        for clinic in (None, *range(len(CLINICS))):
            for piece in render_group(stage, patients, clinic, 20_000):
                sinks["Group"].write(piece.encode())
            counts["Group"] += 1
        for name, sink in sinks.items():
            sizes[name] = sink.close()
        files = tuple(
            SyntheticFile(f"{name}{suffix}", name, counts[name], size) for name, size in sorted(sizes.items())
        )
        manifest = {
            "generator": GENERATOR,
            "patients": patients,
            "seed": seed,
            "as_of": as_of.isoformat(),
            "resources": {file.resource_type: file.resources for file in files},
            "cohorts": dict(cohorts),
            "files": [*(file.name for file in files), _TRUTH, _PLANTED, *([_WISHES] if privacy else [])],
        }
        (draft / MANIFEST).write_bytes(json.dumps(manifest, indent=2).encode() + b"\n")
    return SyntheticSummary(out, patients, seed, as_of, files, dict(cohorts))
