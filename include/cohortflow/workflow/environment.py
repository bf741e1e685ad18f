"""Environments: where zones are, which key is used, how strict redaction must be."""

from __future__ import annotations

import os

from cohortflow.errors import UnknownEnvironmentError
from cohortflow.model import Catalog
from cohortflow.redaction.policy import Standard
from cohortflow.workflow.document import Document, StrictModel, nearest

__all__ = ["ENVIRONMENT_VARIABLE", "Environment", "Zones", "load_environment", "name_environment"]

ENVIRONMENT_VARIABLE = "COHORTFLOW_ENVIRONMENT"
"""The variable that says which environment a deployment is."""


class Zones(StrictModel):
    """URI of each zone; ``{lake}`` stands for the variable ``cohortflow_lake``."""

    raw: str
    work: str
    datasets: str


class Environment(StrictModel):
    """One entry of the catalog's environments.

    Attributes:
        environment: Its name.
        description: What it is for.
        zones: Where data are kept.
        key_connection: Connection whose password is the project key.
        redaction: Policy used where the study names none.
        weakest_redaction: Standard that every policy used here must at least meet.
        extract_pool: Airflow pool of the extract tasks; ``{connection}`` stands for the study's
            connection, for a pool per source.
    """

    environment: str
    description: str
    zones: Zones
    key_connection: str
    redaction: str
    weakest_redaction: Standard
    extract_pool: str = "cohortflow_exports"


def name_environment() -> str:
    """Return the name of this deployment's environment; ``dev`` where none is set."""
    return os.environ.get(ENVIRONMENT_VARIABLE) or "dev"


def load_environment(name: str, catalog: Catalog) -> Environment:
    """Read an environment.

    Raises:
        UnknownEnvironmentError: The catalog has none of this name.
        StudyError: Its file is wrong.
    """
    known = catalog.names("environments")
    if name not in known:
        raise UnknownEnvironmentError(
            f"Unknown environment '{name}'.",
            place=ENVIRONMENT_VARIABLE,
            remedy=nearest(name, known, "environment"),
        )
    return Document.read(catalog.path("environments", name)).validate(Environment)
