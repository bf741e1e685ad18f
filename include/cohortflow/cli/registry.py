"""cohortflow registry: exports, watermarks, and who exports what now."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cohortflow.cli.console import print_json, print_table, stdout
from cohortflow.errors import InputError, RegistryError
from cohortflow.model import EnvDeployment

if TYPE_CHECKING:
    from cohortflow.registry import Registry

__all__ = ["app"]

app = typer.Typer(
    help="What runs remember of sources: exports, watermarks, locks. The database is that of the connection "
    "cohortflow_registry, or a file of this machine.",
    no_args_is_help=True,
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def migrate(json: JsonOption = False) -> None:
    """Make the registry, or bring it up to date; runs do so on their own when they begin."""
    from cohortflow.registry import locate_registry, migrate_registry

    before, after = migrate_registry(locate_registry(EnvDeployment()))
    if json:
        print_json({"before": before, "after": after})
    elif before == after:
        stdout.print(f"The registry is up to date: revision {after}.")
    else:
        stdout.print(f"The registry was migrated from {before or 'nothing'} to revision {after}.")


@app.command("list")
def list_exports(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most rows to show.")] = 50,
    watermarks: Annotated[
        bool, typer.Option("--watermarks", help="Only the latest complete export of each request.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List exports, the one that changed last first."""
    registry = _open()
    found = registry.watermarks() if watermarks else registry.exports(limit=limit)
    rows = [{"id": export.id, **dataclasses.asdict(export)} for export in found[:limit]]
    if json:
        print_json(rows)
        return
    print_table(
        "Watermarks" if watermarks else "Exports",
        ["id", "connection", "level", "kind", "interval until", "phase", "transaction time", "resources"],
        [
            (
                export.id[:12],
                export.conn_id,
                _target(export.subject.level, export.subject.group_digest),
                export.kind,
                _moment(export.interval_end),
                export.phase,
                export.transaction_time,
                export.resources,
            )
            for export in found[:limit]
        ],
    )


@app.command()
def show(
    export: Annotated[str, typer.Argument(help="An export's id, or the beginning of it.")],
    json: JsonOption = False,
) -> None:
    """Show all that is known of one export."""
    record = _open().export(export)
    if record is None:
        raise InputError(
            f"No export, or more than one, has an id that begins with '{export}'.",
            remedy="List them with 'cohortflow registry list'.",
        )
    values: dict[str, Any] = {"id": record.id, **dataclasses.asdict(record)}
    if json:
        print_json(values)
        return
    values |= values.pop("subject")
    print_table(
        "Export",
        ["", ""],
        [
            (name.replace("_", " "), _moment(value) if isinstance(value, datetime) else str(value or ""))
            for name, value in values.items()
        ],
    )


@app.command()
def locks(json: JsonOption = False) -> None:
    """Show who exports what now, and which servers take no export before when."""
    registry = _open()
    held, postponed, now = registry.leases(), registry.endpoints(), registry.now()
    postponed = tuple(endpoint for endpoint in postponed if endpoint.not_before > now)
    if json:
        print_json(
            {
                "locks": [
                    # The token is what its holder proves himself by.
                    {name: value for name, value in dataclasses.asdict(lease).items() if name != "token"}
                    for lease in held
                ],
                "windows": [dataclasses.asdict(endpoint) for endpoint in postponed],
            }
        )
        return
    print_table(
        "Locks",
        ["lock", "server", "level", "study", "run", "since", "last sign of life", "state"],
        [
            (
                lease.subject[:12],
                lease.server,
                _target(lease.level, lease.group_digest),
                lease.study,
                lease.run_id,
                _moment(lease.acquired_at),
                _moment(lease.renewed_at),
                "expired" if lease.expires_at <= now else f"until {_moment(lease.expires_at)}",
            )
            for lease in held
        ],
    )
    print_table(
        "No export before",
        ["lock", "server", "level", "not before", "why"],
        [
            (
                endpoint.subject[:12],
                endpoint.server,
                _target(endpoint.level, endpoint.group_digest),
                _moment(endpoint.not_before),
                endpoint.reason,
            )
            for endpoint in postponed
        ],
    )


@app.command()
def release(
    lock: Annotated[str, typer.Argument(help="The lock, as 'cohortflow registry locks' shows it.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also where its holder has given a sign of life lately.")
    ] = False,
) -> None:
    """Break a lock whose holder is gone, and let an export begin before the server's window ends.

    A holder who is alive after all notices, and stops.
    """
    registry = _open()
    now = registry.now()
    found = {lease.subject: lease for lease in registry.leases() if lease.subject.startswith(lock)}
    waits = {endpoint.subject for endpoint in registry.endpoints() if endpoint.subject.startswith(lock)}
    subjects = found.keys() | waits
    if len(subjects) != 1:
        raise InputError(
            f"{'No' if not subjects else 'More than one'} lock begins with '{lock}'.",
            remedy="List them with 'cohortflow registry locks'.",
        )
    (subject,) = subjects
    lease = found.get(subject)
    if lease is not None and lease.expires_at > now and not lease.parked and not force:
        raise RegistryError(
            f"The run {lease.run_id} of '{lease.study}' holds this lock until {_moment(lease.expires_at)} "
            f"and gave a sign of life at {_moment(lease.renewed_at)}.",
            remedy="Wait until then, or add --force if you know that it is gone.",
        )
    registry.release(subject)
    registry.resume(subject)
    stdout.print(f"Released {subject[:12]}.")


def _open() -> Registry:
    from cohortflow.registry import open_registry

    return open_registry(EnvDeployment())


def _target(level: str, group_digest: str) -> str:
    return f"{level} {group_digest[:8]}".strip() or "any"


def _moment(value: datetime | None) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if value else ""
