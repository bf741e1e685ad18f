"""The main job end to end: synthetic patients, a sandbox EHR, S3, Airflow, a published dataset."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from stack import (
    BIN,
    PROJECT,
    AirflowHome,
    Process,
    ProcessGroup,
    call,
    start_loading,
    start_s3,
    start_sandbox,
)

STUDY = "diabetes_nightly"
SEED = 1
NIGHTLY_RUN = timedelta(hours=2)
QUESTION = "HbA1c of the cohort by administrative gender"
QUERY = """
SELECT p.gender, COUNT(DISTINCT o.patient_id) AS patients, COUNT(*) AS results,
       ROUND(AVG(o.value_quantity), 2) AS mean_hba1c
FROM observation o JOIN patient p ON p.patient_id = o.patient_id
WHERE o.code = '4548-4' GROUP BY p.gender ORDER BY p.gender
"""

console = Console()


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--lake", help="folder to use instead of S3")
    parser.add_argument("--home", type=Path, default=PROJECT / ".cohortflow" / "demo", help="where files go")
    options = parser.parse_args()
    started = time.monotonic()
    airflow = AirflowHome(options.home / "airflow")
    try:
        with ProcessGroup(options.home / "log") as group:
            environ, loading = _start_services(group, airflow, options)
            os.environ.update(environ)
            _run_study(group, airflow, environ, loading)
            _show_result()
    except KeyboardInterrupt:
        console.print("[bold]interrupted[/]; every server was stopped")
        return 130
    except RuntimeError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        return 1
    console.print(
        f"\nDone in {time.monotonic() - started:.0f} s. `make up` starts the same with Airflow's UI."
    )
    return 0


def _start_services(
    group: ProcessGroup, airflow: AirflowHome, options: argparse.Namespace
) -> tuple[dict[str, str], Process]:
    """Start the servers; return their connections, and the process that loads terminologies meanwhile."""
    home: Path = options.home
    data = home / f"patients-{options.patients}"
    if not data.exists():
        _say(f"making {options.patients} synthetic patients")
        size = [f"--patients={options.patients}", f"--seed={SEED}"]
        call([str(BIN / "cohortflow"), "synth", *size, f"--out={data}"])
    environ = airflow.environ()
    environ["AIRFLOW_CONN_COHORTFLOW_KEY_DEV"] = json.dumps(
        {"conn_type": "generic", "password": airflow.secret("project-key")}
    )
    environ["COHORTFLOW_ENVIRONMENT"] = "dev"
    if options.lake:
        environ["AIRFLOW_VAR_COHORTFLOW_LAKE"] = str(Path(options.lake).absolute())
    else:
        _say("starting an S3 endpoint (SeaweedFS)")
        environ["AIRFLOW_CONN_COHORTFLOW_LAKE"] = start_s3(group, home / "s3").connection()
        environ["AIRFLOW_VAR_COHORTFLOW_LAKE"] = "s3://lake"
    call([str(BIN / "cohortflow"), "lake", "prepare"], environ)
    _say("loading the shipped terminologies (cohortflow terminology load shipped)")
    loading = start_loading(group, environ)
    _say("starting the sandbox EHR")
    sandbox = start_sandbox(group, data, home / "sandbox")
    environ["AIRFLOW_CONN_FHIR_DEFAULT"] = sandbox.connection()
    return environ, loading


def _run_study(group: ProcessGroup, airflow: AirflowHome, environ: dict[str, str], loading: Process) -> None:
    if not (airflow.folder / "airflow.db").exists():
        _say("creating Airflow's database")
    _wait(airflow.run(group, "migrate", "db", "migrate", environ=environ), "airflow db migrate")
    group.finish(loading)
    # Named by the moment when the nightly run is due, the run covers the day before it.
    due = f"{(datetime.now(UTC) - NIGHTLY_RUN).date()}T02:00:00"
    _say(f"running the DAG {STUDY} (airflow dags test {STUDY} {due})")
    process = airflow.run(group, "dag", "dags", "test", STUDY, due, environ=environ)
    shown = 0
    while True:
        running = process.running
        lines = process.log.read_text(errors="replace").splitlines()
        for line in lines[shown:]:
            if " done in " in line:
                text = line[: line.index(" done in ")].rsplit(" ", 1)[-1] + line[line.index(" done in ") :]
                console.print(f"    {text.split(' loc=')[0].split(' [')[0]}", highlight=False, markup=False)
        shown = len(lines)
        if not running:
            break
        time.sleep(0.2)
    _wait(process, "the DAG")


def _show_result() -> None:
    from cohortflow.cli.summary import print_release
    from cohortflow.lake import open_store
    from cohortflow.model import EnvDeployment
    from cohortflow.workflow.steps.release import list_releases, read_release

    deployment = EnvDeployment()
    lake = deployment.variable("cohortflow_lake") or ""
    datasets = open_store(f"{lake}/dev/datasets/{STUDY}", deployment)
    document = read_release(datasets, list_releases(datasets)[-1])
    console.print()
    print_release(document)
    _answer(document, dict(datasets.options))


def _answer(document: dict[str, Any], options: dict[str, str]) -> None:
    import polars as pl

    from cohortflow.cli.console import print_table

    interval = document["interval"]["key"]
    tables = {
        dataset["name"]: pl.scan_delta(
            dataset["uri"], version=dataset["version"], storage_options=options or None
        )
        for dataset in document["datasets"]
    }
    frames = {name: table.filter(pl.col("data_interval") == interval) for name, table in tables.items()}
    answer = pl.SQLContext(frames).execute(QUERY).collect()
    print_table(QUESTION, answer.columns, answer.rows())


def _wait(process: Process, name: str) -> None:
    code = process.popen.wait()
    if code:
        raise RuntimeError(f"{name} failed; the end of {process.log}:\n{process.tail(40)}")


def _say(text: str) -> None:
    console.print(f"[cyan]>[/] {text}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
