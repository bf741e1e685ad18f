"""A range of patients with all that happened to them, ready to be written as resources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson
import polars as pl

from cohortflow.synthetic.courses import Courses, run_courses
from cohortflow.synthetic.names import CLINICS
from cohortflow.synthetic.people import People, draw_people
from cohortflow.synthetic.staff import Staff
from cohortflow.synthetic.streams import Ints, Streams
from cohortflow.synthetic.template import Calendar, take
from cohortflow.synthetic.timeline import Visits, hold_visits, lay_out
from cohortflow.synthetic.vitals import Vitals, take_vitals

__all__ = ["HL7", "US_CORE", "Scene", "Stage", "coding", "concept", "lookup"]

US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/"
HL7 = "http://terminology.hl7.org/CodeSystem/"

_LOAD_MINUTE = 600  # records reach the export database at 10:00 UTC of the next day
_MINUTES = 1440


def coding(system: str, code: str, display: str = "") -> dict[str, str]:
    """Return a ``Coding``."""
    return {"system": system, "code": code, **({"display": display} if display else {})}


def concept(*codings: dict[str, str], text: str = "") -> dict[str, object]:
    """Return a ``CodeableConcept``."""
    return {"coding": list(codings), **({"text": text} if text else {})}


def lookup(values: Sequence[object]) -> pl.Series:
    """Return JSON values as a column to look up in."""
    return pl.Series([orjson.dumps(value).decode() for value in values])


@dataclass(frozen=True, slots=True)
class Stage:
    """What is the same for all patients of a population.

    Attributes:
        streams: Random numbers.
        as_of: Day on which all records end, exclusive, in days since 1970-01-01.
        calendar: Writes dates and times.
        staff: Clinics and practitioners.
        practitioner_ids: Their ids as a column.
        organization_ids: The clinics' ids as a column.
    """

    streams: Streams
    as_of: int
    calendar: Calendar
    staff: Staff
    practitioner_ids: pl.Series
    organization_ids: pl.Series

    @classmethod
    def build(cls, seed: int, as_of: int) -> Stage:
        """Set the stage of a population."""
        streams = Streams(seed)
        staff = Staff.draw(streams)
        return cls(
            streams=streams,
            as_of=as_of,
            calendar=Calendar(as_of - 45_000, as_of + 400, tuple(clinic.zone for clinic in CLINICS)),
            staff=staff,
            practitioner_ids=pl.Series(staff.practitioner_ids),
            organization_ids=pl.Series(staff.organization_ids),
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """Patients, their visits and the course of their diseases.

    Attributes:
        stage: What all patients share.
        people: The patients.
        courses: Their diseases.
        visits: Their visits.
        vitals: The vital signs of each visit.
        patient_ids: Ids of the patients.
        encounter_ids: Ids of the visits.
    """

    stage: Stage
    people: People
    courses: Courses
    visits: Visits
    vitals: Vitals
    patient_ids: pl.Series
    encounter_ids: pl.Series

    @classmethod
    def play(cls, stage: Stage, first: int, rows: int) -> Scene:
        """Let the patients ``first .. first + rows - 1`` live."""
        people = draw_people(stage.streams, first, rows, stage.as_of)
        grid = lay_out(stage.streams, people)
        courses = run_courses(stage.streams, people, grid)
        visits = hold_visits(people, grid, courses.attended)
        return cls(
            stage=stage,
            people=people,
            courses=courses,
            visits=visits,
            vitals=take_vitals(people, visits, courses),
            patient_ids=people.ids.text(),
            encounter_ids=people.ids.derive("Encounter", visits.patient, visits.slot),
        )

    def visit_at(self, patient: Ints, slot: Ints) -> Ints:
        """Return the rows of the visits held in slots."""
        return self.visits.row_of[patient, slot]

    def day_at(self, slot: Ints) -> Ints:
        """Return the day of each patient's visit in a slot, where that visit is held."""
        rows = self.visits.row_of[np.arange(self.people.count), np.maximum(slot, 0)]
        return self.visits.day[rows]

    def local(self, visit: Ints, after: int | Ints = 0) -> pl.Series:
        """Write the local time of visits, some minutes after their start."""
        visits = self.visits
        minute = np.minimum(visits.minute[visit] + after, _MINUTES - 1)
        return self.stage.calendar.local(visits.day[visit], minute, visits.zone[visit])

    def instant(self, visit: Ints, after: int | Ints = 0) -> pl.Series:
        """Write the same time in UTC."""
        visits = self.visits
        minute = np.minimum(visits.minute[visit] + after, _MINUTES - 1)
        return self.stage.calendar.instant(visits.day[visit], minute, visits.zone[visit])

    def updated(self, day: Ints) -> pl.Series:
        """Write the instant at which what happened on a day reached the database: the next day."""
        zone = np.zeros(len(day), dtype=np.int64)
        minute = np.full(len(day), _LOAD_MINUTE + CLINICS[0].zone, dtype=np.int64)
        return self.stage.calendar.instant(day + 1, minute, zone)

    def of_visit(self, visit: Ints) -> dict[str, pl.Series]:
        """Return the columns that resources of a visit share: patient, encounter, practitioner, clinic."""
        visits = self.visits
        return {
            "patient": take(self.patient_ids, visits.patient[visit]),
            "encounter": take(self.encounter_ids, visit),
            "practitioner": take(self.stage.practitioner_ids, visits.practitioner[visit]),
            "organization": take(self.stage.organization_ids, visits.zone[visit]),
        }
