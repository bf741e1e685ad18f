"""cohortflow terminology: code systems and maps, one version beside another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import typer

from cohortflow.cli.terminology_compare import diff, subsumes
from cohortflow.cli.terminology_coverage import coverage
from cohortflow.cli.terminology_releases import list_releases, load, lookup
from cohortflow.cli.terminology_suggest import accept, suggest
from cohortflow.cli.terminology_translate import expand, translate
from cohortflow.cli.terminology_units import units

__all__ = ["app"]

_COMMANDS: Mapping[str, Callable[..., None]] = {
    "load": load,
    "list": list_releases,
    "lookup": lookup,
    "translate": translate,
    "expand": expand,
    "subsumes": subsumes,
    "diff": diff,
    "coverage": coverage,
    "suggest": suggest,
    "accept": accept,
}
"""Every command by name, in the order in which the help lists them."""

app = typer.Typer(
    help="Code systems and maps, one version beside another, in the folder 'terminology' of the lake.",
    no_args_is_help=True,
)
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
app.add_typer(units, name="units")
