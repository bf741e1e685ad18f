"""A real Airflow on a real PostgreSQL: scheduler, triggerer, REST API, backfill."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import polars as pl
import psutil
import psycopg2
import pytest
from marked_records import write_marked
from stack import BIN, PROJECT, AirflowHome, ProcessGroup, find_free_port, start_postgres

from cohortflow.sandbox import SandboxConfig, running_sandbox

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

STUDY = "small_nightly"
STUDY_FILE = """
study: small_nightly
title: Small nightly cohort
template: observational_cohort
schedule: "0 2 * * *"
start_date: 2026-10-01
parameters:
  views: [patient]
  condition_codes: type_2_diabetes
  lab_codes: hba1c
  lab_minimum: 6.5
  lab_unit: "%"
"""
FAILING = "failing_nightly"
# In the task's own process: a step fails with all patients in its error, its cause and its notes.
FAULT = f"""
from cohortflow.airflow import operators
from cohortflow.workflow.runner import record_step, run_step


def fail(run, step):
    def work():
        files = (path for path in run.raw.list() if "/Patient/" in path)
        text = run.raw.read(next(files)).decode()
        error = ValueError(text)
        error.add_note(text)
        raise error from KeyError(text)

    return record_step(run, step, work) if step.kind == "select_cohort" else run_step(run, step)


if wanted == "{FAILING}":
    operators.run_step = fail
for dag in dags:
    if dag.dag_id == "{FAILING}":
        for task in dag.tasks:
            task.retries = 0
"""
BROKEN_FILE = STUDY_FILE.replace("small_nightly", "broken_nightly").replace("lab_unit:", "lab_unti:")


def run_airflow(environ, *arguments):
    """Run an ``airflow`` command."""
    command = [str(BIN / "airflow"), *arguments]
    result = subprocess.run(
        command, env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


class Airflow:
    """A running Airflow, seen through its REST API."""

    def __init__(self, url, environ, site, database, folder, processes):
        self.environ, self.site, self.database = environ, site, database
        self.folder, self.processes = folder, processes
        token = httpx.post(f"{url}/auth/token", json={"username": "admin", "password": "admin"}).json()
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        self.http = httpx.Client(base_url=f"{url}/api/v2", headers=headers, timeout=30)

    def get(self, path, **params):
        return self.http.get(path, params=params).raise_for_status().json()

    def wait_for_runs(self, count, seconds=600, study=STUDY):
        """Wait until there are ``count`` runs and all of them ended; return their states."""
        deadline = time.monotonic() + seconds
        while True:
            runs = self.get(f"/dags/{study}/dagRuns", limit=100)["dag_runs"]
            if len(runs) >= count and all(run["state"] in {"success", "failed"} for run in runs):
                return [run["state"] for run in runs]
            assert time.monotonic() < deadline, runs
            time.sleep(0.5)

    def command(self, *arguments):
        run_airflow(self.environ, *arguments)

    def counts(self, variant=""):
        """Return the rows of each interval in each dataset."""
        root = Path(self.site.lake) / "dev" / "datasets" / f"{STUDY}{variant}"
        return {
            view: dict(
                pl.scan_delta(str(root / view))
                .group_by("data_interval")
                .len()
                .sort("data_interval")
                .collect()
                .iter_rows()
            )
            for view in ("cohort", "patient")
        }


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a small study and a broken one."""
    root = tmp_path_factory.mktemp("project")
    (root / "include").symlink_to(PROJECT / "include")
    (root / "templates").symlink_to(PROJECT / "templates")
    shutil.copytree(PROJECT / "plugins", root / "plugins")
    (root / "dags" / "studies").mkdir(parents=True)
    for file in (PROJECT / "dags").glob("*.py"):
        shutil.copy(file, root / "dags")
    (root / "dags" / "studies" / f"{STUDY}.yaml").write_text(STUDY_FILE)
    (root / "dags" / "studies" / "broken_nightly.yaml").write_text(BROKEN_FILE)
    failing = STUDY_FILE.replace(STUDY, FAILING).replace('"0 2 * * *"', "null")
    (root / "dags" / "studies" / f"{FAILING}.yaml").write_text(failing)
    with (root / "dags" / "research_workflows.py").open("a") as file:
        file.write(FAULT)
    return root


@pytest.fixture(scope="module")
def marked(patients, tmp_path_factory):
    """Records with markers, and what must not be seen of them."""
    folder = tmp_path_factory.mktemp("marked") / "data"
    return folder, write_marked(patients, folder)


@pytest.fixture(scope="module")
def airflow(project, marked, tmp_path_factory, make_site):
    folder = tmp_path_factory.mktemp("airflow")
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as postgres,
        running_sandbox(SandboxConfig(data=marked[0], export_seconds=2.0)) as sandbox,
        ProcessGroup(folder / "log") as group,
    ):
        Path(postgres).chmod(0o711)
        database = start_postgres(group, Path(postgres) / "server")
        site = make_site(sandbox, str(folder / "lake"), folder)
        port = find_free_port()
        home = AirflowHome(folder / "home", database, project)
        passwords = folder / "passwords.json"
        passwords.write_text(json.dumps({"admin": "admin"}))
        environ = {
            **home.environ(port=port),
            **site.environ,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "COHORTFLOW_ENVIRONMENT": "dev",
        }
        run_airflow(environ, "db", "migrate")
        pools = folder / "pools.json"
        pools.write_text(
            json.dumps(
                {"cohortflow_exports": {"slots": 2, "description": "exports", "include_deferred": True}}
            )
        )
        run_airflow(environ, "pools", "import", str(pools))
        url = home.serve(group, environ, port=port)
        server = Airflow(url, environ, site, database, folder, group.processes)
        deadline = time.monotonic() + 120
        while not server.http.get(f"/dags/{STUDY}").is_success:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        server.http.patch(f"/dags/{STUDY}", json={"is_paused": False}).raise_for_status()
        yield server


def test_backfill_covers_each_day_once_and_repeats_without_change(airflow):
    # Unpausing starts the run of the last complete interval.
    airflow.wait_for_runs(1)
    latest = set(airflow.counts()["cohort"])
    options = ("--dag-id", STUDY, "--from-date", "2026-10-20", "--to-date", "2026-10-24T23:59:59")
    airflow.command("backfill", "create", *options, "--max-active-runs", "2")
    assert set(airflow.wait_for_runs(6)) == {"success"}
    first = airflow.counts()
    days = {f"2026-10-{day}" for day in range(20, 25)}
    for view, counts in first.items():
        assert set(counts) == days | latest, view
        assert all(counts.values()), view

    def backfills_end():
        listed = airflow.get("/backfills", dag_id=STUDY)["backfills"]
        return all(backfill["completed_at"] for backfill in listed)

    deadline = time.monotonic() + 120
    while not backfills_end():
        assert time.monotonic() < deadline
        time.sleep(1)
    started = datetime.now(UTC)
    airflow.command(
        "backfill", "create", *options, "--max-active-runs", "2", "--reprocess-behavior", "completed"
    )
    deadline = time.monotonic() + 300

    def reprocessed():
        runs = airflow.get(f"/dags/{STUDY}/dagRuns", limit=100)["dag_runs"]
        again = [run for run in runs if run["end_date"] and datetime.fromisoformat(run["end_date"]) > started]
        return len(again) == 5 and {run["state"] for run in runs} == {"success"}

    while not reprocessed():
        assert time.monotonic() < deadline
        time.sleep(1)
    assert airflow.counts() == first


def test_run_with_changed_parameters_publishes_beside_the_study(airflow):
    before = airflow.counts()
    body = {"logical_date": None, "conf": {"min_age": 60}}
    run = airflow.http.post(f"/dags/{STUDY}/dagRuns", json=body).raise_for_status().json()
    deadline = time.monotonic() + 300
    while True:
        state = airflow.get(f"/dags/{STUDY}/dagRuns/{run['dag_run_id']}")["state"]
        if state in {"success", "failed"}:
            break
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert state == "success"
    variants = [path.name for path in (Path(airflow.site.lake) / "dev" / "datasets").glob(f"{STUDY}~*")]
    assert len(variants) == 1
    variant = airflow.counts(variants[0].removeprefix(STUDY))
    assert sum(variant["cohort"].values()) < max(before["cohort"].values())
    assert airflow.counts() == before


def test_parameter_out_of_range_is_refused(airflow):
    body = {"logical_date": None, "conf": {"min_age": -1}}
    assert airflow.http.post(f"/dags/{STUDY}/dagRuns", json=body).status_code == 400


def test_broken_study_shows_its_error_and_leaves_the_others(airflow):
    errors = airflow.get("/importErrors")["import_errors"]
    assert len(errors) == 1
    assert "broken_nightly.yaml" in errors[0]["stack_trace"]
    assert "Did you mean 'lab_unit'?" in errors[0]["stack_trace"]
    assert not airflow.http.get("/dags/broken_nightly").is_success


def test_export_waits_in_the_triggerer(airflow):
    logs = [path.read_text(errors="replace") for path in airflow.folder.rglob("task_id=extract/*.log*")]
    assert any("Waiting without a worker slot" in text for text in logs)


def test_step_that_fails_with_patients_at_hand_says_where_only(airflow):
    airflow.http.patch(f"/dags/{FAILING}", json={"is_paused": False}).raise_for_status()
    body = {"logical_date": None, "note": "a run by hand"}
    airflow.http.post(f"/dags/{FAILING}/dagRuns", json=body).raise_for_status()
    assert airflow.wait_for_runs(1, 300, FAILING) == ["failed"]
    logs = airflow.folder.rglob(f"dag_id={FAILING}/**/task_id=select_cohort/*.log")
    assert any("its message is withheld" in path.read_text() for path in logs)


def test_no_patient_data_in_logs_or_database(airflow, marked):
    """Every line of every log, and every row of every table."""
    secrets = marked[1]
    airflow.wait_for_runs(1)
    texts = {
        str(path): path.read_text(errors="replace")
        for path in airflow.folder.rglob("*.log*")
        if path.is_file()
    }
    with (
        psycopg2.connect(airflow.database.replace("+psycopg2", "")) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT row_to_json(t)::text FROM "{table}" t')
            texts[table] = "\n".join(row[0] for row in cursor.fetchall())
    assert "redact.patient done" in "\n".join(texts.values())
    assert {"xcom", "trigger", "rendered_task_instance_fields", "task_instance", "dag_run"} <= texts.keys()
    assert texts["xcom"]
    assert {name: found for name, text in texts.items() if (found := secrets.find(text))} == {}


def test_everything_listens_on_loopback_only(airflow):
    listening = set()
    for process in airflow.processes:
        leader = psutil.Process(process.popen.pid)
        for member in (leader, *leader.children(recursive=True)):
            try:
                sockets = member.net_connections(kind="inet")
            except psutil.NoSuchProcess:  # tasks come and go
                continue
            listening.update(item.laddr.ip for item in sockets if item.status == psutil.CONN_LISTEN)
    assert listening == {"127.0.0.1"}
