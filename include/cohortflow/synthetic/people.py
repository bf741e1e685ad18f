"""Who the patients are: demographics, and which disease courses they take."""

# ruff: noqa: PLR2004  the numbers are the model: ages, rates and limits, each used once

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from cohortflow.synthetic.names import CITIES, CLINICS, FAMILY_NAMES, FEMALE_NAMES, STREETS
from cohortflow.synthetic.streams import Floats, Ids, Ints, Streams, Words, below, normal, uniform

__all__ = ["DAYS_PER_YEAR", "Course", "People", "Trait", "completed_years", "draw_clinics", "draw_people"]

DAYS_PER_YEAR = 365.2425
TICKETS = 20
SERIALS = 100 * 40 * 9999  # as many as there are social security numbers that are never issued
_FIRST_NAMES = len(FEMALE_NAMES)

Flags = npt.NDArray[np.bool_]


class Course(IntEnum):
    """What a patient's ticket says; each group of twenty consecutive patients holds each ticket once."""

    T2D_RAISED = 0
    """Type 2 diabetes with at least one HbA1c of 6.5 % or more."""
    T2D_CONTROLLED = 1
    """Type 2 diabetes, diagnosed elsewhere, with HbA1c below 6.5 % throughout."""
    PREDIABETES = 2
    HYPERTENSION = 3
    ASTHMA = 4
    GENERAL = 5


class Trait(IntEnum):
    """Which random word of a patient decides what; each decides one thing, so that none depend on others."""

    ALLERGY_MEMORY = 0
    COLONOSCOPY = 1
    CONTROLLER_INHALER = 2
    MONTH_MEMORY = 3
    PHONE = 4
    PRACTITIONER = 5
    SECOND_DRUG = 6
    SMOKING = 7
    STATED_ALIVE = 8
    VACCINES = 9


# Three in twenty patients have raised HbA1c, so that small populations hold a usable cohort too.
_COURSE_OF_TICKET = np.array([0, 0, 0, 1, 2, 3, 3, 4, 4] + [5] * (TICKETS - 9), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class People:
    """Patients ``first .. first + count - 1``, one array per property; days count from 1970-01-01.

    Attributes:
        first: Number of the first patient.
        as_of: The day on which the record ends, exclusive.
        ids: Resource ids.
        course: A ``Course`` for each.
        female: Administrative and birth sex.
        birth_day: Day of birth.
        start_day: Day of the first visit at the earliest.
        end_day: Day on which the record ends, exclusive: the day of death or ``as_of``.
        death_day: Day of death, or -1.
        death_dated: Whether the record knows the day of death.
        hypertension: Has hypertension.
        asthma: Has asthma.
        refuted: Was once suspected of type 2 diabetes, and the diagnosis refuted.
        first_name: Position in the list of names of the sex.
        middle_name: The same, for the second given name.
        family_name: Position in the list of family names.
        relative_name: Position of a relative's first name in the list of the other sex.
        city: Position in the list of cities.
        clinic: Position in the list of clinics.
        street: Position in the list of streets.
        house: House number.
        race: Position in the list of races.
        hispanic: Ethnicity.
        language: Position in the list of languages.
        marital: 0 never married, 1 married, 2 divorced, 3 widowed.
        serial: Unique number, of which record and social security numbers are made.
        traits: Random words, shape ``(patients, len(Trait))``.
        frailty: Deviate that shifts the patient's values.
        height_z: Deviate of height.
        bmi_z: Deviate of body mass index.
    """

    first: int
    as_of: int
    ids: Ids
    course: Ints
    female: Flags
    birth_day: Ints
    start_day: Ints
    end_day: Ints
    death_day: Ints
    death_dated: Flags
    hypertension: Flags
    asthma: Flags
    refuted: Flags
    first_name: Ints
    middle_name: Ints
    family_name: Ints
    relative_name: Ints
    city: Ints
    clinic: Ints
    street: Ints
    house: Ints
    race: Ints
    hispanic: Flags
    language: Ints
    marital: Ints
    serial: Ints
    traits: Words
    frailty: Floats
    height_z: Floats
    bmi_z: Floats

    @property
    def count(self) -> int:
        """Number of patients."""
        return len(self.course)

    def choose(self, trait: Trait, options: int) -> Ints:
        """Return one of ``0 .. options - 1`` for each patient."""
        return below(self.traits[:, trait], options)

    @property
    def t2d(self) -> Flags:
        """Has type 2 diabetes."""
        return self.course <= Course.T2D_CONTROLLED

    @property
    def age(self) -> Ints:
        """Completed years on ``as_of``, whether or not the patient is still alive."""
        return completed_years(self.birth_day, np.full(self.count, self.as_of, dtype=np.int64))


def completed_years(birth_day: Ints, day: Ints) -> Ints:
    """Return ages by the calendar: a year is completed on the birthday."""
    birth, then = _split(birth_day), _split(day)
    before_birthday = (then[1] < birth[1]) | ((then[1] == birth[1]) & (then[2] < birth[2]))
    years: Ints = then[0] - birth[0] - before_birthday
    return years


def _split(day: Ints) -> tuple[Ints, Ints, Ints]:
    dates = day.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    in_year = months.astype(np.int64) % 12
    return months.astype("datetime64[Y]").astype(np.int64), in_year, (dates - months).astype(np.int64)


def _pick(words: Words, cumulative: tuple[float, ...]) -> Ints:
    """Choose positions by cumulative weights."""
    return np.searchsorted(np.array(cumulative), uniform(words), side="right").astype(np.int64)


def draw_clinics(streams: Streams, first: int, rows: int) -> Ints:
    """Draw the clinics of patients without the rest of them."""
    return below(streams.words("clinic", first, rows, 1)[:, 0], len(CLINICS))


def _draw_courses(streams: Streams, first: int, rows: int) -> Ints:
    low, high = first // TICKETS, (first + rows - 1) // TICKETS + 1
    order = streams.words("ticket", low, high - low, TICKETS).argsort(axis=1, kind="stable")
    tickets = order.ravel()[first - low * TICKETS :][:rows]
    return _COURSE_OF_TICKET[tickets]


def _draw_ages(course: Ints, words: Words) -> Floats:
    u, v = uniform(words[:, 0]), uniform(words[:, 1])
    children, adults, old = 0.1 + 17.9 * v, 18 + 47 * v, 65 + 25 * v
    general = np.select([u < 0.22, u < 0.74, u < 0.95], [children, adults, old], 90 + 12 * v)
    diabetic = np.where(u < 0.03, 90 + 9 * v, 29 + 61 * (0.2 * u + 0.8 * v))
    ages: Floats = np.select(
        [
            course <= Course.T2D_CONTROLLED,
            course == Course.PREDIABETES,
            course == Course.HYPERTENSION,
            course == Course.ASTHMA,
        ],
        [diabetic, 32 + 48 * v, 38 + 55 * v, 6 + 54 * v],
        general,
    )
    return ages


def draw_people(streams: Streams, first: int, rows: int, as_of: int) -> People:
    """Draw the patients ``first .. first + rows - 1``."""
    words = streams.words("people", first, rows, 32)
    course = _draw_courses(streams, first, rows)
    years = _draw_ages(course, words[:, 0:2])
    birth_day = as_of - np.floor(years * DAYS_PER_YEAR).astype(np.int64) - 1
    start_day = as_of - np.floor((3.2 + 4.8 * uniform(words[:, 2])) * DAYS_PER_YEAR).astype(np.int64)
    start_day = np.maximum(start_day, birth_day + 4)

    # Nobody dies in the first three years of a record, so each course has time to show.
    risk = np.select([years < 18, years < 65, years < 80, years < 90], [0.0, 0.015, 0.06, 0.16], 0.35)
    dies = uniform(words[:, 3]) < risk
    death_day = np.where(dies, as_of - 5 - below(words[:, 4], 700), -1)

    u = uniform(words[:, 5])
    t2d = course <= Course.T2D_CONTROLLED
    hypertension = (course == Course.HYPERTENSION) | (
        (years >= 30) & (u < np.select([t2d, years >= 65, years >= 45], [0.65, 0.5, 0.25], 0.05))
    )
    asthma = (course == Course.ASTHMA) | ((years >= 6) & (uniform(words[:, 6]) < 0.05))
    widowed = (years >= 75) & (uniform(words[:, 8]) < 0.4)
    marital = np.select([years < 20, widowed], [0, 3], _pick(words[:, 7], (0.28, 0.80, 0.96)))
    # A bijection of the patient's number, as the factor and the limit share no divisor: unique, unordered.
    number = np.arange(first, first + rows, dtype=np.int64)
    serial = (number * 61_803_397 + streams.seed % SERIALS) % SERIALS
    return People(
        first=first,
        as_of=as_of,
        ids=Ids.of_patients(streams, first, rows),
        course=course,
        female=uniform(words[:, 9]) < 0.515,
        birth_day=birth_day,
        start_day=start_day,
        end_day=np.where(dies, death_day, as_of),
        death_day=death_day,
        death_dated=uniform(words[:, 10]) < 0.85,
        hypertension=hypertension,
        asthma=asthma,
        refuted=(course == Course.GENERAL) & (years >= 30) & (uniform(words[:, 11]) < 0.04),
        first_name=below(words[:, 12], _FIRST_NAMES),
        middle_name=below(words[:, 13], _FIRST_NAMES),
        family_name=below(words[:, 14], len(FAMILY_NAMES)),
        relative_name=below(words[:, 15], _FIRST_NAMES),
        city=below(words[:, 16], len(CITIES)),
        clinic=draw_clinics(streams, first, rows),
        street=below(words[:, 18], len(STREETS)),
        house=1 + below(words[:, 19], 998),
        race=_pick(words[:, 20], (0.68, 0.84, 0.95, 0.985)),
        hispanic=uniform(words[:, 21]) < 0.18,
        language=_pick(words[:, 22], (0.82, 0.94, 0.965, 0.985)),
        marital=marital,
        serial=serial,
        traits=streams.words("trait", first, rows, len(Trait)),
        frailty=normal(words[:, 23]),
        height_z=normal(words[:, 24]),
        bmi_z=normal(words[:, 25]),
    )
