"""cohortflow lake: the object storage."""

from __future__ import annotations

from typing import Annotated

import typer

from cohortflow.cli.console import stdout
from cohortflow.errors import ConfigurationError
from cohortflow.model import EnvDeployment
from cohortflow.workflow.run import LAKE_VARIABLE

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
