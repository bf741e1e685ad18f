"""Kick-off requests of Bulk Data: what may be asked, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from cohortflow.sandbox.instants import parse_instant
from cohortflow.sandbox.outcome import FHIR_JSON, RefusalError
from cohortflow.sandbox.persona import ExportLevel, Persona
from cohortflow.sandbox.resource_types import RESOURCE_TYPES, SUPPORTING_TYPES
from cohortflow.sandbox.search_query import SearchQuery, parse_filter

__all__ = ["ExportLevel", "ExportRequest", "check_kickoff_headers", "parse_export", "read_parameters"]

_OUTPUT_FORMATS = frozenset({"application/fhir+ndjson", "application/ndjson", "ndjson"})
_FILTER_SEPARATOR = re.compile(r",(?=[A-Z][A-Za-z]+\?)")
_ANY_COMMA = re.compile(r"(?<!\\),")
_ASSOCIATED_DATA = frozenset({"LatestProvenanceResources", "RelevantProvenanceResources"})
_ELEMENT = re.compile(r"(?:([A-Z][A-Za-z]+)\.)?([a-z][A-Za-z]*)")
_SPECIFICATION = Persona()


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What an export is to hold.

    Attributes:
        level: The kind of kick-off URL.
        url: The kick-off URL, for the manifest.
        group_id: The Group of a group-level export.
        types: The resource types asked for; ``None`` asks for all.
        since: Only what changed after this, in microseconds.
        until: Only what did not change after this, in microseconds.
        filters: Searches, of which a resource of their type has to meet one.
        patients: Ids of the patients that a POST restricts the export to.
        elements: Per resource type, or ``""`` for every type, the elements asked for.
        provenance: Whether associated Provenance is to be added.
        partial_manifests: Whether the client takes manifests in parts.
        organize_by: The resource type that output files are organized by.
        ignored: Names of parameters that took no effect.
    """

    level: ExportLevel
    url: str
    group_id: str | None = None
    types: frozenset[str] | None = None
    since: int | None = None
    until: int | None = None
    filters: tuple[SearchQuery, ...] = ()
    patients: tuple[str, ...] | None = None
    elements: Mapping[str, frozenset[str]] = field(default_factory=dict)
    provenance: bool = False
    partial_manifests: bool = False
    organize_by: str | None = None
    ignored: tuple[str, ...] = ()

    @property
    def scope(self) -> tuple[object, ...]:
        """What makes two requests ask for the same, as Soarian sees it (O15)."""
        return self.level, self.group_id, self.types, self.since

    def kept_elements(self, resource_type: str) -> frozenset[str] | None:
        """The elements that ``_elements`` leaves of a type; ``None``: all."""
        named = self.elements.get("", frozenset()) | self.elements.get(resource_type, frozenset())
        return named or None


def check_kickoff_headers(headers: Mapping[str, str]) -> bool:
    """Check ``Accept`` and ``Prefer``.

    Returns:
        Whether unknown parameters are to be ignored (``handling=lenient``).

    Raises:
        RefusalError: 406 without ``Accept: application/fhir+json`` (E11, O2), 400 without
            ``Prefer: respond-async``.
    """
    accepted = {part.split(";")[0].strip().lower() for part in headers.get("accept", "").split(",")}
    if FHIR_JSON not in accepted:
        raise RefusalError(406, "not-supported", f"the kick-off request needs Accept: {FHIR_JSON}")
    preferences = {part.strip().lower() for part in re.split("[,;]", headers.get("prefer", ""))}
    if "respond-async" not in preferences:
        raise RefusalError(400, "required", "the kick-off request needs Prefer: respond-async")
    return "handling=lenient" in preferences


def read_parameters(body: bytes) -> Iterator[tuple[str, str]]:
    """Names and values of a Parameters resource.

    Raises:
        RefusalError: 400, for a body that is none.
    """
    try:
        parameters = orjson.loads(body)
        if parameters["resourceType"] != "Parameters":
            raise RefusalError(400, "structure", "the body has to be a Parameters resource")
        for parameter in parameters.get("parameter", []):
            yield parameter["name"], _value(parameter)
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        raise RefusalError(400, "structure", "the body has to be a Parameters resource") from None


def _value(parameter: dict[str, Any]) -> str:
    value = next(value for key, value in parameter.items() if key.startswith("value"))
    if isinstance(value, bool):
        return str(value).lower()
    return str(value["reference"] if isinstance(value, dict) else value)


@dataclass(slots=True)
class _Draft:
    types: list[str] = field(default_factory=list)
    filters: list[str] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    elements: dict[str, frozenset[str]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    since: int | None = None
    until: int | None = None
    provenance: bool = False
    partial_manifests: bool = False
    organize_by: str | None = None


def parse_export(
    level: ExportLevel,
    group_id: str | None,
    url: str,
    parameters: Iterable[tuple[str, str]],
    *,
    lenient: bool,
    posted: bool,
    persona: Persona = _SPECIFICATION,
) -> ExportRequest:
    """Read the parameters of a kick-off request.

    Args:
        level: The kind of kick-off URL.
        group_id: The Group of a group-level export.
        url: The kick-off URL.
        parameters: Names and values; names may repeat.
        lenient: Whether to ignore unknown parameters instead of refusing them.
        posted: Whether they came in a Parameters resource, which alone may name patients.
        persona: Whose rules hold.

    Raises:
        RefusalError: 400 or 422, with the parameter that is wrong.
    """
    draft = _Draft()
    known = persona.export_parameters - (frozenset() if posted and level != "system" else {"patient"})
    for name, value in parameters:
        if name in persona.ignored_parameters:
            draft.ignored.append(name)
        elif name in known:
            _take(draft, name, value, persona, lenient=lenient)
        elif lenient:
            draft.ignored.append(name)
        else:
            raise RefusalError(400, "not-supported", f"export parameter '{name}' is not supported")
    if persona.max_search_patients is not None and len(draft.patients) > persona.max_search_patients:
        raise RefusalError(400, "too-costly", "the request names too many patients", issue="4127")
    types = _check_types(draft, persona)
    return ExportRequest(
        level=level,
        url=url,
        group_id=group_id,
        types=types,
        since=draft.since,
        until=draft.until,
        filters=_read_filters(draft, types, persona, lenient=lenient),
        patients=tuple(draft.patients) or None,
        elements=draft.elements,
        provenance=draft.provenance,
        partial_manifests=draft.partial_manifests,
        organize_by=draft.organize_by,
        ignored=tuple(draft.ignored),
    )


def _take(draft: _Draft, name: str, value: str, persona: Persona, *, lenient: bool) -> None:
    match name:
        case "_outputFormat":
            _check_format(value)
        case "_since":
            draft.since = _parse_moment(name, value)
        case "_until":
            draft.until = _parse_moment(name, value)
        case "_type":
            draft.types.extend(_split_types(value, persona, repeated=bool(draft.types)))
        case "_typeFilter":
            draft.filters.extend(_split_filters(value, persona))
        case "_elements":
            _take_elements(draft, value)
        case "patient":
            draft.patients.append(value.rsplit("/", 1)[-1])
        case "allowPartialManifests":
            draft.partial_manifests = value == "true"
        case _:
            _take_choice(draft, name, value, lenient=lenient)


def _take_choice(draft: _Draft, name: str, value: str, *, lenient: bool) -> None:
    # The parameters of which the server supports some values only.
    if name == "organizeOutputBy" and value == "Patient":
        draft.organize_by = value
    elif name == "includeAssociatedData" and _ASSOCIATED_DATA.issuperset(value.split(",")):
        draft.provenance = True
    elif lenient:
        draft.ignored.append(name)
    else:
        raise RefusalError(400, "not-supported", f"{name} has a value that is not supported")


def _split_types(value: str, persona: Persona, *, repeated: bool) -> list[str]:
    if "," in value and "comma" not in persona.list_forms:
        raise RefusalError(400, "invalid", "_type takes no comma-separated list; repeat the parameter")
    if repeated and "repeat" not in persona.list_forms:
        raise RefusalError(400, "invalid", "_type cannot be repeated; separate the types by commas")
    return [part.strip() for part in value.split(",")]


def _split_filters(value: str, persona: Persona) -> list[str]:
    if persona.commas_split_filters:  # E12
        return _ANY_COMMA.split(value)
    return [value] if "comma" not in persona.list_forms else _FILTER_SEPARATOR.split(value)


def _take_elements(draft: _Draft, value: str) -> None:
    for part in value.split(","):
        match = _ELEMENT.fullmatch(part.strip())
        if match is None or (match[1] is not None and match[1] not in RESOURCE_TYPES):
            raise RefusalError(400, "invalid", "_elements names <element> or <ResourceType>.<element>")
        key = match[1] or ""
        draft.elements[key] = draft.elements.get(key, frozenset()) | {match[2]}


def _check_types(draft: _Draft, persona: Persona) -> frozenset[str] | None:
    types = frozenset(draft.types)
    if unknown := types - RESOURCE_TYPES:
        raise RefusalError(400, "not-supported", f"_type names {len(unknown)} unknown resource types")
    if persona.refuses_unexported and types & persona.unexported_types:
        raise RefusalError(400, "invalid", "_type names a resource type that cannot be exported")
    if persona.clinical_types_needed and types and types <= SUPPORTING_TYPES | {"Provenance"}:
        raise RefusalError(400, "invalid", "_type has to name a clinical resource type too")
    return types or None


def _read_filters(
    draft: _Draft, types: frozenset[str] | None, persona: Persona, *, lenient: bool
) -> tuple[SearchQuery, ...]:
    if draft.filters and persona.filter_needs_type and types is None:
        raise RefusalError(400, "invalid", "_typeFilter needs _type")
    queries = []
    for text in draft.filters:
        if persona.commas_split_filters and "?" not in text:
            # E12: what follows a comma within a value is no query, and goes unnoticed.
            draft.ignored.append("_typeFilter")
            continue
        try:
            queries.append(parse_filter(text, lenient=lenient, persona=persona))
        except RefusalError as error:
            raise RefusalError(
                persona.bad_filter_status, error.code, error.diagnostics, issue=error.issue
            ) from None
    named = [query.resource_type for query in queries]
    if types is not None and not types.issuperset(named):
        raise RefusalError(400, "invalid", "_typeFilter names a resource type that _type does not")
    if persona.one_filter_per_type and len(named) > len(set(named)):
        raise RefusalError(400, "invalid", "_typeFilter has several queries for one resource type")
    if persona.unfiltered_types & set(named):
        raise RefusalError(persona.bad_filter_status, "invalid", "_typeFilter cannot filter this type")
    used = {name for query in queries for name, _ in query.used}
    if used & persona.forbidden_filter_parameters:
        raise RefusalError(
            persona.bad_filter_status, "invalid", "_typeFilter uses a parameter that it may not"
        )
    draft.ignored.extend(name for query in queries for name in query.ignored)
    return tuple(queries)


def _check_format(value: str) -> None:
    # A client that does not encode the plus sends a space.
    if value.replace(" ", "+") not in _OUTPUT_FORMATS:
        raise RefusalError(400, "not-supported", "_outputFormat has to be application/fhir+ndjson")


def _parse_moment(name: str, value: str) -> int:
    try:
        # A client that does not encode the plus of an offset sends a space.
        return parse_instant(value.replace(" ", "+"))
    except ValueError:
        raise RefusalError(400, "value", f"{name} has to be a FHIR instant with a time zone") from None
