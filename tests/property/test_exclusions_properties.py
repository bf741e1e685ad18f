"""Whoever a reason names is in no dataset, everybody else stays, and the counts add up."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from cohortflow.cohort import suppress_small_counts
from cohortflow.model import SMALL_CELL
from cohortflow.redaction.exclusions import Reason, clear_rows, count_steps, gather_subjects

PATIENTS = [f"p{number}" for number in range(40)]
patients = st.lists(st.sampled_from(PATIENTS), max_size=60)
reasons = st.lists(st.tuples(patients, st.booleans()), max_size=4)
rows = st.lists(st.tuples(st.sampled_from([*PATIENTS, None]), st.integers(0, 3)), max_size=80)


def frame(ids):
    return pl.LazyFrame({"patient_id": ids}, schema={"patient_id": pl.String})


def make(given_reasons):
    return [Reason(f"reason {n}", frame(ids), masks=masks) for n, (ids, masks) in enumerate(given_reasons)]


@given(known=patients, named=reasons, table=rows, known_only=st.booleans())
def test_nobody_excluded_is_left_and_nobody_else_is_lost(known, named, table, known_only):
    subjects = gather_subjects(frame(known), make(named))
    excluded = {one for ids, masks in named if not masks for one in ids}
    masked = {one for ids, masks in named if masks for one in ids}
    listed = set(known) | excluded | masked
    source = pl.LazyFrame(table, schema={"patient_id": pl.String, "code": pl.Int64}, orient="row")
    cleared = clear_rows(source, subjects, "patient_id", maskable=["code"], known_only=known_only).collect()
    wanted = [
        (one, None if one in masked else code)
        for one, code in table
        if one is not None and one not in excluded and (one in listed or not known_only)
    ]
    assert cleared.rows() == wanted


@given(known=patients, named=reasons)
def test_counts_add_up(known, named):
    made = make(named)
    subjects = gather_subjects(frame(known), made)
    steps = count_steps(subjects, frame(known), made)
    excluded = {one for ids, masks in named if not masks for one in ids}
    if steps.height:
        assert steps["n_before"][0] == len(set(known))
        assert steps["n_after"][-1] == len(set(known) - excluded)
        assert steps["n_before"].to_list()[1:] == steps["n_after"].to_list()[:-1]
    assert steps["n_excluded"].sum() == len(set(known) & excluded)
    shown = suppress_small_counts(steps)
    assert not [count for count in shown["n_excluded"] if count.isdecimal() and 0 < int(count) < SMALL_CELL]


@given(known=patients, named=reasons, seed=st.randoms(use_true_random=False))
def test_the_order_of_patients_does_not_matter(known, named, seed):
    def gather(ids, parts):
        return gather_subjects(frame(ids), make(parts)).sort("patient_id").collect()

    before = gather(known, named)
    mixed = [(seed.sample(ids, len(ids)), masks) for ids, masks in named]
    assert gather(seed.sample(known, len(known)), mixed).equals(before)
