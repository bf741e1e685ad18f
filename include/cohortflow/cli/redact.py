"""cohortflow redact: what happens to which column and why, and who a pseudonym is."""

from __future__ import annotations

import csv
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from cohortflow.cli.console import print_json, print_table, stderr, stdout
from cohortflow.errors import StudyError
from cohortflow.fhir.elements import is_type, list_elements, suggest_type
from cohortflow.model import DataInterval, EnvDeployment
from cohortflow.redaction.phi import find_rule
from cohortflow.workflow.audit import name_user
from cohortflow.workflow.environment import name_environment
from cohortflow.workflow.plan import Plan, compile_plan
from cohortflow.workflow.reidentify import find_ids, read_pseudonyms
from cohortflow.workflow.run import Run
from cohortflow.workflow.study import Project

__all__ = ["app"]

app = typer.Typer(help="Show what is redacted and why; re-identify on request.", no_args_is_help=True)

StudyArgument = Annotated[str, typer.Argument(help="Name of a study, or its file.")]
EnvironmentOption = Annotated[
    str, typer.Option("--env", help="Environment; COHORTFLOW_ENVIRONMENT or dev by default.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def explain(study: StudyArgument, env: EnvironmentOption = "", json: JsonOption = False) -> None:
    """Show for every published column what it reads, its class and source, what happens to it and why."""
    plan = _compile(study, env)
    policy = plan.policy
    columns = {name: plan.datasets[name].redaction.explain() for name in plan.published}
    if json:
        overrides = {name: plan.datasets[name].redaction.overrides for name in plan.published}
        document: dict[str, Any] = {
            "study": plan.name,
            "environment": plan.environment.environment,
            "policy": policy.name,
            "standard": policy.standard,
            "guarantee": policy.guarantee,
            "snapshots": policy.snapshots,
            "approval": None if plan.approval is None else plan.approval.model_dump(mode="json"),
            "columns": columns,
            "overrides": {name: found for name, found in overrides.items() if found},
        }
        print_json(document)
        return
    approved = f", approval {plan.approval.number} until {plan.approval.until}" if plan.approval else ""
    where = f"({policy.name}, {policy.standard}) in {plan.environment.environment}{approved}"
    stdout.print(f"[bold]{policy.title}[/] {where}", highlight=False)
    stdout.print(policy.guarantee, highlight=False)
    for name, rows in columns.items():
        print_table(
            name,
            ["column", "paths", "class", "source", "action", "reason"],
            [
                (
                    row["column"],
                    row["paths"],
                    row["class"],
                    row["source"].replace("45 CFR 164.514", "") or row["because"],
                    row["action"],
                    row["reason"],
                )
                for row in rows
            ],
        )


@app.command()
def classes(
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="A resource or data type, such as Patient.")],
    json: JsonOption = False,
) -> None:
    """Show the class of every element of a FHIR type, with its source in the regulation."""
    if not is_type(kind):
        near = suggest_type(kind)
        raise StudyError(
            f"'{kind}' is no type of FHIR R4.",
            place="TYPE",
            remedy=f"Did you mean '{near}'?" if near else "Name one such as Patient.",
        )
    rows = []
    for element in list_elements(kind):
        for value in element.types:
            path = f"{kind}.{element.key(value)}"
            rule = find_rule(path)
            row = {"path": path, "type": value, "class": rule.phi.name}
            rows.append(row | {"source": rule.source, "because": rule.note})
    if json:
        print_json(rows)
        return
    print_table(kind, ["path", "type", "class", "source", "because"], [tuple(row.values()) for row in rows])


@app.command()
def reidentify(
    study: StudyArgument,
    pseudonyms: Annotated[Path, typer.Option(help="File with one pseudonym a line.")],
    reason: Annotated[str, typer.Option(help="Why; goes into the audit record, so name no patient.")],
    approved_by: Annotated[str, typer.Option(help="Who approved it; goes into the audit record.")],
    out: Annotated[Path, typer.Option(help="File to write, readable for you alone; must not exist.")],
    kind: Annotated[str, typer.Option("--type", help="Resource type of the ids.")] = "Patient",
    env: EnvironmentOption = "",
) -> None:
    """Write which ids of the raw zone pseudonyms stand for; needs the project key. No id is printed."""
    plan = _compile(study, env)
    wanted = read_pseudonyms(pseudonyms)
    run = Run(
        plan=plan,
        interval=DataInterval.of_day(datetime.now(UTC).date() - timedelta(days=1)),
        run_id="re-identification",
        deployment=EnvDeployment(),
        catalog=Project.default().catalog,
        actor=name_user(),
    )
    try:
        # Before anything is looked up: what is found must have a place that nobody else can read.
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise StudyError(
            f"Cannot be made ({type(error).__name__}).",
            place=str(out),
            remedy="Name a file that is not there.",
        ) from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            found = find_ids(run, wanted, resource=kind, reason=reason, approved_by=approved_by)
            writer = csv.writer(file)
            writer.writerow(found.columns)
            writer.writerows(found.iter_rows())
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    stderr.print(
        f"{found['pseudonym'].n_unique()} of {len(wanted)} found, in {out}", highlight=False, soft_wrap=True
    )


def _compile(study: str, env: str) -> Plan:
    project = Project.default()
    return compile_plan(project.load_study(study), env or name_environment(), project)
