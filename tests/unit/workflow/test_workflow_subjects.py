"""Merged records are one patient before the cohort is chosen; synthetic patients bear a label."""

import dataclasses
import json
from datetime import UTC, datetime

import polars as pl
import pytest

from cohortflow.errors import PolicyError
from cohortflow.fhir.snapshot import Snapshot, SnapshotExport
from cohortflow.model import Catalog
from cohortflow.redaction import load_policy
from cohortflow.workflow.subjects import follow_merges, read_subjects

LABEL = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}
NOTHING = pl.DataFrame(schema={"type": pl.String, "id": pl.String, "deleted_at": pl.Datetime("us", "UTC")})


@pytest.fixture
def snapshot(tmp_path):
    def make(*patients):
        path = tmp_path / "Patient.0001.ndjson"
        path.write_text("".join(f"{json.dumps({'resourceType': 'Patient', **one})}\n" for one in patients))
        export = SnapshotExport(datetime(2026, 11, 1, tzinfo=UTC), "digest", {"Patient": (str(path),)})
        return Snapshot((export,), NOTHING)

    return make


def link(kind, other):
    return {"type": kind, "other": {"reference": f"Patient/{other}"}}


def test_merges_are_read_from_both_sides(open_run, snapshot):
    patients = snapshot(
        {"id": "a", "link": [link("replaced-by", "b")]},
        {"id": "b", "link": [link("seealso", "x")]},
        {"id": "d", "link": [link("replaces", "c"), link("refer", "y")]},
    )
    crosswalk = read_subjects(open_run(), patients, ["Patient"])
    assert crosswalk.links.rows() == [("a", "b"), ("c", "d")]
    assert crosswalk.people.rows() == [("b", "b"), ("d", "d"), ("x", "b"), ("y", "d")]


def test_without_patients_there_are_no_merges(open_run, snapshot):
    assert read_subjects(open_run(), snapshot({"id": "a"}), ["Condition"]).is_empty


def test_rows_follow_and_the_merged_patient_has_none(open_run, snapshot):
    run = open_run()
    crosswalk = read_subjects(run, snapshot({"id": "a", "link": [link("replaced-by", "b")]}), ["Patient"])
    patients = pl.LazyFrame({"patient_id": ["a", "b"], "gender": ["f", "f"]})
    conditions = pl.LazyFrame({"condition_id": ["a", "2"], "patient_id": ["a", "b"]})
    datasets = run.plan.datasets
    assert follow_merges(patients, datasets["patient"], crosswalk).collect().rows() == [("b", "f")]
    found = follow_merges(conditions, datasets["condition"], crosswalk).collect()
    assert found.rows() == [("a", "b"), ("2", "b")]


def test_a_source_that_labels_its_patients_must_show_some(open_run, snapshot):
    connection = json.dumps({"conn_type": "fhir", "host": "h", "extra": {"synthetic": "labelled"}})
    run = open_run(AIRFLOW_CONN_FHIR_DEFAULT=connection)
    policy = load_policy(Catalog.default(), "synthetic_only")
    run = dataclasses.replace(run, plan=dataclasses.replace(run.plan, policy=policy))
    with pytest.raises(PolicyError, match="holds no Patient whose label could show"):
        read_subjects(run, snapshot({"id": "a"}), ["Observation"])


@pytest.mark.parametrize(("security", "runs"), [([LABEL], True), ([], False), ([{"code": "HTEST"}], False)])
def test_a_source_that_labels_its_patients_must_label_all(open_run, snapshot, security, runs):
    connection = json.dumps({"conn_type": "fhir", "host": "h", "extra": {"synthetic": "labelled"}})
    run = open_run(AIRFLOW_CONN_FHIR_DEFAULT=connection)
    policy = load_policy(Catalog.default(), "synthetic_only")
    run = dataclasses.replace(run, plan=dataclasses.replace(run.plan, policy=policy))
    patients = snapshot(
        {"id": "a", "meta": {"security": [LABEL]}}, {"id": "b", "meta": {"security": security}}
    )
    if runs:
        assert read_subjects(run, patients, ["Patient"]).is_empty
    else:
        with pytest.raises(PolicyError, match="1 rows of Patient bear no label"):
            read_subjects(run, patients, ["Patient"])
