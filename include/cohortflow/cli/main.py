"""The cohortflow command."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer
from rich.markup import escape

from cohortflow import __version__
from cohortflow.cli.console import stderr
from cohortflow.errors import CohortflowError

__all__ = ["app", "make_cli", "run"]

_COMMANDS = (
    "study",
    "audit",
    "sandbox",
    "lake",
    "jwks",
    "redact",
    "registry",
    "source",
    "schema",
    "view",
    "terminology",
    "patterns",
    "synth",
)
"""Modules of this package, each with a Typer app or a function of its name."""

_GARBAGE_THRESHOLD = 50_000


def _print_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


def _main(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Research datasets from hospital systems."""
    del version  # its callback has answered


def make_cli(arguments: Sequence[str] = ()) -> typer.Typer:
    """Return the command; where the arguments name a sub-command, with that alone: others load slowly."""
    cli = typer.Typer(
        help="Research datasets from hospital systems.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    cli.callback()(_main)
    named = arguments[0] if arguments else ""
    for name in [named] if named in _COMMANDS else _COMMANDS:
        module = import_module(f"cohortflow.cli.{name}")
        if hasattr(module, "app"):
            cli.add_typer(module.app, name=name)
        else:
            cli.command(name)(getattr(module, name))
    return cli


def app() -> None:
    """Run the command; errors raised on purpose become a message and an exit code."""
    # What modules make while they load is there to stay: searching it for garbage is a tenth of the start.
    gc.set_threshold(_GARBAGE_THRESHOLD)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command with arguments; return 0 (ok), 1 (failed) or 2 (bad input)."""
    try:
        result = make_cli(arguments)(arguments, standalone_mode=False)
    except CohortflowError as error:
        stderr.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return error.exit_code
    except typer.Exit as error:
        return int(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        stderr.print("[bold red]interrupted[/]")
        return 130
    except Exception as error:
        # Typer's own usage errors know how to show themselves.
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        return 2
    return int(result or 0)
