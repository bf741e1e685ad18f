"""The nightly study from a FHIR server to published datasets, without Airflow."""

import dataclasses
import json
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from deltalake import DeltaTable
from exclusion_records import permission
from integration_data import read_ndjson, truth

from cohortflow.errors import ArtifactNotFoundError, StaleWriteError
from cohortflow.model import DataInterval
from cohortflow.workflow.runner import run_plan
from cohortflow.workflow.steps import transform
from cohortflow.workflow.steps.clean import clean_run
from cohortflow.workflow.steps.release import list_releases, read_release

pytestmark = pytest.mark.integration


def find_state(run):
    (path,) = (path for path in run.raw.list() if path.endswith("/_state.json"))
    return path


def test_publishes_the_cohort_of_the_ground_truth(s3_site, patients):
    run, _ = s3_site.run()
    expected = truth(patients, run.interval.end.date())
    key = run.key
    published = set(s3_site.rows(run, "cohort")["patient_id"])
    assert published == {key.pseudonym("Patient", patient) for patient in expected}
    assert published


def test_release_says_what_was_published(s3_site):
    run, results = s3_site.run()
    release = read_release(run.datasets, run.interval.key)
    versions = {dataset["name"]: dataset["version"] for dataset in release["datasets"]}
    counts = {dataset["name"]: dataset["rows"] for dataset in release["datasets"]}
    seen = {view: frame.height for view, frame in s3_site.all_rows(run).items()}
    assert counts == seen
    assert set(versions.values()) == {0}
    assert results["select_cohort"].datasets[0].rows == seen["cohort"]
    assert release["attrition"] == results["select_cohort"].facts["attrition"]
    counts = [text for row in release["attrition"] for name, text in row.items() if name.startswith("n_")]
    assert not [text for text in counts if text.isdigit() and 0 < int(text) < 11]
    assert release["coverage"]["condition"]["icd10cm"]["share"] > 0.9


def test_results_are_published_in_canonical_units_too(s3_site):
    run, _ = s3_site.run()
    results = s3_site.all_rows(run)["observation"].filter(pl.col("value_quantity").is_not_null())
    loinc = results.filter(code_system="http://loinc.org")
    assert loinc.height > 0
    assert set(loinc["unit_status"]) == {"canonical"}  # synthetic patients have UCUM
    assert loinc["value_quantity_canonical"].equals(loinc["value_quantity"], check_names=False)
    assert loinc["plausible"].all()
    report = read_release(run.datasets, run.interval.key)["units"]["observation"]["value_quantity"]
    assert report["rows_usable"] == report["rows_with_unit"] == loinc.height
    assert report["rows_with_value"] == results.height


def test_nothing_of_the_source_identifies_a_patient(s3_site, patients):
    run, _ = s3_site.run()
    sources = read_ndjson(patients, "Patient")
    secrets = set()
    for patient in sources:
        secrets.add(patient["id"])
        secrets.update(identifier["value"] for identifier in patient["identifier"])
        secrets.update(contact["value"] for contact in patient["telecom"])
        secrets.add(patient["birthDate"])
        secrets.add(patient["name"][0]["family"])
        secrets.update(line for address in patient["address"] for line in address["line"])
    for view, frame in s3_site.all_rows(run).items():
        texts = frame.select(pl.col(pl.String)).unpivot()["value"].drop_nulls().unique().to_list()
        found = [column for column in texts if column in secrets]
        assert not found, f"{view} holds {len(found)} source identifiers"


def test_the_same_patient_has_the_same_pseudonym_in_every_dataset(s3_site):
    run, _ = s3_site.run()
    frames = s3_site.all_rows(run)
    subjects = set(frames["cohort"]["patient_id"])
    for view, frame in frames.items():
        assert set(frame["patient_id"]) <= subjects, view
    encounters = set(frames["encounter"]["encounter_id"])
    assert set(frames["observation"]["encounter_id"].drop_nulls()) <= encounters


def test_a_repeated_run_changes_nothing(s3_site):
    run, first = s3_site.run()
    before = s3_site.all_rows(run)
    again, second = s3_site.run()
    assert first["land.patient"].facts["committed"]
    assert not second["land.patient"].facts["committed"]
    assert all(frame.equals(before[view]) for view, frame in s3_site.all_rows(again).items())


def test_a_fresh_export_replaces_the_rows_of_its_interval_only(s3_site):
    run, _ = s3_site.run()
    s3_site.run(day=date(2026, 10, 30))
    before = s3_site.all_rows(run)
    _, results = s3_site.run(fresh=True)
    assert results["land.patient"].facts["committed"]
    after = s3_site.all_rows(run)
    assert all(frame.equals(before[view]) for view, frame in after.items())
    assert set(after["patient"]["data_interval"]) == {"2026-10-30", "2026-10-31"}
    assert s3_site.sandbox.log.count("kickoff") == 3


def test_safe_harbor_publishes_the_latest_interval_of_patients_only(folder_site):
    connection = json.loads(folder_site.environ["AIRFLOW_CONN_FHIR_DEFAULT"])
    del connection["extra"]["synthetic"]
    folder_site.environ["AIRFLOW_CONN_FHIR_DEFAULT"] = json.dumps(connection)
    run, _ = folder_site.run(day=date(2026, 10, 30))
    earlier = {view: frame.drop("data_interval") for view, frame in folder_site.all_rows(run).items()}
    run, results = folder_site.run(day=date(2026, 10, 31))
    assert results["land.patient"].facts["committed"]
    for view, frame in folder_site.all_rows(run).items():
        assert set(frame["data_interval"]) == {"2026-10-31"}
        assert frame.height >= earlier[view].height, "as a whole, not what came since"
        with pytest.raises((OSError, pl.exceptions.ComputeError)):
            pl.read_delta(run.datasets.child(view), version=0)
    assert list_releases(run.datasets) == ["2026-10-31"]
    assert not run.datasets.list("_reports/2026-10-30")
    with pytest.raises(StaleWriteError, match="publishes none beside the latest"):
        folder_site.run(day=date(2026, 10, 29))
    assert set(folder_site.rows(run, "patient")["data_interval"]) == {"2026-10-31"}


def test_an_interval_with_the_same_start_and_another_end_lands_its_own_rows(folder_site):
    day = folder_site.open_run(day=date(2015, 6, 1))
    weeks = dataclasses.replace(
        day, interval=DataInterval(day.interval.start, folder_site.open_run().interval.end), run_id="weeks"
    )
    run_plan(day)
    before = folder_site.rows(day, "cohort").height
    results = run_plan(weeks)
    assert results["land.cohort"].facts["committed"]
    assert folder_site.rows(weeks, "cohort").height == results["select_cohort"].datasets[0].rows > before


def test_an_export_taken_before_the_interval_ended_is_not_used_again(folder_site):
    unfinished = datetime.now(UTC).date() + timedelta(days=1)
    folder_site.run(day=unfinished)
    _, results = folder_site.run(day=unfinished)
    assert folder_site.sandbox.log.count("kickoff") == 2
    assert results["land.cohort"].facts["committed"], "the newer export replaces the older"


def test_rows_land_under_the_export_that_they_were_made_from(folder_site):
    run = folder_site.open_run()
    taken = []

    def replace_export(step, result):
        if step.kind == "validate" and result is None:
            path = find_state(run)
            state = json.loads(run.raw.read(path))
            taken.append(datetime.fromisoformat(state["transaction_time"]))
            run.raw.write(path, json.dumps(state | {"transaction_time": "2026-12-31T00:00:00Z"}).encode())

    run_plan(run, on_step=replace_export)
    (commit,) = DeltaTable(run.datasets.child("cohort")).history(1)
    assert [datetime.fromisoformat(commit["cohortflow"]["transaction_time"])] == taken


def test_an_export_that_is_replaced_while_it_is_read_stops_the_run(folder_site, monkeypatch):
    run = folder_site.open_run()
    open_snapshot = transform.open_snapshot

    def replace_export(*arguments):
        path = find_state(run)
        state = json.loads(run.raw.read(path))
        state["files"][0]["sha256"] = "0" * 64
        run.raw.write(path, json.dumps(state).encode())
        return open_snapshot(*arguments)

    monkeypatch.setattr(transform, "open_snapshot", replace_export)
    with pytest.raises(ArtifactNotFoundError, match="Another run replaced the export"):
        run_plan(run)
    assert not run.datasets.list("cohort")


def test_changed_parameters_publish_beside_the_study(s3_site):
    run, _ = s3_site.run()
    before = s3_site.all_rows(run)
    variant, _ = s3_site.run(min_age=60)
    assert variant.datasets.uri != run.datasets.uri
    assert s3_site.rows(variant, "cohort").height < before["cohort"].height
    assert all(frame.equals(before[view]) for view, frame in s3_site.all_rows(run).items())


def test_folder_and_s3_lakes_hold_the_same(s3_site, tmp_path):
    run, _ = s3_site.run()
    in_s3 = s3_site.all_rows(run)
    s3_site.environ["AIRFLOW_VAR_COHORTFLOW_LAKE"] = str(tmp_path / "lake")
    run, _ = s3_site.run()
    assert all(frame.equals(in_s3[view]) for view, frame in s3_site.all_rows(run).items())


def test_intermediates_are_removed(folder_site):
    run, _ = folder_site.run()
    assert run.work.list() == []


def test_registry_study_runs(folder_site):
    run, _ = folder_site.run("kidney_lab_registry")
    frames = folder_site.all_rows(run)
    assert set(frames) == {"cohort", "patient", "observation", "observation_component", "condition"}
    assert frames["observation"].height > 0


def test_staging_shifts_dates_and_keeps_intervals(folder_site, patients):
    key = folder_site.environ["AIRFLOW_CONN_COHORTFLOW_KEY_DEV"]
    folder_site.environ["AIRFLOW_CONN_COHORTFLOW_KEY_STAGING"] = key
    run, _ = folder_site.run(environment="staging")
    shifted = folder_site.rows(run, "observation").select("observation_id", "patient_id", "effective_at")
    source = pl.DataFrame(
        [
            {
                "observation_id": run.key.pseudonym("Observation", item["id"]),
                "true": item["effectiveDateTime"],
            }
            for item in read_ndjson(patients, "Observation")
        ]
    ).with_columns(pl.col("true").str.to_datetime(time_zone="UTC", time_unit="us"))
    joined = shifted.join(source, on="observation_id").with_columns(
        days=(pl.col("effective_at").dt.replace_time_zone("UTC") - pl.col("true"))
        if shifted.schema["effective_at"] == pl.Datetime("us")
        else pl.col("effective_at") - pl.col("true")
    )
    offsets = joined.group_by("patient_id").agg(
        pl.col("days").n_unique(), pl.col("days").first().alias("first")
    )
    assert joined.height
    assert set(offsets["days"]) == {1}
    assert offsets.filter(pl.col("first").dt.total_microseconds() == 0).is_empty()


def test_what_prod_publishes_is_as_anonymous_as_it_demands(folder_site, patients):
    key = folder_site.environ["AIRFLOW_CONN_COHORTFLOW_KEY_DEV"]
    folder_site.environ["AIRFLOW_CONN_COHORTFLOW_KEY_PROD"] = key
    # Without any Consent nobody could tell who has opted out.
    folder_site.sandbox.put(permission("any", read_ndjson(patients, "Patient")[0]["id"]))
    run, results = folder_site.run(environment="prod")
    risk = run.plan.risk
    assert risk.demand.k == 5
    subjects = folder_site.rows(run, "cohort").join(
        folder_site.rows(run, "patient"), on="patient_id", how="full", coalesce=True
    )
    sizes = subjects.group_by([column.column for column in risk.quasi_identifiers]).len()["len"]
    assert sizes.min() >= 5
    assert {"cohort", "patient"} <= {dataset.name for dataset in results["assess_risk"].datasets}
    everybody = set(subjects["patient_id"])
    for view, frame in folder_site.all_rows(run).items():
        assert set(frame["patient_id"]) <= everybody, view
    release = read_release(run.datasets, run.interval.key)
    assert release["risk"]["verdict"] == "suppressed"
    page = run.datasets.read(run.report_path("risk.html")).decode()
    assert release["reports"]["risk"] == run.datasets.child(run.report_path("risk.html"))
    assert "Demands met after suppression" in page


def test_cli_runs_the_study_and_prints_json(folder_site):
    process = folder_site.start_cli(
        "study", "run", "diabetes_nightly", "--date", str(date(2026, 10, 31)), "--json"
    )
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    document = json.loads(output[output.index("{") :])
    assert document["release"]["study"] == "diabetes_nightly"


def test_two_runs_at_once_both_succeed(folder_site):
    arguments = ("study", "run", "diabetes_nightly", "--date", "2026-10-31", "--json")
    processes = [folder_site.start_cli(*arguments) for _ in range(3)]
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    run = folder_site.open_run()
    alone, _ = folder_site.run(day=date(2026, 10, 30))
    rows, others = folder_site.rows(run, "patient"), folder_site.rows(alone, "patient")
    of_day = rows.filter(pl.col("data_interval") == "2026-10-31").drop("data_interval")
    assert of_day.equals(others.filter(pl.col("data_interval") == "2026-10-30").drop("data_interval"))


def test_intermediates_are_removed_without_a_plan(folder_site):
    run = folder_site.open_run()
    other = folder_site.open_run(run_id="other")
    run.work.write("redact/patient.parquet", b"x")
    other.work.write("redact/patient.parquet", b"x")
    clean_run(run.plan.environment, run.run_id, run.deployment)
    assert run.work.list() == []
    assert other.work.list() == ["redact/patient.parquet"]
