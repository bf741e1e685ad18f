"""The patients are clinically coherent, and the ground truth is what the resources say."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import defaultdict
from statistics import mean

import numpy as np
import pytest

from cohortflow.synthetic.codes import CONDITIONS, LOINC, MEDICATIONS, OBSERVATIONS
from cohortflow.synthetic.courses import estimate_gfr

SNOMED = {condition.name: condition.snomed for condition in CONDITIONS}
LOINC_CODE = {code.name: code.code for code in OBSERVATIONS}
RXNORM = {code.name: code.code for code in MEDICATIONS}
CKD = {"ckd3a": "3a", "ckd3b": "3b", "ckd4": "4", "ckd5": "5"}


@pytest.fixture(scope="module")
def values(population):
    """Quantities by patient and LOINC code, as (day, value) in order of time."""
    found = defaultdict(lambda: defaultdict(list))
    for resource in population.resources["Observation"]:
        patient = resource["subject"]["reference"].partition("/")[2]
        for node in [resource, *resource.get("component", [])]:
            if "valueQuantity" in node:
                for coding in node["code"]["coding"]:
                    if coding["system"] == LOINC:
                        day = dt.date.fromisoformat(resource["effectiveDateTime"][:10])
                        found[patient][coding["code"]].append((day, node["valueQuantity"]["value"]))
    for codes in found.values():
        for series in codes.values():
            series.sort()
    return found


@pytest.fixture(scope="module")
def conditions(population):
    """Confirmed conditions by patient and SNOMED CT code."""
    found = defaultdict(lambda: defaultdict(list))
    for resource in population.resources["Condition"]:
        if resource["verificationStatus"]["coding"][0]["code"] == "confirmed":
            patient = resource["subject"]["reference"].partition("/")[2]
            found[patient][resource["code"]["coding"][0]["code"]].append(resource)
    return found


def completed_years(birth: dt.date, day: dt.date) -> int:
    return day.year - birth.year - ((day.month, day.day) < (birth.month, birth.day))


def test_ground_truth_names_each_patient_once(population):
    assert list(population.truth) == [patient["id"] for patient in population.resources["Patient"]]


def test_ground_truth_agrees_with_the_patients(population):
    as_of = population.summary.as_of
    for patient in population.resources["Patient"]:
        row = population.truth[patient["id"]]
        assert row["birth_date"] == patient["birthDate"]
        assert row["gender"] == patient["gender"]
        birth = dt.date.fromisoformat(patient["birthDate"])
        assert int(row["age_at_as_of"]) == completed_years(birth, as_of)
        dead = "deceasedDateTime" in patient or patient.get("deceasedBoolean", False)
        assert row["deceased"] == str(dead).lower()
        if "deceasedDateTime" in patient:
            assert row["death_date"] == patient["deceasedDateTime"][:10]


def test_ground_truth_agrees_with_the_hba1c_results(population, values):
    for patient, row in population.truth.items():
        tests = [value for _, value in values[patient][LOINC_CODE["hba1c"]]]
        assert int(row["hba1c_tests"]) == len(tests)
        assert row["max_hba1c"] == (str(float(max(tests))) if tests else "")


@pytest.mark.parametrize(
    ("name", "column"), [("t2d", "t2d"), ("hypertension", "hypertension"), ("asthma", "asthma")]
)
def test_ground_truth_agrees_with_the_problem_list(population, conditions, name, column):
    for patient, row in population.truth.items():
        recorded = conditions[patient][SNOMED[name]]
        assert row[column] == str(bool(recorded)).lower()
        assert (name in row["courses"].split()) == bool(recorded)
        if recorded:
            assert row[f"{column}_onset"].startswith(recorded[0]["onsetDateTime"])


def test_ground_truth_counts_visits_and_asthma_attacks(population):
    visits, attacks = defaultdict(int), defaultdict(int)
    for encounter in population.resources["Encounter"]:
        patient = encounter["subject"]["reference"].partition("/")[2]
        visits[patient] += 1
        attacks[patient] += encounter["class"]["code"] == "EMER"
    for patient, row in population.truth.items():
        assert int(row["encounters"]) == visits[patient]
        assert int(row["asthma_exacerbations"]) == attacks[patient]


def test_kidney_disease_stages_follow_two_successive_gfr_estimates(population, values, conditions):
    staged = 0
    for patient, row in population.truth.items():
        estimates = values[patient][LOINC_CODE["egfr"]]
        stage, begun = 0, ""
        for (earlier_day, earlier), (day, value) in itertools.pairwise(estimates):
            if (day - earlier_day).days >= 90:
                now = sum(max(earlier, value) < limit for limit in (60, 45, 30, 15))
                if now and not stage:
                    begun = day.isoformat()
                stage = max(stage, now)
        assert row["ckd_stage"] == ["", "3a", "3b", "4", "5"][stage]
        assert row["ckd_onset"] == begun
        assert row["last_egfr"] == (str(estimates[-1][1]) if estimates else "")
        recorded = {CKD[name]: conditions[patient][SNOMED[name]] for name in CKD}
        active = [
            name
            for name, found in recorded.items()
            if found and found[0]["clinicalStatus"]["coding"][0]["code"] == "active"
        ]
        assert active == ([row["ckd_stage"]] if row["ckd_stage"] else [])
        staged += stage > 0
    assert staged >= 10


def test_gfr_follows_from_the_creatinine_of_the_same_visit(population, values):
    checked = 0
    for patient, row in population.truth.items():
        creatinine = dict(values[patient][LOINC_CODE["creatinine"]])
        female = row["gender"] == "female"
        kappa, alpha = (0.7, -0.241) if female else (0.9, -0.302)
        for day, reported in values[patient][LOINC_CODE["egfr"]]:
            age = completed_years(dt.date.fromisoformat(row["birth_date"]), day)
            ratio = creatinine[day] / kappa
            rate = (
                142 * min(ratio, 1) ** alpha * max(ratio, 1) ** -1.2 * 0.9938**age * (1.012 if female else 1)
            )
            assert reported == pytest.approx(rate, abs=0.5001)
            checked += 1
    assert checked > 500


@pytest.mark.parametrize(
    ("creatinine", "age", "female", "expected"),
    # Computed by hand from Inker et al. 2021, table 2.
    [(100, 50, True, 69), (100, 50, False, 92), (70, 40, True, 112), (250, 75, False, 26)],
)
def test_gfr_estimates_equal_worked_examples(creatinine, age, female, expected):
    estimate = estimate_gfr(np.array([creatinine]), np.array([age]), np.array([female]))
    assert estimate.tolist() == [expected]


def test_body_mass_index_follows_from_weight_and_height(values):
    checked = 0
    for codes in values.values():
        heights, weights = (codes[LOINC_CODE[name]] for name in ("height", "weight"))
        for (_, height), (_, weight), (_, bmi) in zip(
            heights, weights, codes[LOINC_CODE["bmi"]], strict=True
        ):
            assert bmi == pytest.approx(weight / (height / 100) ** 2, abs=0.0501)
            checked += 1
    assert checked > 1000


def test_total_cholesterol_is_the_sum_of_its_parts(values):
    for codes in values.values():
        parts = ("cholesterol", "hdl", "ldl", "triglycerides")
        for rows in zip(*(codes[LOINC_CODE[name]] for name in parts), strict=True):
            total, hdl, ldl, triglycerides = (value for _, value in rows)
            assert total == hdl + ldl + triglycerides / 5


RANGES = {
    "weight": (2, 250), "height": (45, 210), "bmi": (10, 60), "heart_rate": (40, 180),
    "temperature": (35.5, 40.5), "spo2": (85, 100), "systolic": (70, 215), "diastolic": (35, 115),
    "hba1c": (4, 15), "glucose": (60, 430), "creatinine": (0.4, 9), "egfr": (5, 160), "potassium": (3, 6.2),
    "cholesterol": (80, 420), "triglycerides": (40, 400), "hdl": (25, 100), "ldl": (25, 250),
    "uacr": (1, 2500), "peak_flow": (40, 800), "fev1": (0.2, 6),
}  # fmt: skip


@pytest.mark.parametrize("name", RANGES)
def test_values_are_plausible(values, name):
    low, high = RANGES[name]
    found = [value for codes in values.values() for _, value in codes[LOINC_CODE[name]]]
    assert found
    assert low <= min(found)
    assert max(found) <= high


def test_diastolic_pressure_stays_below_systolic(values):
    for codes in values.values():
        pairs = zip(codes[LOINC_CODE["systolic"]], codes[LOINC_CODE["diastolic"]], strict=True)
        assert all(systolic[1] - diastolic[1] >= 15 for systolic, diastolic in pairs)


def test_height_of_the_grown_and_of_children_does_not_shrink(values):
    for codes in values.values():
        heights = [height for _, height in codes[LOINC_CODE["height"]]]
        assert heights == sorted(heights)


def test_treatment_lowers_hba1c(population, values):
    before, after = [], []
    for patient, row in population.truth.items():
        tests = values[patient][LOINC_CODE["hba1c"]]
        onset = dt.date.fromisoformat(row["t2d_onset"]) if row["t2d_onset"] else None
        at_onset = [value for day, value in tests if day == onset]
        later = [value for day, value in tests if onset and (day - onset).days > 365]
        if at_onset and later:
            assert at_onset[0] >= 6.5
            before.append(at_onset[0])
            after.append(mean(later))
    assert len(before) >= 20
    assert mean(before) - mean(after) > 1


def test_treatment_lowers_blood_pressure(population, values):
    change = []
    for patient, row in population.truth.items():
        if row["hypertension_onset"]:
            series = values[patient][LOINC_CODE["systolic"]]
            onset = dt.date.fromisoformat(row["hypertension_onset"])
            at_onset = [value for day, value in series if day == onset]
            later = [value for day, value in series if (day - onset).days > 300]
            if at_onset and later:
                assert max(at_onset) >= 140
                change.append(mean(later) - at_onset[0])
    assert len(change) >= 20
    assert mean(change) < -10


def test_kidney_function_of_diabetics_declines_faster(population, values):
    slopes = defaultdict(list)
    for patient, row in population.truth.items():
        series = values[patient][LOINC_CODE["egfr"]]
        if len(series) > 3:
            years = (series[-1][0] - series[0][0]).days / 365.25
            slopes[row["t2d"]].append((series[-1][1] - series[0][1]) / years)
    assert mean(slopes["true"]) < mean(slopes["false"]) - 0.5 < 0


def test_attacks_of_asthma_lower_peak_flow_and_saturation(population):
    flow, saturation = defaultdict(list), defaultdict(list)
    for resource in population.resources["Observation"]:
        code = resource["code"]["coding"][0]["code"]
        place = population.by_id[resource["encounter"]["reference"]]["class"]["code"]
        if code == LOINC_CODE["peak_flow"]:
            flow[place].append(resource["valueQuantity"]["value"])
        if code == LOINC_CODE["spo2_oximetry"]:
            saturation[place].append(resource["valueQuantity"]["value"])
    assert mean(flow["EMER"]) < 0.75 * mean(flow["AMB"])
    assert mean(saturation["EMER"]) < 94 < mean(saturation["AMB"])


def test_cohort_of_raised_hba1c_is_a_usable_share_at_each_size(population):
    rows = list(population.truth.values())
    for size in (20, 100, 200, 400):
        raised = [row for row in rows[:size] if row["t2d"] == "true" and float(row["max_hba1c"]) >= 6.5]
        assert len(raised) / size == pytest.approx(0.15)
    diabetics = [row for row in rows if row["t2d"] == "true"]
    assert any(float(row["max_hba1c"]) < 6.5 for row in diabetics)
    assert any(not 40 <= int(row["age_at_as_of"]) <= 75 for row in diabetics)
    others = [row for row in rows if row["t2d"] == "false" and row["max_hba1c"]]
    assert others
    assert all(float(row["max_hba1c"]) < 6.5 for row in others)


def test_summary_counts_what_the_files_hold(population):
    summary = population.summary
    assert summary.counts == {name: len(resources) for name, resources in population.resources.items()}
    assert summary.size == sum((summary.out / file.name).stat().st_size for file in summary.files)
    rows = population.truth.values()
    assert summary.cohorts["type-2-diabetes"] == sum(row["t2d"] == "true" for row in rows)
    assert summary.cohorts["deceased"] == sum(row["deceased"] == "true" for row in rows)
    in_cohort = [
        row
        for row in rows
        if row["t2d"] == "true" and float(row["max_hba1c"]) >= 6.5 and 40 <= int(row["age_at_as_of"]) <= 75
    ]
    assert summary.cohorts["type-2-diabetes-hba1c-6.5-age-40-75"] == len(in_cohort)


def test_some_suspected_diabetes_was_refuted_in_patients_without_it(population):
    refuted = [
        resource["subject"]["reference"].partition("/")[2]
        for resource in population.resources["Condition"]
        if resource["verificationStatus"]["coding"][0]["code"] == "refuted"
    ]
    assert refuted
    assert all(
        population.truth[patient]["t2d"] == "false" and population.truth[patient]["t2d_refuted"] == "true"
        for patient in refuted
    )


def test_drugs_are_given_for_a_reason_and_not_against_an_allergy(population, conditions):
    allergic = {
        allergy["patient"]["reference"]
        for allergy in population.resources["AllergyIntolerance"]
        if allergy["code"]["coding"][0]["display"] == "amoxicillin"
    }
    indications = {"metformin": "t2d", "lisinopril": "hypertension", "atorvastatin": "hyperlipidemia"}
    names = {code: name for name, code in RXNORM.items()}
    ordered = set()
    for order in population.resources["MedicationRequest"]:
        patient = order["subject"]["reference"]
        name = names[order["medicationCodeableConcept"]["coding"][0]["code"]]
        ordered.add(name)
        if name == "amoxicillin":
            assert patient not in allergic
        if name in indications:
            assert conditions[patient.partition("/")[2]][SNOMED[indications[name]]]
    assert allergic
    assert ordered == set(RXNORM)


def test_metformin_is_not_ordered_once_kidney_disease_is_severe(population, conditions):
    for order in population.resources["MedicationRequest"]:
        if order["medicationCodeableConcept"]["coding"][0]["code"] == RXNORM["metformin"]:
            known = conditions[order["subject"]["reference"].partition("/")[2]]
            severe = [c["recordedDate"] for name in ("ckd4", "ckd5") for c in known[SNOMED[name]]]
            assert all(order["authoredOn"][:10] < day[:10] for day in severe)


def test_the_dead_have_no_active_orders(population):
    for order in population.resources["MedicationRequest"]:
        if order["status"] == "active":
            assert population.truth[order["subject"]["reference"].partition("/")[2]]["deceased"] == "false"
