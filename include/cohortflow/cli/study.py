"""cohortflow study: check, look at and run studies without Airflow."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.markup import escape

from cohortflow.cli.console import BarProgress, print_json, print_table, stderr, stdout
from cohortflow.cli.summary import print_release
from cohortflow.errors import CohortflowError, StudyError
from cohortflow.model import DataInterval, EnvDeployment
from cohortflow.workflow.audit import name_user
from cohortflow.workflow.environment import name_environment
from cohortflow.workflow.graph import draw_mermaid
from cohortflow.workflow.plan import Plan, Step, compile_plan
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.runner import run_plan
from cohortflow.workflow.study import Project

__all__ = ["app"]

app = typer.Typer(help="Check, look at and run studies without Airflow.", no_args_is_help=True)

StudyArgument = Annotated[str, typer.Argument(help="Name of a study, or its file.")]
EnvironmentOption = Annotated[
    str, typer.Option("--env", help="Environment; COHORTFLOW_ENVIRONMENT or dev by default.")
]
ParameterOption = Annotated[
    list[str] | None, typer.Option("--param", "-p", help="Parameter for this run, as name=value.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def lint(
    studies: Annotated[list[str] | None, typer.Argument(help="Studies; all where none is named.")] = None,
    env: EnvironmentOption = "",
) -> int:
    """Compile studies and say what is wrong with them."""
    project = Project.default()
    names = studies or [path.stem for path in project.study_files()]
    faults = 0
    for name in names:
        try:
            _compile(name, env, None)
        except CohortflowError as error:
            faults += 1
            stderr.print(f"[bold red]{escape(name)}[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        else:
            stdout.print(f"[green]{name}[/] ok")
    return 2 if faults else 0


@app.command()
def plan(
    study: StudyArgument, env: EnvironmentOption = "", param: ParameterOption = None, json: JsonOption = False
) -> None:
    """Show the steps of a study and what happens to every column."""
    compiled = _compile(study, env, param)
    columns = {name: compiled.datasets[name].redaction.explain() for name in compiled.published}
    if json:
        steps = [{"id": step.id, "needs": step.needs} for step in compiled.steps]
        document = {"study": compiled.name, "parameters": compiled.parameters, "steps": steps}
        document["exclusions"] = compiled.exclusions.describe()
        print_json({**document, "columns": columns, "risk": compiled.risk.describe()})
        return
    print_table(
        f"{compiled.title} in {compiled.environment.environment}",
        ["step", "after"],
        [(step.id, ", ".join(step.needs)) for step in compiled.steps],
    )
    for name, rows in columns.items():
        print_table(
            f"{name} under '{compiled.policy.name}'",
            ["column", "published as", "class", "action", "why"],
            [(row["column"], row["output"], row["class"], row["action"], row["reason"]) for row in rows],
        )
    risk = compiled.risk.describe()
    demanded = ", ".join(f"{name} = {value}" for name, value in risk["demand"].items())
    print_table(
        f"What others are taken to know of a subject; {demanded}",
        ["column", "compared by", "may be suppressed"],
        [
            (row["column"], row["compared"], "yes" if row["suppressible"] else "no")
            for row in risk["quasi_identifiers"]
        ],
    )
    if excluded := compiled.exclusions.explain():
        print_table("Left out", ["who or what", "action"], excluded)


@app.command()
def graph(study: StudyArgument, env: EnvironmentOption = "") -> None:
    """Draw a study's plan as a Mermaid flowchart."""
    typer.echo(draw_mermaid(_compile(study, env, None)), nl=False)


@app.command()
def run(
    study: StudyArgument,
    env: EnvironmentOption = "",
    day: Annotated[
        datetime | None,
        typer.Option(
            "--date", formats=["%Y-%m-%d"], help="UTC day that the run covers; yesterday by default."
        ),
    ] = None,
    param: ParameterOption = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Export again even where the day's export is complete.")
    ] = False,
    no_wait: Annotated[
        bool,
        typer.Option(
            "--no-wait", help="Fail where the export has to wait for another run or the server's window."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Run a study's plan without Airflow; connections come from AIRFLOW_CONN_* variables."""
    compiled = _compile(study, env, param)
    covered: date = day.date() if day else datetime.now(UTC).date() - timedelta(days=1)
    if covered > datetime.now(UTC).date():
        raise StudyError(f"{covered} is in the future.", place="--date", remedy="Name a day that has begun.")
    with BarProgress() as progress:
        work = Run(
            plan=compiled,
            actor=name_user(),
            interval=DataInterval.of_day(covered),
            run_id=f"command line {uuid.uuid4()}",
            deployment=EnvDeployment(),
            catalog=Project.default().catalog,
            progress=progress,
            fresh_export=fresh,
            wait=not no_wait,
        )
        total = len(compiled.steps)
        finished = 0

        def show(step: Step, result: StepResult | None) -> None:
            nonlocal finished
            if result is not None:
                finished += 1
            progress.update("study", finished, total, step.id)

        results = run_plan(work, on_step=show)
    from cohortflow.workflow.steps.release import read_release

    document = read_release(work.datasets, work.interval.key)
    if json:
        print_json(
            {"results": {step: result.to_dict() for step, result in results.items()}, "release": document}
        )
    else:
        print_release(document)


def _compile(study: str, env: str, parameters: list[str] | None) -> Plan:
    project = Project.default()
    overrides = dict(_parse_parameter(text) for text in parameters or [])
    return compile_plan(
        project.load_study(Path(study) if study.endswith(".yaml") else study),
        env or name_environment(),
        project,
        overrides,
    )


def _parse_parameter(text: str) -> tuple[str, Any]:
    """Read ``name=value``; the value is YAML, so that numbers are numbers."""
    name, separator, value = text.partition("=")
    if not separator:
        raise StudyError(f"'{text}' is not name=value.", place="--param", remedy="Write -p min_age=40.")
    try:
        return name.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        # What is no YAML, such as the unit %, is plain text.
        return name.strip(), value
