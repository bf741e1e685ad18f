"""cohortflow audit: what an outside compliance product is told, and whether it has been."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cohortflow.cli.console import print_json, print_table, stdout
from cohortflow.errors import DeliveryError
from cohortflow.model import EnvDeployment
from cohortflow.workflow.audit import deliver_events, open_outbox
from cohortflow.workflow.environment import Environment, load_environment, name_environment
from cohortflow.workflow.study import Project

__all__ = ["app"]

app = typer.Typer(help="Audit events of runs: list them, deliver those that wait.", no_args_is_help=True)

EnvironmentOption = Annotated[
    str, typer.Option("--env", help="Environment; COHORTFLOW_ENVIRONMENT or dev by default.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_events(
    study: Annotated[str, typer.Argument(help="Study, or a variant: study~digits; all where none.")] = "",
    env: EnvironmentOption = "",
    json: JsonOption = False,
) -> None:
    """List the events that were noted, oldest first."""
    outbox = open_outbox(_load(env), EnvDeployment())
    events = sorted((_parse(entry) for entry in outbox.entries(study)), key=lambda event: event["time"])
    if json:
        print_json([event["event"] for event in events])
        return
    rows = [
        tuple(event[name] for name in ("time", "activity", "study", "actor", "outcome")) for event in events
    ]
    print_table(f"{len(rows)} audit events", ("time", "activity", "study", "actor", "outcome"), rows)
    stdout.print(f"{outbox.count_pending():,} wait to be delivered")


@app.command()
def deliver(env: EnvironmentOption = "", json: JsonOption = False) -> None:
    """Deliver the events that wait; exit code 1 if some are left."""
    environment = _load(env)
    delivered = deliver_events(environment, EnvDeployment())
    if json:
        print_json({"delivered": delivered.delivered, "waiting": delivered.waiting})
    elif environment.audit.webhook is None:
        stdout.print(f"'{environment.environment}' names no webhook: events are kept in its audit zone alone")
    else:
        stdout.print(f"{delivered.delivered:,} delivered, {delivered.waiting:,} wait")
    if delivered.waiting:
        raise DeliveryError(
            f"{delivered.waiting:,} audit events stay in the outbox.",
            place=environment.audit.webhook or "",
            remedy=delivered.reason,
        )


def _load(env: str) -> Environment:
    return load_environment(env or name_environment(), Project.default().catalog)


def _parse(content: bytes) -> dict[str, Any]:
    """Return what the list shows of an event, in either format."""
    event = json.loads(content)
    if event.get("resourceType") == "AuditEvent":
        return {
            "event": event,
            "time": event["recorded"],
            "activity": event["subtype"][0]["code"],
            "study": event["entity"][0]["name"],
            "actor": event["agent"][0]["who"]["display"],
            "outcome": "success" if event["outcome"] == "0" else "failure",
        }
    return {
        "event": event,
        "time": _iso(event["time"]),
        "activity": event["activity_name"],
        "study": event["unmapped"]["study"],
        "actor": event["actor"]["user"]["name"],
        "outcome": "success" if event["status_id"] == 1 else "failure",
    }


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
