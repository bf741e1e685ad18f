"""The connection types ``fhir``, ``epic`` and ``cerner``: what is behind their test button in Airflow's UI.

Their forms are declared in ``cohortflow.provider``.
"""

from __future__ import annotations

import asyncio
from typing import Any

from airflow.sdk import BaseHook

from cohortflow.airflow.deployment import AirflowDeployment
from cohortflow.errors import CohortflowError, ExportRejectedError

__all__ = ["CernerHook", "EpicHook", "FhirHook"]

_OK = 200


class FhirHook(BaseHook):
    """A FHIR server of any kind.

    Args:
        fhir_conn_id: The connection; by default the one that is named after the type.
    """

    conn_name_attr = "fhir_conn_id"
    default_conn_name = "fhir_default"
    conn_type = "fhir"
    hook_name = "FHIR server"

    def __init__(self, fhir_conn_id: str | None = None, **kwargs: Any) -> None:  # noqa: ANN401  # BaseHook's
        super().__init__(**kwargs)
        self.fhir_conn_id = fhir_conn_id or self.default_conn_name

    def get_conn(self) -> dict[str, Any]:
        """Return the server's CapabilityStatement, fetched with the connection's credentials.

        Raises:
            SourceError: The server or its token endpoint refused or failed.
            ConfigurationError: The connection is missing or wrong.
        """
        from cohortflow.connectors import FhirSource, connect

        source = FhirSource.from_connection(AirflowDeployment().connection(self.fhir_conn_id))

        async def read() -> dict[str, Any]:
            async with connect(source) as client:
                accept = {"Accept": "application/fhir+json"}
                response = await client.request("GET", f"{source.base_url}/metadata", headers=accept)
                if response.status_code != _OK:
                    raise ExportRejectedError(
                        f"The server answered /metadata with HTTP {response.status_code}.",
                        place=source.host,
                        remedy="Check the base URL of the connection: it usually ends in /fhir or /r4.",
                    )
                try:
                    statement = response.json()
                except ValueError:
                    statement = None
                if not isinstance(statement, dict) or "fhirVersion" not in statement:
                    raise ExportRejectedError(
                        "The address does not answer with a CapabilityStatement.",
                        place=source.host,
                        remedy="Check the base URL of the connection: it usually ends in /fhir or /r4.",
                    )
                return statement

        return asyncio.run(read())

    def test_connection(self) -> tuple[bool, str]:
        """Say whether the server can be reached with these credentials, and what it is."""
        try:
            statement = self.get_conn()
        except CohortflowError as error:
            return False, str(error)
        software = statement.get("software")
        name = software.get("name") if isinstance(software, dict) else ""
        return True, f"{name or 'A server'} speaks FHIR {statement['fhirVersion']}"


class EpicHook(FhirHook):
    """A FHIR server of Epic."""

    default_conn_name = "epic_default"
    conn_type = "epic"
    hook_name = "Epic (FHIR)"


class CernerHook(FhirHook):
    """A FHIR server of Oracle Health: Millennium, Soarian or the Healthcare Data Repository."""

    default_conn_name = "cerner_default"
    conn_type = "cerner"
    hook_name = "Oracle Health / Cerner (FHIR)"
