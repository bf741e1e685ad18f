"""cohortflow schema: JSON Schemas that let editors complete studies and templates."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from cohortflow.cli.console import stdout
from cohortflow.workflow.schema import study_schema, template_schema
from cohortflow.workflow.study import Project

__all__ = ["app", "schema_files"]

app = typer.Typer(help="JSON Schemas of studies and templates.", no_args_is_help=True)


@app.callback()
def _schema() -> None:
    """JSON Schemas of studies and templates."""


def schema_files(project: Project) -> dict[Path, str]:
    """Return each schema file with the content that it should have."""
    schemas = {
        project.root / "dags" / "studies" / "study.schema.json": study_schema(project),
        project.templates / "template.schema.json": template_schema(),
    }
    return {path: json.dumps(schema, indent=2) + "\n" for path, schema in schemas.items()}


@app.command()
def write() -> None:
    """Write the schemas beside the files that they describe."""
    for path, content in schema_files(Project.default()).items():
        path.write_text(content, encoding="utf-8")
        stdout.print(f"wrote {path}")
