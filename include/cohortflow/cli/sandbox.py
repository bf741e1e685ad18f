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
def serve(
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
    ready_file: Annotated[
        Path | None, typer.Option(help="Written with the base URL once it listens.")
    ] = None,
) -> None:
    """Serve synthetic patients over FHIR, with SMART Backend Services and Bulk Data export."""
    from cohortflow.sandbox import SandboxConfig, parse_client
    from cohortflow.sandbox import serve as serve_sandbox

    config = SandboxConfig(
        data=data,
        host=host,
        port=port,
        clients=dict(parse_client(text) for text in client or ()),
        open=open_access,
        export_seconds=export_seconds,
    )
    serve_sandbox(config, ready_file=ready_file, announce=partial(print, flush=True))
