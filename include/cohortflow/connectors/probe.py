"""What a FHIR server says of itself, and which way of extracting fits it.

Sources: http://hl7.org/fhir/R4/capabilitystatement.html,
https://hl7.org/fhir/smart-app-launch/conformance.html, https://hl7.org/fhir/uv/bulkdata/export.html
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx
import orjson

from cohortflow.connectors.crawl.plan import CrawlPlan
from cohortflow.connectors.crawl.request import CrawlRequest, PatientSelection
from cohortflow.connectors.extraction.extractor import Mode
from cohortflow.connectors.profiles.search import SUPPORTING_TYPES, search_profile
from cohortflow.connectors.profiles.server import Level
from cohortflow.connectors.transport.client import FhirClient
from cohortflow.connectors.transport.http import describe_failure
from cohortflow.errors import AuthorizationError, ConfigurationError, ExportRejectedError, SourceError

__all__ = ["Advice", "ProbeReport", "TypeSupport", "advise", "probe_source", "read_capabilities"]

_BULK = "bulkdata"
_LEVELS: Mapping[str, Level] = {"": "system", "Patient": "patient", "Group": "group"}


@dataclass(frozen=True, slots=True)
class TypeSupport:
    """What a server does with one resource type.

    Attributes:
        type: Resource type.
        interactions: Codes such as ``read`` and ``search-type``.
        parameters: Names of search parameters.
        revincludes: Values of ``_revinclude``.
    """

    type: str
    interactions: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    revincludes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What a server says of itself.

    Attributes:
        host: Its host name.
        profile: The connection's profile.
        fhir_version: Such as ``4.0.1``.
        software: Name and version.
        export_levels: Kinds of bulk export that it states, or that its profile says it has.
        states_exports: Whether the server itself states them.
        types: What it does with each type.
        token_url: Token endpoint; empty: none is stated.
        auth_methods: ``token_endpoint_auth_methods_supported``.
        signing_algorithms: Of signed client assertions.
        scopes: ``scopes_supported``.
        faults: What was asked and not answered.
    """

    host: str
    profile: str
    fhir_version: str = ""
    software: str = ""
    export_levels: tuple[Level, ...] = ()
    states_exports: bool = False
    types: tuple[TypeSupport, ...] = ()
    token_url: str = ""
    auth_methods: tuple[str, ...] = ()
    signing_algorithms: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    def support(self, resource_type: str) -> TypeSupport | None:
        """Return what the server does with a type; ``None`` where it states nothing of it."""
        return next((item for item in self.types if item.type == resource_type), None)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Advice:
    """Which way of extracting fits.

    Attributes:
        mode: The way; ``None``: none does.
        why: In one sentence.
        missing: Per resource type of the study, what is not there.
    """

    mode: Mode | None
    why: str
    missing: Mapping[str, str] = field(default_factory=dict)


async def probe_source(client: FhirClient) -> ProbeReport:
    """Ask a server for its CapabilityStatement and its SMART configuration.

    Raises:
        ExportRejectedError: There is no CapabilityStatement, so this is no FHIR server.
        TransientSourceError: The server is busy or unreachable.
    """
    base = client.source.base_url
    faults: list[str] = []
    url, headers = f"{base}/metadata", {"Accept": "application/fhir+json"}
    try:
        response = await client.request("GET", url, headers=headers)
    except (AuthorizationError, ConfigurationError) as error:
        # Most servers show their statement to everybody.
        faults.append(f"credentials: {error.message}")
        response = await client.request("GET", url, headers=headers, private=False)
    if response.status_code != httpx.codes.OK:
        raise await describe_failure(response, "request for the CapabilityStatement")
    statement = _object(response.content)
    if statement.get("resourceType") not in ("CapabilityStatement", "Conformance"):
        raise ExportRejectedError(
            "The address does not answer with a CapabilityStatement.",
            place=client.source.host,
            remedy="Check the connection's host: it has to be the FHIR base URL.",
        )
    smart: dict[str, Any] = {}
    try:
        answer = await client.request(
            "GET",
            f"{base}/.well-known/smart-configuration",
            headers={"Accept": "application/json"},
            private=False,
        )
        smart = _object(answer.content) if answer.status_code == httpx.codes.OK else {}
    except SourceError as error:
        faults.append(f"SMART configuration: {error.message}")
    if not smart:
        faults.append("no SMART configuration")
    return read_capabilities(client, statement, smart, tuple(faults))


def read_capabilities(
    client: FhirClient, statement: Mapping[str, Any], smart: Mapping[str, Any], faults: tuple[str, ...] = ()
) -> ProbeReport:
    """Read both documents; what is malformed counts as not stated."""
    rests = list(_objects(statement.get("rest")))
    server = next((rest for rest in rests if rest.get("mode") != "client"), {})
    resources = [item for item in _objects(server.get("resource")) if isinstance(item.get("type"), str)]
    stated: set[Level] = set()
    if _offers_export(server):
        stated.add("system")
    for item in resources:
        if item["type"] in _LEVELS and _offers_export(item):
            stated.add(_LEVELS[item["type"]])
    software = statement.get("software")
    software = software if isinstance(software, dict) else {}
    source = client.source
    # Epic and Oracle Health leave exports out of their statements.
    levels = stated or (source.profile.levels if source.profile.name != "generic" else set())
    token = smart.get("token_endpoint")
    return ProbeReport(
        host=source.host,
        profile=source.profile.name,
        fhir_version=_text(statement.get("fhirVersion")),
        software=" ".join(filter(None, (_text(software.get("name")), _text(software.get("version"))))),
        export_levels=tuple(sorted(levels)),
        states_exports=bool(stated),
        types=tuple(sorted(map(_support, resources), key=lambda item: item.type)),
        token_url=_text(token),
        auth_methods=_texts(smart.get("token_endpoint_auth_methods_supported")),
        signing_algorithms=_texts(smart.get("token_endpoint_auth_signing_alg_values_supported")),
        scopes=_texts(smart.get("scopes_supported")),
        faults=faults,
    )


def advise(
    report: ProbeReport, client: FhirClient, types: Collection[str] = (), level: Level | None = None
) -> Advice:
    """Say which way of extracting fits a server, and what a study would lack.

    Args:
        report: What the server says of itself.
        client: The server.
        types: Resource types of the study; none: no study in particular.
        level: Export level of the study; ``None``: any.
    """
    profile = search_profile(client.source.profile)
    levels = [name for name in report.export_levels if level in (None, name)]
    if levels:
        left_out = client.source.profile.not_exported & set(types)
        missing = dict.fromkeys(sorted(left_out), "left out of exports: search or reference")
        missing |= _unstated(report, set(types) - left_out)
        said = "states" if report.states_exports else "states no export, but its kind has it:"
        return Advice("bulk", f"The server {said} {', '.join(levels)} export.", missing)
    searchable = {item.type for item in report.types if "search-type" in item.interactions}
    if not searchable:
        return Advice(None, "The server states neither bulk export nor search.", _unstated(report, types))
    missing = _unstated(report, types)
    request = CrawlRequest(tuple(types or searchable), PatientSelection(search=()))
    plan = CrawlPlan(request, profile)
    for name in types:
        support = report.support(name)
        if name in SUPPORTING_TYPES or name in missing:
            continue
        if support is None or name not in searchable:
            missing[name] = "cannot be searched"
        elif name in plan.skipped:
            missing[name] = plan.skipped[name]
        elif name != "Patient" and not {"patient", "subject"} & set(support.parameters):
            missing[name] = "cannot be searched by patient"
    if profile.type_search and not {"Group", "Patient"} & {item.type for item in report.types}:
        return Advice(
            "search", "The server has no patients to go by; types are searched as a whole.", missing
        )
    why = "The server states no bulk export"
    if level is not None and report.export_levels:
        why = f"The server has no {level} export"
    return Advice("crawl", f"{why}; patients can be crawled one by one.", missing)


def _unstated(report: ProbeReport, types: Collection[str]) -> dict[str, str]:
    return {name: "not in the CapabilityStatement" for name in sorted(types) if report.support(name) is None}


def _offers_export(value: Mapping[str, Any]) -> bool:
    for operation in _objects(value.get("operation")):
        name = _text(operation.get("name")).removeprefix("$")
        definition = _text(operation.get("definition"))
        if name.endswith("export") or (_BULK in definition and definition.endswith("export")):
            return True
    return False


def _support(resource: Mapping[str, Any]) -> TypeSupport:
    return TypeSupport(
        resource["type"],
        tuple(_text(item.get("code")) for item in _objects(resource.get("interaction"))),
        tuple(sorted(_text(item.get("name")) for item in _objects(resource.get("searchParam")))),
        _texts(resource.get("searchRevInclude")),
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> Iterator[dict[str, Any]]:
    yield from (item for item in (value if isinstance(value, list) else ()) if isinstance(item, dict))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
