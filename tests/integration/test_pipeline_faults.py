"""What goes wrong in hospitals and data centres, and that nothing is lost, doubled or half published."""

import dataclasses
import json
import logging
import os
import signal
import time

import polars as pl
import pytest
from stack import ProcessGroup, find_free_port, start_s3

from cohortflow.errors import (
    AuthorizationError,
    MalformedDataError,
    ProjectKeyError,
    StoreUnavailableError,
    StudyError,
    UnknownEnvironmentError,
    ValidationFailedError,
)
from cohortflow.lake import prepare_lake
from cohortflow.sandbox import Fault, generate_client_key
from cohortflow.workflow.runner import run_plan
from cohortflow.workflow.steps.release import list_releases

pytestmark = pytest.mark.integration


@pytest.fixture
def expected(folder_site):
    """Rows of an undisturbed run, by dataset, without the lake that they are in."""
    run, _ = folder_site.run(run_id="undisturbed")
    rows = folder_site.all_rows(run)
    folder_site.environ["AIRFLOW_VAR_COHORTFLOW_LAKE"] += "-disturbed"
    folder_site.sandbox.log.clear()
    return rows


def assert_same(rows, expected):
    assert rows.keys() == expected.keys()
    for view, frame in rows.items():
        assert frame.equals(expected[view]), view


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the awaited moment did not come"
        time.sleep(0.01)


def test_recovers_from_a_busy_server(folder_site, expected):
    folder_site.sandbox.faults.add(
        Fault(kind="unavailable", on="kickoff", times=2, retry_after=0),
        Fault(kind="too-many-requests", on="status", retry_after=1),
        Fault(kind="too-many-requests", on="file", retry_after=1, retry_after_format="http-date"),
        Fault(kind="unavailable", on="file", times=2, retry_after=0),
    )
    run, _ = folder_site.run()
    assert_same(folder_site.all_rows(run), expected)
    assert folder_site.sandbox.faults.waiting() == []


def test_token_that_expires_during_the_wait_is_renewed(folder_site, expected):
    folder_site.sandbox.faults.add(Fault(kind="unauthorized", on="status"))
    run, _ = folder_site.run()
    assert_same(folder_site.all_rows(run), expected)
    assert folder_site.sandbox.log.count("token") == 2
    assert folder_site.sandbox.log.count("kickoff") == 1


def test_truncated_download_is_fetched_again(folder_site, expected):
    folder_site.sandbox.faults.add(
        Fault(kind="truncate", on="file"), Fault(kind="drop-lines", on="file", after=1)
    )
    run, _ = folder_site.run()
    assert_same(folder_site.all_rows(run), expected)


def test_worker_killed_during_the_download_resumes(folder_site, expected):
    folder_site.sandbox.faults.add(Fault(kind="slow", on="file", times=50, seconds=2.0))
    arguments = ("study", "run", "diabetes_nightly", "--date", "2026-10-31")
    process = folder_site.start_cli(*arguments)
    wait_until(lambda: folder_site.sandbox.log.count("file") >= 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    folder_site.sandbox.faults.clear()
    run = folder_site.open_run()
    assert list_releases(run.datasets) == []
    process = folder_site.start_cli(*arguments)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert_same(folder_site.all_rows(run), expected)
    assert folder_site.sandbox.log.count("kickoff") == 1


def test_worker_killed_while_publishing_leaves_no_half_dataset(folder_site, expected):
    run = folder_site.open_run()
    first = os.path.join(run.datasets.uri, "cohort", "_delta_log", "00000000000000000000.json")  # noqa: PTH118
    arguments = ("study", "run", "diabetes_nightly", "--date", "2026-10-31")
    process = folder_site.start_cli(*arguments)
    wait_until(lambda: os.path.exists(first))  # noqa: PTH110
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list_releases(run.datasets) == []
    for view, rows in expected.items():
        if os.path.exists(os.path.join(run.datasets.uri, view, "_delta_log", "00000000000000000000.json")):  # noqa: PTH110, PTH118
            assert folder_site.rows(run, view).equals(rows)
    process = folder_site.start_cli(*arguments)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert_same(folder_site.all_rows(run), expected)


def test_malformed_line_is_quarantined_and_counted(folder_site, caplog):
    caplog.set_level(logging.DEBUG)
    folder_site.sandbox.faults.add(Fault(kind="malformed-line", on="file", line=1, times=1, after=2))
    run, results = folder_site.run()
    malformed = results["transform"].facts["malformed"]
    assert sum(malformed.values()) == 1
    path = next(path for path in run.raw.list() if "_quarantine" in path)
    listed = pl.read_parquet(run.raw.child(path))
    assert listed.height == 1
    assert set(listed.columns) == {"file", "line", "reason"}
    assert listed["line"].to_list() == [1]


def test_too_many_malformed_lines_stop_the_study(folder_site):
    folder_site.sandbox.faults.add(Fault(kind="malformed-line", on="file", line=1, times=20))
    options = {"study": "kidney_lab_registry", "max_malformed": 0.0}
    with pytest.raises(MalformedDataError, match="Observation lines are malformed"):
        folder_site.run(**options)
    assert list_releases(folder_site.open_run(**options).datasets) == []


def test_failed_expectation_publishes_nothing(folder_site, monkeypatch, tmp_path):
    run = folder_site.open_run()
    suite = run.plan.datasets["patient"].suite
    impossible = suite.suite.expectations[0].model_copy(
        update={"kwargs": {"min_value": 10**9}, "severity": "critical"}
    )
    broken = suite.suite.model_copy(update={"expectations": (impossible, *suite.suite.expectations[1:])})
    dataset = dataclasses.replace(
        run.plan.datasets["patient"], suite=dataclasses.replace(suite, suite=broken)
    )
    plan = dataclasses.replace(run.plan, datasets={**run.plan.datasets, "patient": dataset})
    run = dataclasses.replace(run, plan=plan)
    with pytest.raises(ValidationFailedError, match="row_count"):
        run_plan(run)
    published = [path for path in run.datasets.list() if "_delta_log" in path]
    assert published == []
    reports = [path for path in run.datasets.list("_reports") if path.endswith("patient.validation.html")]
    assert len(reports) == 1
    assert run.work.list() == []


def test_store_that_is_down_gives_a_clear_error(s3_site, monkeypatch):
    monkeypatch.setattr("cohortflow.lake.store._RETRY_TIMEOUT_SECONDS", 1)
    monkeypatch.setattr("cohortflow.lake.store._MAX_RETRIES", 1)
    connection = json.loads(s3_site.environ["AIRFLOW_CONN_COHORTFLOW_LAKE"])
    connection["extra"]["endpoint_url"] = "http://127.0.0.1:9"
    s3_site.environ["AIRFLOW_CONN_COHORTFLOW_LAKE"] = json.dumps(connection)
    with pytest.raises(StoreUnavailableError, match="can be run again") as caught:
        s3_site.run()
    assert connection["password"] not in str(caught.value)
    assert s3_site.sandbox.log.count("kickoff") == 0


def test_wrong_private_key_is_refused_without_retries(folder_site, tmp_path):
    private, _ = generate_client_key()
    connection = json.loads(folder_site.environ["AIRFLOW_CONN_FHIR_DEFAULT"])
    stranger = tmp_path / "stranger.jwk"
    stranger.write_text(json.dumps(private))
    connection["extra"]["private_key_file"] = str(stranger)
    folder_site.environ["AIRFLOW_CONN_FHIR_DEFAULT"] = json.dumps(connection)
    with pytest.raises(AuthorizationError) as caught:
        folder_site.run()
    assert caught.value.remedy
    assert folder_site.sandbox.log.count("token") == 1


def test_another_project_key_is_refused_before_anything_is_fetched(folder_site):
    folder_site.run()
    kickoffs = folder_site.sandbox.log.count("kickoff")
    key = json.dumps({"conn_type": "generic", "password": os.urandom(32).hex()})
    folder_site.environ["AIRFLOW_CONN_COHORTFLOW_KEY_DEV"] = key
    with pytest.raises(ProjectKeyError, match="key"):
        folder_site.run(fresh=True)
    assert folder_site.sandbox.log.count("kickoff") == kickoffs


def test_missing_project_key_is_refused_before_anything_is_fetched(folder_site):
    del folder_site.environ["AIRFLOW_CONN_COHORTFLOW_KEY_DEV"]
    with pytest.raises(ProjectKeyError, match="openssl rand"):
        folder_site.run()
    assert folder_site.sandbox.log.count("token") == 0


def test_unknown_environment_is_refused(folder_site):
    with pytest.raises(UnknownEnvironmentError, match="Did you mean 'prod'"):
        folder_site.run(environment="produ")


def test_parameter_with_a_typo_is_refused(folder_site):
    with pytest.raises(StudyError, match="Did you mean 'min_age'"):
        folder_site.run(min_aeg=40)


def test_store_that_dies_in_the_middle_loses_nothing(hospital, make_site, tmp_path, monkeypatch):
    monkeypatch.setattr("cohortflow.lake.store._RETRY_TIMEOUT_SECONDS", 1)
    monkeypatch.setattr("cohortflow.lake.store._MAX_RETRIES", 1)
    with ProcessGroup(tmp_path / "log") as group:
        server = start_s3(group, tmp_path / "s3", port=find_free_port())
        site = make_site(hospital, "s3://lake", tmp_path, server.connection())
        prepare_lake("s3://lake", site.deployment)
        run = site.open_run()

        def kill_store(step, result):
            if step.id == "validate" and result is None:
                group.processes[-1].signal_group(signal.SIGKILL)
                group.processes[-1].popen.wait()

        with pytest.raises(StoreUnavailableError):
            run_plan(run, on_step=kill_store)
        start_s3(group, tmp_path / "s3", port=int(server.endpoint.rpartition(":")[2]))
        again, _ = site.run()
        assert site.rows(again, "cohort").height > 0
        assert list_releases(again.datasets) == ["2026-10-31"]
        assert hospital.log.count("kickoff") == 1
