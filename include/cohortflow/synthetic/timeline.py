"""When patients are seen: a grid of possible visits, and the visits that take place.

A patient has ``ROUTINE`` half-yearly slots, ``ACUTE`` slots for passing complaints and ``EXACERBATIONS`` for
attacks of asthma. Slots that fall outside the record, or that the patient misses, stay empty. A slot's
number is part of the ids of what happens in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from cohortflow.synthetic.people import Course, Flags, People, Trait, completed_years
from cohortflow.synthetic.staff import PRACTITIONERS_PER_CLINIC
from cohortflow.synthetic.streams import Ints, Streams, Words, below, uniform

__all__ = [
    "ACUTE",
    "COMPLAINTS",
    "EXACERBATIONS",
    "ROUTINE",
    "SLOTS",
    "Draw",
    "Grid",
    "Kind",
    "Visits",
    "hold_visits",
    "lay_out",
]

ROUTINE = 17
ACUTE = 6
EXACERBATIONS = 4
SLOTS = ROUTINE + ACUTE + EXACERBATIONS

_STEP_DAYS = 182
_JITTER_DAYS = 40  # below half a step: routine visits stay in order and more than 90 days apart
_FIRST_HOUR = 8
_USUAL = 0.8  # share of visits with the patient's own practitioner

COMPLAINTS = (
    "common_cold",
    "pharyngitis",
    "sinusitis",
    "bronchitis",
    "otitis_media",
    "uti",
    "ankle_sprain",
    "low_back_pain",
)
"""Diagnoses of acute visits."""


class Kind(IntEnum):
    """Kinds of visit, in the order of ``codes.ENCOUNTER_TYPES``."""

    CHECKUP = 0
    FOLLOW_UP = 1
    PROBLEM = 2
    EMERGENCY = 3


class Draw(IntEnum):
    """Which random word of a visit decides what; each decides one thing, so that none depend on others."""

    DAY = 0
    ATTENDANCE = 1
    MINUTE = 2
    PRACTITIONER = 3
    USUAL_PRACTITIONER = 4
    DURATION = 5
    COMPLAINT = 6
    WEIGHT = 7
    SYSTOLIC = 8
    DIASTOLIC = 9
    HEART_RATE = 10
    TEMPERATURE = 11
    SATURATION = 12
    EFFORT = 13
    FEVER = 14
    MOOD = 15
    INTEREST = 16
    MENSTRUATION = 17
    FASTING = 18
    LOST_SPECIMEN = 19
    COMMENT = 20
    COMMENT_TEXT = 21
    ONSET = 22
    ABATEMENT = 23
    RETINAL_SCREENING = 24
    RECONCILIATION = 25
    INFLUENZA = 26
    REFUSAL = 27
    LOT = 28
    NOTE = 29
    NOTE_FORM = 30
    NEXT_VISIT = 31


@dataclass(frozen=True, slots=True)
class Grid:
    """The slots of all patients, as arrays of shape ``(patients, SLOTS)``.

    Attributes:
        day: The day of each slot, also of empty ones.
        open: Whether the slot lies within the record.
        wanted: Whether the patient comes if nothing forces a visit.
        routine_count: Number of open routine slots of each patient.
        words: Random words of each slot, shape ``(patients, SLOTS, len(Draw))``.
    """

    day: Ints
    open: Flags
    wanted: Flags
    routine_count: Ints
    words: Words

    @property
    def routine_day(self) -> Ints:
        """Days of the routine slots."""
        return self.day[:, :ROUTINE]


def lay_out(streams: Streams, people: People) -> Grid:
    """Place the slots of each patient in time."""
    rows = people.count
    words = streams.words("visit", people.first, rows, SLOTS * len(Draw))
    words = words.reshape(rows, SLOTS, len(Draw))
    start = people.start_day[:, None]
    span = (people.end_day - people.start_day)[:, None]

    jitter = below(words[:, :ROUTINE, Draw.DAY], _JITTER_DAYS)
    jitter[:, 0] = 0
    routine = start + np.arange(ROUTINE) * _STEP_DAYS + jitter
    others = start + 1 + below(words[:, ROUTINE:, Draw.DAY], np.maximum(span - 1, 1))
    day = np.concatenate([routine, others], axis=1)
    is_open = (day < people.end_day[:, None]) & (day < people.as_of - 1)

    chronic = (people.course <= Course.HYPERTENSION) | people.hypertension
    old = people.as_of - people.birth_day > 60 * 365
    even = np.arange(ROUTINE) % 2 == 0
    comes = np.where(even, 0.85, 0.12) + (chronic[:, None] * np.where(even, 0.1, 0.8)) + old[:, None] * 0.05
    child = people.as_of - people.birth_day < 15 * 365
    acute = np.where(child, 0.35, 0.2)
    attack = np.where(people.asthma, 0.4, 0.0)
    chance = np.concatenate(
        [comes, np.repeat(acute[:, None], ACUTE, axis=1), np.repeat(attack[:, None], EXACERBATIONS, axis=1)],
        axis=1,
    )
    wanted = uniform(words[:, :, Draw.ATTENDANCE]) < chance
    wanted[:, 0] = True
    return Grid(
        day=day,
        open=is_open,
        wanted=wanted & is_open,
        routine_count=is_open[:, :ROUTINE].sum(axis=1),
        words=words,
    )


@dataclass(frozen=True, slots=True)
class Visits:
    """The visits that take place, ordered by patient and time; one array per property.

    Attributes:
        patient: Row of the patient.
        slot: Slot number.
        day: Local day.
        minute: Local start, in minutes of the day.
        duration: Length in minutes; a visit ends on its day.
        kind: One of ``Kind``.
        age: Completed years.
        zone: Number of the clinic, whose offset from UTC holds.
        practitioner: Number of the practitioner who sees the patient.
        complaint: Position in ``COMPLAINTS`` of an acute visit, else -1.
        words: Random words, shape ``(visits, len(Draw))``.
        row_of: Shape ``(patients, SLOTS)``: the row of the visit of a slot, or -1.
    """

    patient: Ints
    slot: Ints
    day: Ints
    minute: Ints
    duration: Ints
    kind: Ints
    age: Ints
    zone: Ints
    practitioner: Ints
    complaint: Ints
    words: Words
    row_of: Ints

    @property
    def count(self) -> int:
        """Number of visits."""
        return len(self.patient)

    @property
    def routine(self) -> Flags:
        """Is a half-yearly visit."""
        return self.slot < ROUTINE

    @property
    def exacerbation(self) -> Flags:
        """Is an attack of asthma."""
        return self.slot >= ROUTINE + ACUTE


def hold_visits(people: People, grid: Grid, attended: npt.NDArray[np.bool_]) -> Visits:
    """List the attended slots as visits, in order of time within each patient.

    Args:
        people: The patients.
        grid: Their slots.
        attended: Shape ``(patients, SLOTS)``: the slots in which a visit takes place.
    """
    patient, slot = np.nonzero(attended)
    words = grid.words[patient, slot]
    day = grid.day[patient, slot]
    minute = _FIRST_HOUR * 60 + 5 * below(words[:, Draw.MINUTE], 100)
    order = np.lexsort((slot, day * 1440 + minute, patient))
    patient, slot, words = patient[order], slot[order], words[order]
    day, minute = day[order], minute[order]

    exacerbation, acute = slot >= ROUTINE + ACUTE, (slot >= ROUTINE) & (slot < ROUTINE + ACUTE)
    chronic = (people.course <= Course.HYPERTENSION) | people.hypertension
    kind = np.select(
        [exacerbation, acute, chronic[patient] & (slot > 0)],
        [Kind.EMERGENCY, Kind.PROBLEM, Kind.FOLLOW_UP],
        Kind.CHECKUP,
    )
    clinic = people.clinic[patient]
    own = people.choose(Trait.PRACTITIONER, PRACTITIONERS_PER_CLINIC)[patient]
    other = below(words[:, Draw.PRACTITIONER], PRACTITIONERS_PER_CLINIC)
    length = words[:, Draw.DURATION]
    usual = (uniform(words[:, Draw.USUAL_PRACTITIONER]) < _USUAL) & ~exacerbation
    row_of = np.full(attended.shape, -1, dtype=np.int64)
    row_of[patient, slot] = np.arange(len(patient))
    return Visits(
        patient=patient,
        slot=slot,
        day=day,
        minute=minute,
        duration=np.where(exacerbation, 120, 15) + 5 * below(length, np.where(exacerbation, 40, 7)),
        kind=kind,
        age=completed_years(people.birth_day[patient], day),
        zone=clinic,
        practitioner=clinic * PRACTITIONERS_PER_CLINIC + np.where(usual, own, other),
        complaint=np.where(acute, below(words[:, Draw.COMPLAINT], len(COMPLAINTS)), -1),
        words=words,
        row_of=row_of,
    )
