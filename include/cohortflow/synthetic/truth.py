"""The ground truth: what is the case for each patient, from the model and not from the resources."""

from __future__ import annotations

import numpy as np
import polars as pl

from cohortflow.synthetic.courses import CKD_STAGES, NEVER
from cohortflow.synthetic.people import Course
from cohortflow.synthetic.scene import Scene
from cohortflow.synthetic.streams import Ints
from cohortflow.synthetic.template import concat

__all__ = ["COHORTS", "describe_patients"]

RAISED_A1C = 65  # tenths of a percent (ADA Standards of Care: the diagnostic threshold)

COHORTS: dict[str, pl.Expr] = {
    "type-2-diabetes": pl.col("t2d"),
    "type-2-diabetes-hba1c-6.5": pl.col("t2d") & (pl.col("max_hba1c") >= RAISED_A1C / 10),
    "type-2-diabetes-hba1c-6.5-age-40-75": pl.col("t2d")
    & (pl.col("max_hba1c") >= RAISED_A1C / 10)
    & pl.col("age_at_as_of").is_between(40, 75),
    "chronic-kidney-disease": pl.col("ckd_stage") != "",
    "hypertension": pl.col("hypertension"),
    "asthma": pl.col("asthma"),
    "deceased": pl.col("deceased"),
}
"""Cohorts that the summary counts, as expressions over the ground truth."""


def _dates(day: Ints, known: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> pl.Series:
    dates = pl.Series(day.astype(np.int32)).cast(pl.Date)
    return pl.select(pl.when(pl.Series(known)).then(dates)).to_series()


def describe_patients(scene: Scene) -> pl.DataFrame:
    """Return one row per patient, in order of their number.

    Columns: patient_id, birth_date, gender, age_at_as_of (completed years, also of the deceased),
    deceased, death_date, courses (of ``t2d prediabetes ckd hypertension asthma``, joined by a space), t2d,
    t2d_onset, t2d_refuted, max_hba1c (percent), hba1c_tests, ckd_stage (3a, 3b, 4, 5 or empty), ckd_onset
    (day on which the first stage was recorded), last_egfr, hypertension, hypertension_onset, asthma,
    asthma_onset, asthma_exacerbations, encounters.
    """
    people, courses, visits = scene.people, scene.courses, scene.visits
    labs = courses.labs
    tested = labs.draws_a1c
    highest = np.where(tested, labs.a1c, 0).max(axis=1)
    ckd = courses.ckd_stage > 0
    recorded = np.where(courses.ckd_slot >= 0, courses.ckd_slot, np.iinfo(np.int64).max).min(axis=1)
    ckd_day = scene.day_at(np.where(ckd, recorded, NEVER))
    metabolic = labs.draws_metabolic
    last = metabolic.shape[1] - 1 - metabolic[:, ::-1].argmax(axis=1)
    last_egfr = labs.egfr[np.arange(people.count), last]
    prediabetes = people.course == Course.PREDIABETES

    def named(name: str, has: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> pl.Series:
        return pl.select(pl.when(pl.Series(has)).then(pl.lit(f"{name} ")).otherwise(pl.lit(""))).to_series()

    names = concat(
        named("t2d", people.t2d),
        named("prediabetes", prediabetes),
        named("ckd", ckd),
        named("hypertension", people.hypertension),
        named("asthma", people.asthma),
    )
    return pl.DataFrame(
        {
            "patient_id": scene.patient_ids,
            "birth_date": pl.Series(people.birth_day.astype(np.int32)).cast(pl.Date),
            "gender": np.where(people.female, "female", "male"),
            "age_at_as_of": people.age,
            "deceased": people.death_day >= 0,
            "death_date": _dates(people.death_day, people.death_day >= 0),
            "courses": names.str.strip_chars(),
            "t2d": people.t2d,
            "t2d_onset": _dates(courses.t2d_onset, people.t2d),
            "t2d_refuted": people.refuted,
            "max_hba1c": pl.select(pl.when(pl.Series(highest > 0)).then(pl.Series(highest / 10))).to_series(),
            "hba1c_tests": tested.sum(axis=1),
            "ckd_stage": pl.Series(np.array(CKD_STAGES)[courses.ckd_stage]),
            "ckd_onset": _dates(ckd_day, ckd),
            "last_egfr": pl.select(
                pl.when(pl.Series(metabolic.any(axis=1))).then(pl.Series(last_egfr))
            ).to_series(),
            "hypertension": people.hypertension,
            "hypertension_onset": _dates(courses.hypertension_onset, people.hypertension),
            "asthma": people.asthma,
            "asthma_onset": _dates(courses.asthma_onset, people.asthma),
            "asthma_exacerbations": np.bincount(
                visits.patient, weights=visits.exacerbation, minlength=people.count
            ).astype(np.int64),
            "encounters": np.bincount(visits.patient, minlength=people.count),
        }
    )
