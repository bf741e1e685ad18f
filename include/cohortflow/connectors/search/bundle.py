"""One page of search results, and what a server says about it.

Source: http://hl7.org/fhir/R4/search.html and http://hl7.org/fhir/R4/bundle.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson

from cohortflow.connectors.profiles.search import Meaning, SearchProfile
from cohortflow.connectors.transport.outcome import Issue, parse_outcome

__all__ = ["FoundResource", "Note", "Page", "parse_json", "parse_notes", "parse_page"]

# File names are made of types. Ids may be longer than FHIR's 64 characters, as Epic's are.
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
_ID = re.compile(r"[A-Za-z0-9\-._]{1,255}")
_MAX_INT_DIGITS = 18  # orjson writes 64 bits
_SEVERE = frozenset({"fatal", "error"})

# What changes how results are returned, not which: http://hl7.org/fhir/R4/search.html#Summary
_RESULT_PARAMETERS = frozenset(
    """_contained _containedType _count _elements _format _include _maxresults _pretty _revinclude _score
    _sort _summary _total""".split()  # noqa: SIM905  # reads better than a list of quoted names
)


@dataclass(frozen=True, slots=True)
class FoundResource:
    """A resource of a page.

    Attributes:
        type: Its type.
        id: Its id.
        line: It as one line of JSON with a line feed; numbers are written as they came.
        included: Whether it came with another, and was not searched for itself.
    """

    type: str
    id: str = field(repr=False)
    line: bytes = field(repr=False)
    included: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """One issue that matters.

    Attributes:
        meaning: What it means; ``None`` for an error of unknown meaning.
        severity: Its severity.
        codes: Its codes, which may be shown.
        parameters: Which of the query's parameters it names.
    """

    meaning: Meaning | None
    severity: str
    codes: tuple[str, ...] = ()
    parameters: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Page:
    """One page of search results.

    Attributes:
        resources: What was found and included, in order, OperationOutcomes left out.
        notes: What the OperationOutcomes on the page say.
        next: URL of the next page, verbatim; empty: this is the last.
        self_parameters: Names in the ``self`` link's query; ``None`` where there is no such link.
        server_time: When the server made the page, by its own clock.
        unusable: Entries that hold no resource with a type and an id.
    """

    resources: tuple[FoundResource, ...] = ()
    notes: tuple[Note, ...] = ()
    next: str = field(default="", repr=False)
    self_parameters: frozenset[str] | None = None
    server_time: datetime | None = None
    unusable: int = 0


def is_filter(name: str) -> bool:
    """Tell whether a search parameter decides which resources are found."""
    return name.partition(":")[0] not in _RESULT_PARAMETERS


def parse_json(body: bytes) -> Any:  # noqa: ANN401  # decoded JSON
    """Decode JSON so that ``orjson.dumps`` writes every number with the digits it came with.

    FHIR decimals carry a precision: 1.10 is not 1.1.

    Raises:
        ValueError: It is no JSON.
    """
    return json.loads(body, parse_float=_literal, parse_int=_integer)


def parse_page(value: Any, resource_type: str, names: Iterable[str], profile: SearchProfile) -> Page | None:  # noqa: ANN401
    """Read a searchset Bundle; ``None`` where it is none.

    Args:
        value: Decoded JSON.
        resource_type: What was searched.
        names: The query's parameters.
        profile: Meaning of codes.
    """
    if not isinstance(value, dict) or value.get("resourceType") != "Bundle":
        return None
    found: list[FoundResource] = []
    notes: list[Note] = []
    unusable = 0
    names = frozenset(names)
    for entry in _objects(value.get("entry")):
        resource = entry.get("resource")
        if not isinstance(resource, dict):
            unusable += 1
            continue
        search = entry.get("search")
        mode = search.get("mode") if isinstance(search, dict) else None
        if resource.get("resourceType") == "OperationOutcome" and resource_type != "OperationOutcome":
            notes.extend(parse_notes(resource, names, profile))
        elif (item := make_resource(resource, resource_type, mode)) is not None:
            found.append(item)
        else:
            unusable += 1
    links = {
        link["relation"]: link["url"]
        for link in _objects(value.get("link"))
        if isinstance(link.get("relation"), str) and isinstance(link.get("url"), str)
    }
    meta = value.get("meta")
    return Page(
        tuple(found),
        tuple(notes),
        links.get("next", ""),
        _query_names(links["self"]) if "self" in links else None,
        parse_instant(meta.get("lastUpdated")) if isinstance(meta, dict) else None,
        unusable,
    )


def make_resource(
    resource: Mapping[str, Any], searched: str = "", mode: object = "match"
) -> FoundResource | None:
    """Return a decoded resource as a line of NDJSON; ``None`` where type or id is missing or malformed."""
    kind, name = resource.get("resourceType"), resource.get("id")
    if not (
        isinstance(kind, str) and isinstance(name, str) and _TYPE.fullmatch(kind) and _ID.fullmatch(name)
    ):
        return None
    # Servers that leave the mode out include nothing but other types.
    included = mode == "include" or (mode != "match" and bool(searched) and kind != searched)
    return FoundResource(kind, name, orjson.dumps(resource, option=orjson.OPT_APPEND_NEWLINE), included)


def parse_notes(
    outcome: bytes | Mapping[str, Any], names: Collection[str], profile: SearchProfile
) -> tuple[Note, ...]:
    """Return what the issues of an OperationOutcome mean; harmless ones of unknown meaning are left out.

    Args:
        outcome: An OperationOutcome, decoded or not; anything else has no issues.
        names: Parameters of the query, to be looked for in the texts of issues.
        profile: Meaning of codes.
    """
    if isinstance(outcome, bytes):
        try:
            outcome = orjson.loads(outcome)
        except orjson.JSONDecodeError:
            return ()
    if not isinstance(outcome, dict) or outcome.get("resourceType") != "OperationOutcome":
        return ()
    raw = _objects(outcome.get("issue"))
    issues = parse_outcome(orjson.dumps({**outcome, "issue": raw}))
    notes = (_note(issue, text, names, profile) for issue, text in zip(issues, map(_texts, raw), strict=True))
    return tuple(note for note in notes if note.meaning is not None or note.severity in _SEVERE)


def parse_instant(value: object) -> datetime | None:
    """Read a FHIR instant; ``None`` where it is none."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else None


def _note(issue: Issue, text: str, names: Collection[str], profile: SearchProfile) -> Note:
    # A vendor's own code says more than the issue type it came with.
    codes = (*issue.details, issue.code)
    meaning = next((profile.meanings[code] for code in codes if code in profile.meanings), None)
    named = frozenset(name for name in names if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text))
    return Note(meaning, issue.severity, tuple(code for code in codes if code), named)


def _texts(issue: Mapping[str, Any]) -> str:
    details = issue.get("details")
    values = [
        issue.get("diagnostics"),
        details.get("text") if isinstance(details, dict) else None,
        *(issue.get(name) for name in ("expression", "location")),
        *(
            coding.get("display")
            for coding in _objects(details.get("coding") if isinstance(details, dict) else ())
        ),
    ]
    return " ".join(str(value) for value in values if value)


def _query_names(url: str) -> frozenset[str]:
    try:
        query = urlsplit(url).query
    except ValueError:
        return frozenset()
    return frozenset(name.partition(":")[0] for name, _ in parse_qsl(query, keep_blank_values=True))


def _objects(value: object) -> tuple[dict[str, Any], ...]:
    return tuple(item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()


def _literal(text: str) -> orjson.Fragment:
    return orjson.Fragment(text)


def _integer(text: str) -> int | orjson.Fragment:
    return int(text) if len(text) <= _MAX_INT_DIGITS else orjson.Fragment(text)
