"""Marked records through a real Airflow: nothing of them in its database, its logs, or what is published.

Runs go as ``airflow dags test`` has them, at the level DEBUG: one that succeeds, and one for each way to fail
with data at hand. The scheduler's own processes are looked at in ``test_airflow_scheduler.py``.
"""

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from marked_records import MARKER, Secrets, read_everything, read_lines, write_lines, write_marked
from stack import BIN, PROJECT, AirflowHome

from cohortflow.sandbox import SandboxConfig, running_sandbox

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

STUDY = """
study: {name}
title: A study of marked records
template: observational_cohort
schedule: "0 2 * * *"
start_date: 2026-10-01
parameters:
  views: {views}
  condition_codes: type_2_diabetes
  lab_codes: hba1c
  lab_minimum: 6.5
  lab_unit: "%"
"""
STUDIES = {"marked": "[patient, condition]", "malformed": "[patient, procedure]"}
RUNS = {
    "a clean run": ("marked", None, None),
    "Polars quotes a cell": ("marked", "cast", "patient.redact"),
    "an error with rows in its cause and notes": ("marked", "rows", "patient.redact"),
    "a value out of its value set": ("marked", "code", "validate"),
    "the leak gate": ("marked", "leak", "scan_for_leaks"),
    "an error in the middle of writing a table": ("marked", "land", "publish.patient"),
    "malformed lines": ("malformed", None, "transform"),
}


@dataclass
class Site:
    """What is left after all runs."""

    folder: Path
    secrets: Secrets
    outcomes: dict[str, dict]
    log: str


@pytest.fixture(scope="module")
def site(patients, tmp_path_factory, make_site):
    folder = tmp_path_factory.mktemp("airflow")
    secrets = write_marked(patients, folder / "data")
    procedures = read_lines(folder / "data" / "Procedure.ndjson")
    marked = [one | {"status": {"of": secrets.mark("Procedure.status")}} for one in procedures]
    write_lines(folder / "data" / "Procedure.ndjson", marked)
    project = folder / "project"
    (project / "dags" / "studies").mkdir(parents=True)
    for name in ("include", "templates", "plugins"):
        (project / name).symlink_to(PROJECT / name)
    for file in (PROJECT / "dags").glob("*.py"):
        (project / "dags" / file.name).write_text(file.read_text())
    for name, views in STUDIES.items():
        (project / "dags" / "studies" / f"{name}.yaml").write_text(STUDY.format(name=name, views=views))
    runs = [
        {"name": name, "study": study, "fault": fault, "day": f"2026-11-{day:02d}"}
        for day, (name, (study, fault, _)) in enumerate(RUNS.items(), start=1)
    ]
    (folder / "runs.json").write_text(json.dumps(runs))
    (folder / "tmp").mkdir()
    with running_sandbox(SandboxConfig(data=folder / "data", export_seconds=0.2)) as sandbox:
        environ = {
            **os.environ,
            **AirflowHome(folder / "home", "", project).environ(),
            **make_site(sandbox, str(folder / "lake"), folder).environ,
            "COHORTFLOW_ENVIRONMENT": "dev",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
            "TMPDIR": str(folder / "tmp"),
        }
        with (folder / "output.log").open("w") as output:
            for command in (
                [BIN / "airflow", "db", "migrate"],
                [
                    sys.executable,
                    Path(__file__).with_name("dag_runs_worker.py"),
                    folder / "runs.json",
                    folder / "outcomes.json",
                ],
            ):
                subprocess.run(command, env=environ, stdout=output, stderr=output, timeout=300, check=True)
    outcomes = json.loads((folder / "outcomes.json").read_text())
    return Site(folder, secrets, outcomes, (folder / "output.log").read_text())


@pytest.mark.parametrize("name", RUNS)
def test_each_run_ends_where_it_should(site, name):
    failing = RUNS[name][2]
    outcome = site.outcomes[name]
    assert outcome["state"] == ("failed" if failing else "success")
    failed = {task for task, state in outcome["tasks"].items() if state == "failed"}
    assert failing in failed if failing else not failed
    assert outcome["tasks"]["clean"] == "success"


def test_the_search_finds_what_is_there(site):
    raw = b"".join(read_everything(site.folder / "lake" / "dev" / "raw").values())
    found = site.secrets.find(raw)
    assert {"Patient.id", "Patient.identifier", "Patient.birthDate", "Patient.name.family"} <= set(found)
    assert {"Condition, planted", "Procedure.status", "Condition.code.coding.display"} <= set(found)
    assert len(site.secrets.values) > 10_000


def test_airflow_database_holds_nothing_of_the_records(site):
    """Every row of every table: XCom, rendered fields, conf, notes, events, triggers, assets."""
    found, rows = {}, {}
    with sqlite3.connect(site.folder / "home" / "airflow.db") as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            content = database.execute(f'SELECT * FROM "{name}"').fetchall()
            rows[name] = len(content)
            found |= {name: hits} if (hits := site.secrets.find(repr(content))) else {}
    assert found == {}
    assert {
        name for name in ("xcom", "dag_run", "task_instance", "log", "asset_event") if not rows[name]
    } == set()


def test_xcom_carries_references_and_counts_only(site):
    with sqlite3.connect(site.folder / "home" / "airflow.db") as database:
        values = [
            json.loads(value) for (value,) in database.execute("SELECT value FROM xcom WHERE value != ''")
        ]
    assert any("datasets" in str(value) for value in values)
    assert site.secrets.find(json.dumps(values)) == {}


def test_logs_hold_nothing_of_the_records(site):
    for name in RUNS:
        assert f"=== {name}" in site.log
    assert "its message is withheld" in site.log, "the failures are told"
    assert site.secrets.find(site.log) == {}


def test_files_beside_the_raw_zone_hold_nothing_of_the_records(site):
    """Airflow's home, the run registry, temporary files, audit events, reports and tables."""
    folders = [site.folder / name for name in ("home", "tmp", "lake", "project")]
    contents = {
        f"{folder.name}/{name}": content
        for folder in folders
        for name, content in read_everything(folder, without=("dev/raw/",)).items()
    }
    assert {name: hits for name, content in contents.items() if (hits := site.secrets.find(content))} == {}
    assert any("/audit/" in name for name in contents)
    assert any("registry.db" in name for name in contents)
    assert not any(name.startswith("lake/dev/work/") for name in contents), "intermediates are removed"


def test_malformed_lines_are_listed_without_their_text(site):
    listed = site.folder.rglob("_quarantine/Procedure.parquet")
    for content in read_everything(next(listed).parent).values():
        assert MARKER.encode() not in content
