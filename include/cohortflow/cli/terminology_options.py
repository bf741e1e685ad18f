"""Arguments and options that the commands of cohortflow terminology share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cohortflow.model import EnvDeployment
from cohortflow.workflow.terminology import open_terminology

if TYPE_CHECKING:
    from cohortflow.lake import TerminologyStore

__all__ = ["JsonOption", "StoreOption", "SystemArgument", "VersionOption", "open_store_option"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StoreOption = Annotated[
    str, typer.Option("--store", help="s3://bucket/prefix or a folder; by default {lake}/terminology.")
]
SystemArgument = Annotated[str, typer.Argument(help="Code system: its URI, OID or name, such as ICD-10-CM.")]
VersionOption = Annotated[str, typer.Option("--version", help="Version; the newest by default.")]


def open_store_option(store: str) -> TerminologyStore:
    """Open the terminologies that the option ``--store`` names, or the deployment's."""
    return open_terminology(EnvDeployment(), store)
