"""What the server says about itself: CapabilityStatement and SMART configuration."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from cohortflow.sandbox.authorization import ALGORITHMS
from cohortflow.sandbox.hospital import Call
from cohortflow.sandbox.instants import format_instant, now
from cohortflow.sandbox.outcome import FHIR_JSON, FhirResponse, JsonResponse
from cohortflow.sandbox.persona import Persona
from cohortflow.sandbox.search_parameters import search_parameters

__all__ = ["capability_statement", "smart_configuration"]

_BULK_DATA = "http://hl7.org/fhir/uv/bulkdata"
_EXPORTS = {"patient": ("Patient", "patient-export"), "group": ("Group", "group-export")}
_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
_SECURITY_SERVICES = "http://terminology.hl7.org/CodeSystem/restful-security-service"


def capability_statement(call: Call) -> Response:
    """``GET /fhir/metadata``."""
    store, persona = call.hospital.store, call.hospital.persona
    operations = dict(_EXPORTS[level] for level in persona.export_levels if level in _EXPORTS)
    names = {*store.types, *operations} - persona.absent_types
    rest: dict[str, Any] = {
        "mode": "server",
        "resource": [_resource(persona, name, operations.get(name)) for name in sorted(names)],
    }
    if "system" in persona.export_levels:
        rest["operation"] = [_export("export")]
    if not call.hospital.config.open:
        rest["security"] = {
            "service": [{"coding": [{"system": _SECURITY_SERVICES, "code": "SMART-on-FHIR"}]}],
            "extension": [{"url": _OAUTH_URIS, "extension": [{"url": "token", "valueUri": call.token_url}]}],
        }
    return FhirResponse(
        {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "date": format_instant(now()),
            "kind": "instance",
            "instantiates": [f"{_BULK_DATA}/CapabilityStatement/bulk-data"],
            "software": {"name": persona.software},
            "implementation": {"description": "Sandbox with test data only", "url": call.base_url},
            "fhirVersion": "4.0.1",
            "format": [FHIR_JSON, "json"],
            "rest": [rest],
        }
    )


def smart_configuration(call: Call) -> Response:
    """``GET /fhir/.well-known/smart-configuration``."""
    types = call.hospital.store.types
    with_secrets = ["client_secret_basic", "client_secret_post"] if call.hospital.clients.has_secrets else []
    wildcards = ["system/*.rs", "system/*.read"] if call.hospital.persona.wildcard_scopes else []
    return JsonResponse(
        {
            "token_endpoint": call.token_url,
            "token_endpoint_auth_methods_supported": ["private_key_jwt", *with_secrets],
            "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
            "grant_types_supported": ["client_credentials"],
            "scopes_supported": [*wildcards, *(f"system/{name}.rs" for name in types)],
            "capabilities": ["client-confidential-asymmetric", "permission-v1", "permission-v2"],
        }
    )


def _resource(persona: Persona, resource_type: str, operation: str | None) -> dict[str, Any]:
    resource: dict[str, Any] = {"type": resource_type, "interaction": [{"code": "read"}]}
    if resource_type not in persona.unsearchable_types:
        kinds = {
            name: parameter.kind
            for name, parameter in search_parameters(resource_type).items()
            if name not in persona.ignored_search_parameters
        }
        resource["interaction"].append({"code": "search-type"})
        resource["searchParam"] = [
            {"name": name, "type": "reference" if kind == "patient" else kind}
            for name, kind in sorted(kinds.items())
        ]
        resource["searchInclude"] = [
            f"{resource_type}:{name}"
            for name, kind in sorted(kinds.items())
            if kind in {"reference", "patient"}
        ]
    if operation is not None:
        resource["operation"] = [_export(operation)]
    return resource


def _export(definition: str) -> dict[str, str]:
    return {"name": "export", "definition": f"{_BULK_DATA}/OperationDefinition/{definition}"}
