"""Runs studies' DAGs as ``airflow dags test`` does, one run after another; each may break at one place.

``python dag_runs_worker.py plan.json outcome.json``: the plan is a list of runs with ``name``, ``study``,
``day`` and ``fault``; the outcome has the tasks' states by name. All else that is printed is Airflow's log.
"""

import contextlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import polars as pl
from airflow.configuration import conf

from cohortflow.workflow.steps import land as land_step
from cohortflow.workflow.steps import redact as redact_step


def value_of(frame: pl.LazyFrame) -> pl.Expr:
    """A patient's family name as a constant, which is what faults quote."""
    return pl.lit(frame.select("family_name").drop_nulls().head(1).collect().item())


def cast_names(frame: pl.LazyFrame, redacted: pl.LazyFrame) -> pl.LazyFrame:
    """Polars quotes the cell that it cannot cast."""
    return redacted.with_columns(value_of(frame).cast(pl.Date).alias("language_code"))


def leave_a_name(frame: pl.LazyFrame, redacted: pl.LazyFrame) -> pl.LazyFrame:
    """The leak gate finds it."""
    return redacted.with_columns(value_of(frame).alias("language_code"))


def break_a_code(frame: pl.LazyFrame, redacted: pl.LazyFrame) -> pl.LazyFrame:
    """Great Expectations lists values that are not in a value set."""
    return redacted.with_columns(value_of(frame).alias("gender"))


def raise_with_rows(frame: pl.LazyFrame, redacted: pl.LazyFrame) -> pl.LazyFrame:
    """An error with a cause and a note, each with rows in its text."""
    rows = frame.collect().write_json()
    error = ValueError(rows)
    error.add_note(rows)
    raise error from KeyError(rows)


FAULTS = {"cast": cast_names, "leak": leave_a_name, "code": break_a_code, "rows": raise_with_rows}


@contextlib.contextmanager
def broken(fault: str | None) -> Iterator[None]:
    """Let redaction, or landing, fail with data at hand."""
    if fault == "land":
        honest_read = land_step.read_published

        def read(run, view):
            frame = honest_read(run, view)
            rows = (run.raw.read(path) for path in run.raw.list() if "/Patient/" in path)
            text = next(rows).decode()

            def fail(batch):
                raise ValueError(text)

            return frame.map_batches(fail, schema=frame.collect_schema(), streamable=True)

        with patch.object(land_step, "read_published", read):
            yield
        return
    honest = redact_step.redact

    def redact(frame, plan, *arguments, **options):
        redacted = honest(frame, plan, *arguments, **options)
        return FAULTS[fault](frame, redacted) if fault in FAULTS and plan.view == "patient" else redacted

    with patch.object(redact_step, "redact", redact):
        yield


def main() -> None:
    """Carry out the plan."""
    runs = json.loads(Path(sys.argv[1]).read_text())
    file = Path(conf.get("core", "dags_folder")) / "research_workflows.py"
    spec = importlib.util.spec_from_file_location("research_workflows", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dags = {dag.dag_id: dag for dag in module.dags}
    for task in (task for dag in dags.values() for task in dag.tasks):
        task.retries = 0  # a fault stays
    outcomes = {}
    for run in runs:
        day = datetime.fromisoformat(run["day"]).replace(tzinfo=UTC)
        sys.stdout.write(f"=== {run['name']}\n")
        sys.stdout.flush()
        with broken(run["fault"]):
            done = dags[run["study"]].test(run_after=day, logical_date=day)
        states = {task.task_id: str(task.state) for task in done.get_task_instances()}
        outcomes[run["name"]] = {"state": str(done.state), "tasks": states}
    Path(sys.argv[2]).write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main()
