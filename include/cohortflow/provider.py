"""What Airflow is told of this package: see its entry point ``apache_airflow_provider``.

Forms are declared here and not by the hooks: since version 3.2 Airflow's UI reads them from this
description, without importing a hook.
"""

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
            _connection_type(
                "fhir",
                "FhirHook",
                "FHIR server",
                host="https://fhir.example.org/r4",
                login="the id under which the server knows Cohortflow",
                profiles=("generic", "epic", "cerner", "soarian", "hdr"),
            ),
            _connection_type(
                "epic",
                "EpicHook",
                "Epic (FHIR)",
                host="https://ehr.example.org/interconnect-prd-oauth/api/FHIR/R4",
                login="client id of the app, for production or non-production",
            ),
            _connection_type(
                "cerner",
                "CernerHook",
                "Oracle Health / Cerner (FHIR)",
                host="https://fhir-ehr.example.org/r4/tenant-id",
                login="client id of the system account",
                scopes="system/Patient.read system/Encounter.read ...: one per resource type",
                profiles=("cerner", "soarian", "hdr"),
            ),
        ],
    }


def _connection_type(
    name: str,
    hook: str,
    title: str,
    *,
    host: str,
    login: str,
    scopes: str = "system/*.read where left empty",
    profiles: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Describe a connection type and its form.

    Args:
        name: What connections call it.
        hook: Class of ``cohortflow.airflow.hooks``.
        title: What the UI calls it.
        host: Example of a FHIR base URL.
        login: Help text of the client id.
        scopes: Help text of the scopes.
        profiles: Profiles to choose from, the default first; empty: there is no choice.
    """
    fields = {
        "auth": _field(
            "Authentication",
            "backend_services (signed by a private key) where empty and there is a client id",
            enum=["backend_services", "client_secret", "basic", "none"],
        ),
        "private_key_file": _field(
            "Private key file", "PEM, JWK or JWK set, on every worker; instead of the password above"
        ),
        "private_key_env": _field(
            "Private key variable", "Environment variable with the key; instead of the password above"
        ),
        "jwks_url": _field("JWKS URL", "Where the public keys are published; for comparing only"),
        "token_url": _field("Token endpoint", "Where the server does not publish it"),
        "scopes": _field("Scopes", scopes),
        "ca_bundle": _field("CA bundle", "PEM file with the hospital's certificates, on every worker"),
        "concurrency": _field(
            "Parallel requests", "Downloads and searches at a time; 4 where empty", "integer", 1, 32
        ),
        "profile_overrides": _field(
            "Profile values",
            'What this server does otherwise, such as {"quiet_hours": ["07:00-18:30"]}',
            "object",
        ),
    }
    if profiles:
        fields["profile"] = _field(
            "Profile", f"Kind of server; {profiles[0]} where empty", enum=list(profiles)
        )
    return {
        "connection-type": name,
        "hook-class-name": f"cohortflow.airflow.hooks.{hook}",
        "hook-name": title,
        "conn-fields": fields,
        "ui-field-behaviour": {
            "hidden-fields": ["port", "schema"],
            "relabeling": {
                "host": "FHIR base URL",
                "login": "Client id",
                "password": "Private key (PEM, JWK or JWK set), or client secret",
            },
            "placeholders": {"host": host, "login": login},
        },
    }


def _field(  # one for each keyword of JSON Schema
    label: str,
    description: str,
    kind: str = "string",
    minimum: int | None = None,
    maximum: int | None = None,
    *,
    enum: list[str] | None = None,
) -> dict[str, Any]:
    limits = {"minimum": minimum, "maximum": maximum, "enum": enum}
    schema = {name: value for name, value in limits.items() if value is not None}
    # "null" is what the form writes into a field that nobody filled in.
    return {"label": label, "description": description, "schema": {"type": [kind, "null"], **schema}}
