"""cohortflow source: look at hospital systems."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from cohortflow.cli.console import print_json, print_table, stdout
from cohortflow.errors import StudyError
from cohortflow.model import EnvDeployment

if TYPE_CHECKING:
    from cohortflow.connectors.probe import Advice, ProbeReport
    from cohortflow.connectors.profiles import Level

__all__ = ["app"]

app = typer.Typer(help="Look at hospital systems.", no_args_is_help=True)

_MOST_PARAMETERS = 12


@app.callback()
def _source() -> None:
    """Look at hospital systems."""


@app.command()
def probe(
    connection: Annotated[str, typer.Argument(help="Airflow connection of type fhir, epic or cerner.")],
    study: Annotated[str, typer.Option(help="Say what this study would lack.")] = "",
    env: Annotated[
        str, typer.Option("--env", help="Environment; COHORTFLOW_ENVIRONMENT or dev by default.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Ask a FHIR server what it can do and say which way of extracting fits; exit code 1 where none does."""
    types, level = _needs_of(study, env, connection) if study else ((), None)
    report, advice = asyncio.run(_probe(connection, types, level))
    if json:
        print_json({**report.to_dict(), "advice": dataclasses.asdict(advice), "study_types": types})
    else:
        _show(report, advice, types)
    return 0 if advice.mode else 1


async def _probe(connection: str, types: tuple[str, ...], level: Level | None) -> tuple[ProbeReport, Advice]:
    from cohortflow.connectors import FhirSource, RetryPolicy, advise, connect, probe_source

    source = FhirSource.from_connection(EnvDeployment().connection(connection))
    async with connect(source, policy=RetryPolicy(attempts=2)) as client:
        report = await probe_source(client)
        return report, advise(report, client, types, level)


def _needs_of(study: str, env: str, connection: str) -> tuple[tuple[str, ...], Level]:
    """Return the resource types and the export level of a study."""
    from cohortflow.workflow.datasets import views_to_read
    from cohortflow.workflow.environment import name_environment
    from cohortflow.workflow.plan import compile_plan
    from cohortflow.workflow.study import Project

    project = Project.default()
    plan = compile_plan(project.load_study(study), env or name_environment(), project)
    spec = plan.spec.source
    if spec.connection != connection:
        raise StudyError(
            f"The study reads from '{spec.connection}', not from '{connection}'.",
            place=study,
            remedy="Probe the study's own connection, or leave --study out.",
        )
    views = (plan.datasets[name].view for name in views_to_read(plan.spec))
    resources = {view.resource for view in views if view is not None} | set(spec.resource_types)
    return tuple(sorted(resources)), spec.level


def _show(report: ProbeReport, advice: Advice, types: tuple[str, ...]) -> None:
    exports = ", ".join(report.export_levels) or "none"
    if report.export_levels and not report.states_exports:
        exports += " (not stated; by the profile)"
    methods = ", ".join((*report.auth_methods, *report.signing_algorithms))
    rows = [
        ("FHIR version", report.fhir_version or "not stated"),
        ("software", report.software or "not stated"),
        ("profile", report.profile),
        ("bulk export", exports),
        ("token endpoint", "stated" if report.token_url else "not stated"),
        ("client authentication", methods or "not stated"),
        ("scopes", _shorten(report.scopes) or "not stated"),
        *(("not answered", fault) for fault in report.faults),
    ]
    print_table(report.host, ["what", "value"], rows)
    wanted = [item for item in report.types if not types or item.type in types]
    print_table(
        "Resource types",
        ["type", "interactions", "search parameters"],
        [(item.type, ", ".join(item.interactions), _shorten(item.parameters)) for item in wanted],
    )
    if advice.missing:
        print_table("What the study would lack", ["type", "why"], sorted(advice.missing.items()))
    colour = "green" if advice.mode else "red"
    stdout.print(f"[{colour}]{advice.mode or 'no way fits'}[/]: {escape(advice.why)}")


def _shorten(values: tuple[str, ...]) -> str:
    shown = ", ".join(values[:_MOST_PARAMETERS])
    return f"{shown}, and {len(values) - _MOST_PARAMETERS} more" if len(values) > _MOST_PARAMETERS else shown
