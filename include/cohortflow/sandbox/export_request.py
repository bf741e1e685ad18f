"""Kick-off requests of Bulk Data 2.0: what may be asked, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from cohortflow.sandbox.instants import parse_instant
from cohortflow.sandbox.outcome import FHIR_JSON, RefusalError
from cohortflow.sandbox.resource_types import RESOURCE_TYPES
from cohortflow.sandbox.search_query import SearchQuery, parse_filter

__all__ = ["ExportLevel", "ExportRequest", "check_kickoff_headers", "parse_export", "read_parameters"]

ExportLevel = Literal["system", "patient", "group"]

_OUTPUT_FORMATS = frozenset({"application/fhir+ndjson", "application/ndjson", "ndjson"})
_FILTER_SEPARATOR = re.compile(r",(?=[A-Z][A-Za-z]+\?)")


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What an export is to hold.

    Attributes:
        level: The kind of kick-off URL.
        url: The kick-off URL, for the manifest.
        group_id: The Group of a group-level export.
        types: The resource types asked for; ``None`` asks for all.
        since: Only what changed after this, in microseconds.
        filters: Searches, of which a resource of their type has to meet one.
        patients: Ids of the patients that a POST restricts the export to.
        ignored: Names of parameters that took no effect (lenient handling).
    """

    level: ExportLevel
    url: str
    group_id: str | None = None
    types: frozenset[str] | None = None
    since: int | None = None
    filters: tuple[SearchQuery, ...] = ()
    patients: tuple[str, ...] | None = None
    ignored: tuple[str, ...] = ()


def check_kickoff_headers(headers: Mapping[str, str]) -> bool:
    """Check ``Accept`` and ``Prefer``.

    Returns:
        Whether unknown parameters are to be ignored (``handling=lenient``).

    Raises:
        RefusalError: 406 without ``Accept: application/fhir+json``, 400 without ``Prefer: respond-async``.
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
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RefusalError(400, "structure", "the body has to be a Parameters resource") from None


def _value(parameter: dict[str, Any]) -> str:
    value = next(value for key, value in parameter.items() if key.startswith("value"))
    return str(value["reference"] if isinstance(value, dict) else value)


def parse_export(
    level: ExportLevel,
    group_id: str | None,
    url: str,
    parameters: Iterable[tuple[str, str]],
    *,
    lenient: bool,
    posted: bool,
) -> ExportRequest:
    """Read the parameters of a kick-off request.

    Args:
        level: The kind of kick-off URL.
        group_id: The Group of a group-level export.
        url: The kick-off URL.
        parameters: Names and values; names may repeat.
        lenient: Whether to ignore unknown parameters instead of refusing them.
        posted: Whether they came in a Parameters resource, which alone may name patients.

    Raises:
        RefusalError: 400, with the parameter that is wrong.
    """
    types: set[str] = set()
    patients: list[str] = []
    filters: list[str] = []
    ignored: list[str] = []
    since: int | None = None
    for name, value in parameters:
        if name == "_outputFormat":
            _check_format(value)
        elif name == "_since":
            since = _parse_since(value)
        elif name == "_type":
            types.update(part.strip() for part in value.split(","))
        elif name == "_typeFilter":
            filters.extend(_FILTER_SEPARATOR.split(value))
        elif name == "patient" and posted and level != "system":
            patients.append(value.rsplit("/", 1)[-1])
        elif lenient:
            ignored.append(name)
        else:
            raise RefusalError(400, "not-supported", f"export parameter '{name}' is not supported")
    if unknown := types - RESOURCE_TYPES:
        raise RefusalError(400, "not-supported", f"_type names {len(unknown)} unknown resource types")
    queries = tuple(parse_filter(text, lenient=lenient) for text in filters)
    if types and any(query.resource_type not in types for query in queries):
        raise RefusalError(400, "invalid", "_typeFilter names a resource type that _type does not")
    ignored.extend(name for query in queries for name in query.ignored)
    return ExportRequest(
        level=level,
        url=url,
        group_id=group_id,
        types=frozenset(types) or None,
        since=since,
        filters=queries,
        patients=tuple(patients) or None,
        ignored=tuple(ignored),
    )


def _check_format(value: str) -> None:
    # A client that does not encode the plus sends a space.
    if value.replace(" ", "+") not in _OUTPUT_FORMATS:
        raise RefusalError(400, "not-supported", "_outputFormat has to be application/fhir+ndjson")


def _parse_since(value: str) -> int:
    try:
        # A client that does not encode the plus of an offset sends a space.
        return parse_instant(value.replace(" ", "+"))
    except ValueError:
        raise RefusalError(400, "value", "_since has to be a FHIR instant with a time zone") from None
