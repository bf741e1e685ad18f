"""Where a deployment keeps its terminologies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cohortflow.workflow.run import open_zone

if TYPE_CHECKING:
    from cohortflow.lake.terminology import TerminologyStore
    from cohortflow.model import Deployment

__all__ = ["TERMINOLOGY_ZONE", "open_terminology"]

TERMINOLOGY_ZONE = "{lake}/terminology"
"""Folder of the lake with the terminologies: the same in every environment, as they hold no patient data."""


def open_terminology(deployment: Deployment, uri: str = "") -> TerminologyStore:
    """Open the terminologies of a deployment.

    Args:
        deployment: Where the variable ``cohortflow_lake`` and the lake's connection are looked up.
        uri: Another place: ``s3://bucket/prefix`` or a folder.

    Raises:
        ConfigurationError: No place is given, and the variable is not set.
    """
    from cohortflow.lake.terminology import TerminologyStore

    return TerminologyStore(open_zone(uri or TERMINOLOGY_ZONE, deployment))
