"""Environments: where zones are, which key is used, how strict redaction must be."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import Field

from cohortflow.errors import UnknownEnvironmentError
from cohortflow.model import Catalog
from cohortflow.redaction.standards import Standard
from cohortflow.workflow.document import Document, StrictModel, nearest
from cohortflow.workflow.exclusion_spec import ExclusionsSpec

__all__ = [
    "ENVIRONMENT_VARIABLE",
    "AuditSettings",
    "Environment",
    "Zones",
    "load_environment",
    "name_environment",
]

ENVIRONMENT_VARIABLE = "COHORTFLOW_ENVIRONMENT"
"""The variable that says which environment a deployment is."""


class Zones(StrictModel):
    """URI of each zone; ``{lake}`` stands for the variable ``cohortflow_lake``."""

    raw: str
    work: str
    datasets: str


class AuditSettings(StrictModel):
    """What becomes of audit events.

    Attributes:
        zone: URI of the log and the outbox; ``{lake}`` as in zones.
        format: ``fhir``: AuditEvent of FHIR R4; ``ocsf``: Datastore Activity of OCSF.
        webhook: Connection to deliver events to: its host the URL, its password the secret. ``None``:
            events are kept in the zone alone.
    """

    zone: str = "{lake}/audit"
    format: Literal["fhir", "ocsf"] = "fhir"
    webhook: str | None = None


class Environment(StrictModel):
    """One entry of the catalog's environments.

    Attributes:
        environment: Its name.
        description: What it is for.
        zones: Where data are kept.
        key_connection: Connection whose password is the project key.
        redaction: Policy used where the study names none.
        weakest_redaction: Standard that every policy used here must at least meet.
        weakest_approved: Standard that the policy of a study's approval must at least meet; the study may
            then use that policy here, and does where it names no other. ``None``: approvals change nothing.
        synthetic: Whether policies for synthetic sources may be used here.
        minimum_k: Least number of subjects who share their quasi-identifiers, whatever a study asks for;
            1 leaves it to the study.
        extract_pool: Airflow pool of the extract tasks; ``{connection}`` stands for the study's
            connection, for a pool per source.
        audit: What becomes of audit events.
        exclusions: Who and what every study leaves out at least.
    """

    environment: str
    description: str
    zones: Zones
    key_connection: str
    redaction: str
    weakest_redaction: Standard
    weakest_approved: Standard | None = None
    synthetic: bool = False
    minimum_k: Annotated[int, Field(ge=1, le=100_000)] = 1
    extract_pool: str = "cohortflow_exports"
    audit: AuditSettings = AuditSettings()
    exclusions: ExclusionsSpec = ExclusionsSpec()


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
