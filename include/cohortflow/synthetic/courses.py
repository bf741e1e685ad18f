"""How diseases evolve: diabetes and kidney function, blood lipids, hypertension, asthma.

Values belong to the half-yearly visits, as arrays of shape ``(patients, ROUTINE)``. They are made in whole
units of the last digit that the laboratory reports, so that what is derived from a value (an eGFR from a
creatinine, a kidney disease stage from eGFRs) is derived from the value as reported.
"""

# ruff: noqa: PLR2004  the numbers are the model: ages, rates and limits, each used once

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cohortflow.synthetic.people import DAYS_PER_YEAR, Course, Flags, People, completed_years
from cohortflow.synthetic.streams import Floats, Ints, Streams, below, normal, uniform
from cohortflow.synthetic.timeline import ROUTINE, Grid

__all__ = ["CKD_STAGES", "NEVER", "Courses", "Labs", "estimate_gfr", "run_courses"]

NEVER = -1
CKD_STAGES = ("", "3a", "3b", "4", "5")
_CKD_BELOW = (60, 45, 30, 15)  # KDIGO 2024: upper limits of G3a, G3b, G4, G5, in mL/min/1.73 m2
_ADULT = 18
_ADD_SECOND_DRUG = 75  # HbA1c in tenths of a percent
_ADD_INSULIN = 90
_STATIN_FROM = 160  # LDL cholesterol, mg/dL


@dataclass(frozen=True, slots=True)
class Labs:
    """Laboratory values in units of their last digit; a value counts where its panel was drawn.

    Attributes:
        draws_a1c: HbA1c was measured.
        draws_metabolic: Glucose, creatinine, eGFR and potassium were measured.
        draws_lipids: The lipid panel was measured.
        draws_uacr: Albumin and creatinine in urine were measured.
        a1c: HbA1c, 0.1 %.
        glucose: Glucose, mg/dL.
        creatinine: Creatinine, 0.01 mg/dL.
        egfr: Glomerular filtration rate by CKD-EPI 2021, mL/min/1.73 m2.
        potassium: Potassium, 0.1 mmol/L.
        cholesterol: Total cholesterol, mg/dL.
        hdl: HDL cholesterol, mg/dL.
        ldl: LDL cholesterol by Friedewald's formula, mg/dL.
        triglycerides: Triglycerides, mg/dL.
        uacr: Albumin/creatinine ratio in urine, mg/g.
    """

    draws_a1c: Flags
    draws_metabolic: Flags
    draws_lipids: Flags
    draws_uacr: Flags
    a1c: Ints
    glucose: Ints
    creatinine: Ints
    egfr: Ints
    potassium: Ints
    cholesterol: Ints
    hdl: Ints
    ldl: Ints
    triglycerides: Ints
    uacr: Ints


@dataclass(frozen=True, slots=True)
class Courses:
    """The course of each patient's diseases; slots are routine slots or ``NEVER``, days may be earlier.

    Attributes:
        attended: Shape ``(patients, SLOTS)``: the visits that take place.
        labs: Values of the routine visits.
        t2d_slot: Visit at which type 2 diabetes is recorded.
        t2d_onset: Day of its onset.
        prediabetes_slot: Visit at which prediabetes is recorded.
        second_drug_slot: Visit at which empagliflozin is added.
        insulin_slot: Visit at which insulin is added.
        hypertension_slot: Visit at which hypertension is recorded.
        hypertension_onset: Day of its onset.
        lipids_slot: Visit at which hyperlipidemia is recorded and a statin started.
        asthma_onset: Day of the onset of asthma.
        refuted_slot: Visit at which a suspected diabetes is refuted.
        ckd_slot: Shape ``(patients, 4)``: visit at which each stage of ``CKD_STAGES[1:]`` is recorded.
        ckd_stage: Position in ``CKD_STAGES`` of the last stage.
    """

    attended: Flags
    labs: Labs
    t2d_slot: Ints
    t2d_onset: Ints
    prediabetes_slot: Ints
    second_drug_slot: Ints
    insulin_slot: Ints
    hypertension_slot: Ints
    hypertension_onset: Ints
    lipids_slot: Ints
    asthma_onset: Ints
    refuted_slot: Ints
    ckd_slot: Ints
    ckd_stage: Ints


def estimate_gfr(creatinine: Ints, age: Ints, female: Flags) -> Ints:
    """Estimate the glomerular filtration rate by CKD-EPI 2021 (Inker et al., NEJM 2021;385:1737).

    Args:
        creatinine: Serum creatinine in 0.01 mg/dL.
        age: Completed years, 18 or more.
        female: Sex.

    Returns:
        mL/min/1.73 m2, rounded to whole units as laboratories report it.
    """
    kappa, alpha = np.where(female, 70.0, 90.0), np.where(female, -0.241, -0.302)
    ratio = creatinine / kappa
    rate = 142.0 * np.minimum(ratio, 1.0) ** alpha * np.maximum(ratio, 1.0) ** -1.2
    rate = rate * 0.9938 ** age.astype(np.float64) * np.where(female, 1.012, 1.0)
    whole: Ints = np.rint(rate).astype(np.int64)
    return whole


def _creatinine_for(rate: Floats, age: Ints, female: Flags) -> Ints:
    """Invert CKD-EPI 2021: the creatinine, in 0.01 mg/dL, that gives a rate."""
    kappa, alpha = np.where(female, 70.0, 90.0), np.where(female, -0.241, -0.302)
    relative = rate / (142.0 * 0.9938 ** age.astype(np.float64) * np.where(female, 1.012, 1.0))
    ratio = np.where(relative < 1.0, relative ** (-1.0 / 1.2), relative ** (1.0 / alpha))
    creatinine: Ints = np.clip(np.rint(ratio * kappa), 42, 900).astype(np.int64)
    return creatinine


def _first_slot(condition: Flags) -> Ints:
    """Return the first slot in which a condition holds, or ``NEVER``."""
    return np.where(condition.any(axis=1), condition.argmax(axis=1), NEVER)


def _day_of(grid: Grid, slot: Ints) -> Ints:
    return grid.day[np.arange(len(slot)), np.maximum(slot, 0)]


def _years_after(grid: Grid, slot: Ints) -> Floats:
    """Return the years from a slot to each routine slot; negative before it or if it never comes."""
    years = (grid.routine_day - _day_of(grid, slot)[:, None]) / DAYS_PER_YEAR
    return np.where((slot >= 0)[:, None], years, -1.0)


def _begin(words: npt.NDArray[np.uint64], has: Flags, known: Flags, grid: Grid) -> tuple[Ints, Ints]:
    """Choose when a disease is recorded, and since when the patient has had it.

    A known disease is recorded at the first visit, with an onset up to eight years back; a new one at
    a visit in the first half of the record, which is also its onset.
    """
    later = 1 + below(words[:, 0], np.maximum(grid.routine_count // 2, 1))
    later = np.minimum(later, np.maximum(grid.routine_count - 1, 0))
    slot = np.where(has, np.where(known, 0, later), NEVER)
    back = np.where(slot == 0, 100 + below(words[:, 1], 2900), 0)
    return slot, np.where(has, _day_of(grid, slot) - back, NEVER)


def _run_a1c(
    people: People, grid: Grid, t2d_slot: Ints, prediabetes_slot: Ints, streams: Streams
) -> tuple[Ints, Ints, Ints]:
    """Return HbA1c in tenths of a percent and the slots at which second drug and insulin are added."""
    words = streams.words("a1c", people.first, people.count, 4 + ROUTINE)
    u, v = uniform(words[:, 0])[:, None], uniform(words[:, 1])[:, None]
    noise = normal(words[:, 4:])
    peak, target = 73.0 + 32.0 * u, 61.0 + 30.0 * v * v
    years = _years_after(grid, t2d_slot)
    treated = target + (peak - target) / (1.0 + 2.2 * np.maximum(years, 0.0)) + 0.6 * years + 1.5 * noise

    under_treatment = years > 0.4
    second = _first_slot(under_treatment & (np.rint(treated) >= _ADD_SECOND_DRUG) & grid.wanted[:, :ROUTINE])
    insulin = _first_slot(under_treatment & (np.rint(treated) >= _ADD_INSULIN) & grid.wanted[:, :ROUTINE])
    for slot, effect in ((second, 9.0), (insulin, 12.0)):
        since = np.maximum(_years_after(grid, slot), 0.0)
        treated = treated - effect * since / (0.3 + since)

    t2d_known = (t2d_slot == 0)[:, None]
    before = np.where(t2d_known, treated, np.minimum(63.0 + 3.0 * years + noise, 64.0))
    raised = np.where(years < 0.0, before, np.maximum(treated, 57.0))
    raised = np.where(years == 0.0, np.maximum(peak, 66.0), raised)
    pre = np.where(
        _years_after(grid, prediabetes_slot) >= 0.0,
        np.clip(60.0 + 1.8 * noise, 57.0, 64.0),
        55.0 + 0.5 * noise,
    )
    healthy = np.clip(52.0 + 2.0 * people.frailty[:, None] + 0.7 * noise, 45.0, 56.0)
    course = people.course[:, None]
    value = np.select(
        [course == Course.T2D_RAISED, course == Course.T2D_CONTROLLED, course == Course.PREDIABETES],
        [raised, np.clip(60.0 + 2.0 * people.frailty[:, None] + 1.2 * noise, 52.0, 64.0), pre],
        healthy,
    )
    never = people.course != Course.T2D_RAISED
    a1c = np.clip(np.rint(value), 42, 150).astype(np.int64)
    return a1c, np.where(never, NEVER, second), np.where(never, NEVER, insulin)


def _run_kidney(
    people: People, grid: Grid, age: Ints, onset: Ints, words: npt.NDArray[np.uint64]
) -> tuple[Ints, Ints]:
    """Return creatinine in 0.01 mg/dL and the eGFR that follows from it."""
    at_start = 117.0 - 0.78 * np.maximum((grid.day[:, 0] - people.birth_day) / DAYS_PER_YEAR - 22.0, 0.0)
    progresses = people.t2d & (uniform(words[:, 0]) < 0.6)
    decline = np.where(progresses, 2.0 + 5.5 * uniform(words[:, 1]), 0.8) + 0.4 * people.hypertension
    day = grid.routine_day
    sick_years = np.where(people.t2d[:, None], (day - onset[:, None]) / DAYS_PER_YEAR, 0.0)
    years = np.maximum(sick_years, (day - day[:, :1]) / DAYS_PER_YEAR)
    rate = (at_start - 8.0 * people.frailty)[:, None] - decline[:, None] * years + 2.2 * normal(words[:, 4:])
    adult = np.maximum(age, _ADULT)
    female = np.broadcast_to(people.female[:, None], adult.shape)
    creatinine = _creatinine_for(np.clip(rate, 9.0, 128.0), adult, female)
    return creatinine, estimate_gfr(creatinine, adult, female)


def _stage_kidney_disease(grid: Grid, egfr: Ints, drawn: Flags) -> tuple[Ints, Ints]:
    """Find the stages of chronic kidney disease.

    A stage holds once two successive measurements, 90 days or more apart, both lie below its limit (KDIGO);
    stages do not go back.

    Returns:
        The slot at which each stage is recorded, shape ``(patients, 4)``, and the last stage.
    """
    slots = np.arange(ROUTINE)
    last_drawn = np.maximum.accumulate(np.where(drawn, slots, NEVER), axis=1)
    previous = np.concatenate([np.full((len(egfr), 1), NEVER), last_drawn[:, :-1]], axis=1)
    earlier = np.take_along_axis(egfr, np.maximum(previous, 0), axis=1)
    apart = grid.routine_day - np.take_along_axis(grid.routine_day, np.maximum(previous, 0), axis=1)
    confirmed = np.where(drawn & (previous >= 0) & (apart >= 90), np.maximum(egfr, earlier), 999)
    stage = sum((confirmed < limit).astype(np.int64) for limit in _CKD_BELOW)
    stage = np.maximum.accumulate(stage, axis=1)
    rises = np.concatenate([stage[:, :1] > 0, stage[:, 1:] > stage[:, :-1]], axis=1)
    recorded = np.stack([_first_slot(rises & (stage == level)) for level in range(1, 5)], axis=1)
    return recorded, stage[:, -1]


def run_courses(streams: Streams, people: People, grid: Grid) -> Courses:
    """Let the diseases of all patients take their course."""
    rows, first = people.count, people.first
    words = streams.words("course", first, rows, 16)
    known = uniform(words[:, 0]) < 0.35
    t2d_slot, t2d_onset = _begin(
        words[:, 1:3], people.t2d, known | (people.course == Course.T2D_CONTROLLED), grid
    )
    prediabetes_slot, _ = _begin(
        words[:, 3:5], people.course == Course.PREDIABETES, np.zeros(rows, bool), grid
    )
    hypertension_slot, hypertension_onset = _begin(
        words[:, 5:7], people.hypertension, uniform(words[:, 7]) < 0.5, grid
    )
    refuted_slot, _ = _begin(words[:, 8:10], people.refuted, np.zeros(rows, bool), grid)

    attended = grid.wanted.copy()
    for slot in (t2d_slot, prediabetes_slot, hypertension_slot, refuted_slot):
        patient = np.nonzero(slot >= 0)[0]
        attended[patient, slot[patient]] = True
    asthma_onset = np.where(
        people.asthma,
        people.birth_day
        + ((people.start_day - people.birth_day) * (0.1 + 0.8 * uniform(words[:, 10]))).astype(np.int64),
        NEVER,
    )

    came = attended[:, :ROUTINE]
    age = completed_years(np.repeat(people.birth_day[:, None], ROUTINE, axis=1), grid.routine_day)
    a1c, second, insulin = _run_a1c(people, grid, t2d_slot, prediabetes_slot, streams)
    kidney_words = streams.words("kidney", first, rows, 4 + ROUTINE)
    creatinine, egfr = _run_kidney(people, grid, age, t2d_onset, kidney_words)

    u = uniform(streams.words("draw", first, rows, 3 * ROUTINE)).reshape(rows, ROUTINE, 3)
    even = np.arange(ROUTINE) % 2 == 0
    adult, t2d, hypertension = age >= _ADULT, people.t2d[:, None], people.hypertension[:, None]
    watched = t2d | (people.course == Course.PREDIABETES)[:, None]
    screened = (uniform(words[:, 11]) < 0.3)[:, None] & (age >= 35) & even
    at_refutal = np.arange(ROUTINE) == refuted_slot[:, None]
    draws_a1c = came & (watched | screened | at_refutal)
    draws_metabolic = came & adult & (t2d | (even & (hypertension | (age >= 60) | (u[:, :, 0] < 0.25))))
    draws_lipids = came & adult & even & (t2d | (u[:, :, 1] < np.where(age >= 40, 0.6, 0.12)))
    ckd_slot, ckd_stage = _stage_kidney_disease(grid, egfr, draws_metabolic)

    labs, lipids_slot = _complete_labs(
        streams, people, grid, draws_lipids, {"a1c": a1c, "creatinine": creatinine, "egfr": egfr}
    )
    return Courses(
        attended=attended,
        labs=Labs(
            draws_a1c=draws_a1c,
            draws_metabolic=draws_metabolic,
            draws_lipids=draws_lipids,
            draws_uacr=draws_metabolic & even & (t2d | hypertension),
            a1c=a1c,
            creatinine=creatinine,
            egfr=egfr,
            **labs,
        ),
        t2d_slot=t2d_slot,
        t2d_onset=t2d_onset,
        prediabetes_slot=prediabetes_slot,
        second_drug_slot=second,
        insulin_slot=insulin,
        hypertension_slot=hypertension_slot,
        hypertension_onset=hypertension_onset,
        lipids_slot=lipids_slot,
        asthma_onset=asthma_onset,
        refuted_slot=refuted_slot,
        ckd_slot=ckd_slot,
        ckd_stage=ckd_stage,
    )


def _complete_labs(
    streams: Streams, people: People, grid: Grid, draws_lipids: Flags, known: dict[str, Ints]
) -> tuple[dict[str, Ints], Ints]:
    """Return the remaining values, and the slot at which a statin is started."""
    words = streams.words("labs", people.first, people.count, 6 * ROUTINE)
    z = normal(words).reshape(people.count, ROUTINE, 6)
    base = (118.0 + 26.0 * people.bmi_z + 8.0 * people.t2d)[:, None]
    raw_ldl = np.clip(np.rint(base + 9.0 * z[:, :, 0]), 55, 240)
    lipids_slot = _first_slot(draws_lipids & (raw_ldl >= _STATIN_FROM))
    since = np.maximum(_years_after(grid, lipids_slot), 0.0)
    ldl = np.rint(raw_ldl * (1.0 - 0.38 * since / (0.1 + since)))
    hdl = np.rint(
        np.clip(
            51.0 + 8.0 * people.female[:, None] - 5.0 * people.frailty[:, None] + 3.0 * z[:, :, 1], 28, 95
        )
    )
    # A multiple of five, so that Friedewald's fifth is whole and total cholesterol adds up.
    triglycerides = 5 * np.rint(
        np.clip(125.0 + 30.0 * people.bmi_z[:, None] + 22.0 * z[:, :, 2], 45, 390) / 5
    )
    glucose = np.clip(np.rint(28.7 * known["a1c"] / 10 - 46.7 - 12.0 + 7.0 * z[:, :, 3]), 62, 420)
    potassium = np.clip(np.rint(42.0 + 0.09 * np.maximum(60 - known["egfr"], 0) + 2.6 * z[:, :, 4]), 33, 60)
    leak = np.maximum(90.0 - known["egfr"], 0.0) * people.t2d[:, None]
    uacr = np.clip(np.rint(9.0 + 3.0 * z[:, :, 5] + 0.05 * leak * leak * (1.0 + 0.2 * z[:, :, 5])), 2, 2500)
    values = {
        "glucose": glucose,
        "potassium": potassium,
        "cholesterol": ldl + hdl + triglycerides / 5,
        "hdl": hdl,
        "ldl": ldl,
        "triglycerides": triglycerides,
        "uacr": uacr,
    }
    return {name: np.rint(value).astype(np.int64) for name, value in values.items()}, lipids_slot
