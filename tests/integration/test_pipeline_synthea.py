"""The nightly study on records that another generator made (Synthea), where they are at hand."""

import os
from pathlib import Path

import pytest
from integration_data import read_ndjson, truth

from cohortflow.sandbox import SandboxConfig, running_sandbox

pytestmark = pytest.mark.integration

SHARED = os.environ.get("COHORTFLOW_SHARED", "")
SYNTHEA = Path(SHARED) / "data" / "synthea-100"


@pytest.mark.skipif(not SHARED, reason="COHORTFLOW_SHARED names no folder with Synthea records")
@pytest.mark.parametrize(("minimum", "subjects"), [(6.5, 0), (3.0, 1)])
def test_study_publishes_the_cohort_of_synthea_patients(make_site, tmp_path, minimum, subjects):
    # One of the hundred patients has type 2 diabetes, with an HbA1c of 3.9 %.
    with running_sandbox(SandboxConfig(data=SYNTHEA, export_seconds=0.2)) as sandbox:
        site = make_site(sandbox, str(tmp_path / "lake"), tmp_path)
        run, results = site.run(lab_minimum=minimum)
        frames = site.all_rows(run)
    expected = truth(SYNTHEA, run.interval.end.date(), minimum)
    assert len(expected) == subjects
    assert set(frames["cohort"]["patient_id"]) == {
        run.key.pseudonym("Patient", patient) for patient in expected
    }
    assert bool(frames["observation"].height) == bool(subjects)
    assert results["transform"].facts["malformed"] == {}
    patients = {patient["id"] for patient in read_ndjson(SYNTHEA, "Patient")}
    texts = {value for frame in frames.values() for value in frame.select(strings(frame)).unpivot()["value"]}
    assert not patients & texts


def strings(frame):
    return [name for name, dtype in frame.schema.items() if str(dtype) == "String"]
