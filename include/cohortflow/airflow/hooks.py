"""The connection type ``fhir``: its form in Airflow's UI and its test button."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from airflow.sdk import BaseHook

from cohortflow.airflow.deployment import AirflowDeployment
from cohortflow.errors import CohortflowError, ExportRejectedError

__all__ = ["FhirHook"]

_OK = 200


class FhirHook(BaseHook):
    """A FHIR server.

    Args:
        fhir_conn_id: The connection.
    """

    conn_name_attr = "fhir_conn_id"
    default_conn_name = "fhir_default"
    conn_type = "fhir"
    hook_name = "FHIR server"

    def __init__(self, fhir_conn_id: str = default_conn_name, **kwargs: Any) -> None:  # noqa: ANN401  # BaseHook's
        super().__init__(**kwargs)
        self.fhir_conn_id = fhir_conn_id

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form of a connection of this type."""
        extra = {"private_key_env": "COHORTFLOW_FHIR_KEY", "scopes": "system/*.read"}
        return {
            "hidden_fields": ["port", "schema"],
            "relabeling": {
                "host": "FHIR base URL",
                "login": "Client id",
                "password": "Private key (PEM or JWK), or client secret",
            },
            "placeholders": {
                "host": "https://ehr.example.org/fhir/r4",
                "login": "the id under which the server knows Cohortflow",
                "extra": json.dumps(extra),
            },
        }

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
                statement: dict[str, Any] = response.json()
                return statement

        return asyncio.run(read())

    def test_connection(self) -> tuple[bool, str]:
        """Say whether the server can be reached with these credentials, and what it is."""
        try:
            statement = self.get_conn()
        except CohortflowError as error:
            return False, str(error)
        software = statement.get("software", {}).get("name") or "a server"
        return True, f"{software} speaks FHIR {statement.get('fhirVersion', '?')}"
