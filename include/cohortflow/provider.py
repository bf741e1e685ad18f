"""What Airflow is told of this package: see its entry point ``apache_airflow_provider``."""

from __future__ import annotations

from typing import Any

from cohortflow import __version__

__all__ = ["get_provider_info"]


def get_provider_info() -> dict[str, Any]:
    """Return the connection types; imports nothing of Airflow, as Airflow demands."""
    return {
        "package-name": "cohortflow",
        "name": "Cohortflow",
        "description": "Research datasets from hospital systems.",
        "versions": [__version__],
        "connection-types": [
            {
                "connection-type": "fhir",
                "hook-class-name": "cohortflow.airflow.hooks.FhirHook",
                "hook-name": "FHIR server",
            }
        ],
    }
