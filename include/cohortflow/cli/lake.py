"""cohortflow lake: the object storage."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from cohortflow.audit import Activity
from cohortflow.cli.console import print_json, print_table, stdout
from cohortflow.errors import ConfigurationError, InputError
from cohortflow.model import EnvDeployment
from cohortflow.workflow.audit import Auditor, name_user
from cohortflow.workflow.environment import load_environment, name_environment
from cohortflow.workflow.run import LAKE_VARIABLE, open_zone
from cohortflow.workflow.study import Project

__all__ = ["app"]

app = typer.Typer(help="The object storage.", no_args_is_help=True)


@app.callback()
def _lake() -> None:
    """The object storage."""


@app.command()
def prepare(
    uri: Annotated[
        str, typer.Argument(help="s3://bucket or a folder; the variable's where none is given.")
    ] = "",
) -> None:
    """Create the lake's bucket where it is missing and check that the endpoint commits atomically."""
    from cohortflow.lake import prepare_lake

    deployment = EnvDeployment()
    uri = uri or deployment.variable(LAKE_VARIABLE) or ""
    if not uri:
        raise ConfigurationError(
            "No lake is given.", remedy=f"Name a URI, or set AIRFLOW_VAR_{LAKE_VARIABLE.upper()}."
        )
    prepare_lake(uri, deployment)
    stdout.print(f"[green]{uri} is ready[/]: it exists and honours conditional writes")


@app.command()
def vacuum(
    study: Annotated[str, typer.Argument(help="Name of a study, or of a variant: study~digits.")],
    env: Annotated[
        str, typer.Option("--env", help="Environment; COHORTFLOW_ENVIRONMENT or dev by default.")
    ] = "",
    retention_days: Annotated[
        int,
        typer.Option(
            min=0, help="Keep what was replaced more recently. Below 7, stop the study's runs first."
        ),
    ] = 7,
    apply: Annotated[
        bool, typer.Option("--apply", help="Remove the files; without it, only count them.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Remove the files of earlier table versions for good; those that release documents name are kept.

    Withdrawn rows of deleted patients stay readable in earlier versions until this is done.
    """
    from cohortflow.lake import vacuum_tables
    from cohortflow.workflow.steps.release import released_versions

    environment = load_environment(env or name_environment(), Project.default().catalog)
    deployment = EnvDeployment()
    datasets = open_zone(f"{environment.zones.datasets}/{study}", deployment)
    counts = vacuum_tables(
        datasets, timedelta(days=retention_days), released_versions(datasets), dry_run=not apply
    )
    if not counts:
        raise InputError(
            f"'{study}' has published no datasets here.",
            place=datasets.uri,
            remedy="Check its name, and the environment (--env).",
        )
    if apply:
        facts = {"files": counts, "retention_days": retention_days}
        Auditor(environment, deployment, name_user()).note(Activity.VERSIONS_REMOVED, facts, study=study)
    if json:
        print_json({"study": study, "applied": apply, "files": counts})
        return
    title = "Removed" if apply else "Would be removed; add --apply"
    print_table(title, ("dataset", "files"), list(counts.items()))
