"""cohortflow sandbox: a FHIR server that plays a hospital."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    help="A FHIR server that plays a hospital, for development and tests.", no_args_is_help=True
)


@app.callback()
def _sandbox() -> None:
    """A FHIR server that plays a hospital, for development and tests."""


@app.command()
def serve(  # noqa: PLR0913, PLR0917 - each is an option of the command
    data: Annotated[
        Path, typer.Option(help="Folder of <Type>.ndjson or <Type>.ndjson.gz files.", exists=True)
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for a free one.")] = 8090,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    client: Annotated[
        list[str] | None, typer.Option(help="Client as ID=JWKS, where JWKS is a file or a URL.")
    ] = None,
    open_access: Annotated[bool, typer.Option("--open", help="Ask for no authorization.")] = False,
    export_seconds: Annotated[float, typer.Option(min=0, help="Shortest time that an export takes.")] = 1.0,
    persona: Annotated[
        str, typer.Option(help="Whose server it plays: generic, epic, cerner, soarian or hdr.")
    ] = "generic",
    bulk_version: Annotated[
        str | None, typer.Option(help="Bulk Data 2.0, 3.0 or 4.0 (ballot), if not the persona's own.")
    ] = None,
    kickoff_window: Annotated[
        float | None,
        typer.Option(
            min=0, help="Seconds for which a Group cannot be exported again, if not the persona's own."
        ),
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written with the base URL once it listens.")
    ] = None,
) -> None:
    """Serve synthetic patients over FHIR, with SMART Backend Services and Bulk Data export."""
    from cohortflow.sandbox import SandboxConfig, parse_client
    from cohortflow.sandbox import serve as serve_sandbox
    from cohortflow.sandbox.personas import persona_variant

    config = SandboxConfig(
        data=data,
        host=host,
        port=port,
        clients=dict(parse_client(text) for text in client or ()),
        open=open_access,
        export_seconds=export_seconds,
        persona=persona_variant(persona, bulk_version=bulk_version, kickoff_window=kickoff_window),
    )
    serve_sandbox(config, ready_file=ready_file, announce=partial(print, flush=True))
