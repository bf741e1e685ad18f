"""Vital signs of every visit, in units of their last digit."""

# ruff: noqa: PLR2004  the numbers are the model: ages, rates and limits, each used once

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cohortflow.synthetic.courses import Courses
from cohortflow.synthetic.people import DAYS_PER_YEAR, Flags, People
from cohortflow.synthetic.streams import Floats, Ints, normal, uniform
from cohortflow.synthetic.timeline import COMPLAINTS, Draw, Visits

__all__ = ["Vitals", "take_vitals"]

_GROWN = 18
_MEASURED = tuple(Draw(word) for word in range(Draw.WEIGHT, Draw.EFFORT + 1))
_OBESE_FROM = 300  # body mass index in tenths

# Median height in cm at each birthday (CDC growth charts 2000, rounded), girls then boys; adults from 18.
_HEIGHT_AT_AGE = np.array(
    [
        [50, 74, 85, 94, 101, 108, 115, 121, 127, 133, 138, 144, 151, 157, 160, 162, 162, 163, 163],
        [50, 76, 87, 96, 103, 109, 116, 122, 128, 134, 139, 144, 149, 156, 164, 170, 174, 176, 177],
    ],
    dtype=np.float64,
)
# Median body mass index at each birthday, both sexes.
_BMI_AT_AGE = np.array(
    [
        *(13.5, 17.0, 16.4, 15.9, 15.5, 15.3, 15.3, 15.5, 15.8),
        *(16.2, 16.7, 17.3, 17.9, 18.5, 19.2, 19.8, 20.5, 21.1),
    ]
)


@dataclass(frozen=True, slots=True)
class Vitals:
    """Vital signs, one per visit.

    Attributes:
        height: Body height, 0.1 cm.
        weight: Body weight, 0.1 kg.
        bmi: Body mass index from weight and height as reported, 0.1 kg/m2.
        systolic: Systolic blood pressure, mm[Hg].
        diastolic: Diastolic blood pressure, mm[Hg].
        heart_rate: Heart rate, /min.
        temperature: Body temperature, 0.1 Cel.
        saturation: Oxygen saturation, %.
        peak_flow: Peak expiratory flow, L/min.
        fev1: Forced expiratory volume in one second, 0.01 L.
        first_obese: The first visit of an adult with a body mass index of 30 or more.
    """

    height: Ints
    weight: Ints
    bmi: Ints
    systolic: Ints
    diastolic: Ints
    heart_rate: Ints
    temperature: Ints
    saturation: Ints
    peak_flow: Ints
    fev1: Ints
    first_obese: Flags


def take_vitals(people: People, visits: Visits, courses: Courses) -> Vitals:
    """Measure the vital signs of all visits."""
    patient, words = visits.patient, visits.words
    z = {what: normal(words[:, what]) for what in _MEASURED}
    years = (visits.day - people.birth_day[patient]) / DAYS_PER_YEAR
    female = people.female[patient]
    height, weight, bmi = _measure_body(people, visits, years, z[Draw.WEIGHT])

    obese = (bmi >= _OBESE_FROM) & (visits.age >= _GROWN)
    rows = np.nonzero(obese)[0]
    _, place = np.unique(patient[rows], return_index=True)
    first_obese = np.zeros(visits.count, dtype=np.bool_)
    first_obese[rows[place]] = True

    systolic = _measure_pressure(people, visits, courses, years, z[Draw.SYSTOLIC])
    diastolic = np.rint(systolic * 0.42 + 23.0 + 4.0 * z[Draw.DIASTOLIC])
    complaint = np.array([*COMPLAINTS, ""])[visits.complaint]
    feverish = np.isin(complaint, ("common_cold", "pharyngitis", "sinusitis", "bronchitis", "otitis_media"))
    attack = visits.exacerbation
    resting = np.clip(74.0 + 50.0 * np.maximum(8.0 - years, 0.0) / 8.0, 60.0, 130.0)
    heart_rate = resting + 7.0 * z[Draw.HEART_RATE] + 12.0 * feverish + 24.0 * attack
    temperature = 367.0 + 2.0 * z[Draw.TEMPERATURE] + 11.0 * feverish * uniform(words[:, Draw.FEVER])
    # A grown man of 176 cm blows about 580 L/min and 3.9 L in a second; less when smaller, older or ill.
    grown = (
        (height / 1760.0) ** 2 * np.where(female, 0.82, 1.0) * (1.0 - 0.006 * np.maximum(years - 25.0, 0.0))
    )
    effort = grown * np.where(attack, 0.55, 0.92) * (1.0 + 0.04 * z[Draw.EFFORT])
    return Vitals(
        height=height,
        weight=weight,
        bmi=bmi,
        systolic=systolic.astype(np.int64),
        diastolic=np.clip(diastolic, 38, np.minimum(112, systolic - 18)).astype(np.int64),
        heart_rate=np.rint(np.clip(heart_rate, 46, 175)).astype(np.int64),
        temperature=np.rint(np.clip(temperature, 358, 401)).astype(np.int64),
        saturation=np.rint(np.clip(np.where(attack, 92.0, 97.6) + 1.1 * z[Draw.SATURATION], 86, 100)).astype(
            np.int64
        ),
        peak_flow=10 * np.rint(58.0 * effort).astype(np.int64),
        fev1=np.rint(390.0 * effort).astype(np.int64),
        first_obese=first_obese,
    )


def _measure_body(people: People, visits: Visits, years: Floats, noise: Floats) -> tuple[Ints, Ints, Ints]:
    patient = visits.patient
    low = np.minimum(visits.age, _GROWN)
    high = np.minimum(low + 1, _GROWN)
    part = np.where(low < _GROWN, np.minimum(years - low, 1.0), 0.0)
    sex = np.where(people.female[patient], 0, 1)
    median = _HEIGHT_AT_AGE[sex, low] * (1.0 - part) + _HEIGHT_AT_AGE[sex, high] * part
    height = np.rint(median * 10.0 * (1.0 + 0.04 * people.height_z[patient])).astype(np.int64)

    last = len(_BMI_AT_AGE) - 1
    young = _BMI_AT_AGE[np.minimum(low, last)] * (1.0 + 0.09 * people.bmi_z[patient])
    # Between 18 and 28 the adult's own index is reached.
    adult = 27.2 + 4.6 * people.bmi_z[patient] + 3.2 * people.t2d[patient] - 2.5 * (years > 85.0)
    grown = np.clip((years - _GROWN) / 10.0, 0.0, 1.0)
    index = np.where(visits.age < _GROWN, young, 21.8 * (1.0 - grown) + adult * grown)
    index = np.maximum(index + 0.25 * noise, 12.5)
    weight = np.rint(index * (height / 1000.0) * (height / 1000.0) * 10.0).astype(np.int64)
    # weight / height**2 in tenths, in whole numbers and rounded half up: 10 * (w/10) / (h/1000)**2
    square = height * height
    bmi = (2 * weight * 1_000_000 + square) // (2 * square)
    return height, weight, bmi


def _measure_pressure(
    people: People, visits: Visits, courses: Courses, years: Floats, noise: Floats
) -> Floats:
    patient = visits.patient
    usual = np.where(years < _GROWN, 88.0 + 1.5 * years, 112.0 + 0.24 * (np.minimum(years, 85.0) - 20.0))
    usual = np.minimum(usual + 4.0 * people.frailty[patient], 136.0)
    slot = courses.hypertension_slot[patient]
    recorded_day = visits.day[visits.row_of[patient, np.maximum(slot, 0)]]
    since = (visits.day - recorded_day) / DAYS_PER_YEAR
    untreated = np.maximum(usual + 20.0, 148.0) + 4.0 * people.frailty[patient]
    treated = 129.0 + 4.0 * people.frailty[patient]
    course = np.where(
        since <= 0.0, untreated, treated + (untreated - treated) / (1.0 + 5.0 * np.maximum(since, 0.0))
    )
    mean = np.where(slot >= 0, course, usual)
    pressure = np.rint(mean + 4.5 * noise)
    at_diagnosis = (slot >= 0) & (visits.slot == slot)
    return np.clip(np.where(at_diagnosis, np.maximum(pressure, 142.0), pressure), 72.0, 212.0)
