"""What to export, and whether a kind of server can be asked for it."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import orjson

from cohortflow.connectors.profiles.server import Level, ServerProfile
from cohortflow.errors import ExportRejectedError, InputError

__all__ = ["ExportRequest", "check_request", "parameters_resource"]

_ID = re.compile(r"[A-Za-z0-9\-._]{1,255}")  # Epic's ids may exceed FHIR's 64 characters
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
# "FHIR search response parameters such as _include and _sort SHALL NOT be used" in a _typeFilter.
_RESULT_PARAMETERS = frozenset(
    {"_contained", "_count", "_elements", "_include", "_revinclude", "_sort", "_summary", "_total"}
)


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export.

    Attributes:
        level: ``system``, ``patient`` (all patients) or ``group``.
        group_id: Logical id of the Group, for ``group``.
        types: Resource types (``_type``); empty: all that the server exports.
        since: Only resources changed after this time (``_since``).
        type_filters: Search queries such as ``Observation?category=laboratory`` (``_typeFilter``).
        extra: Further parameters as names and values, such as ``allowPartialManifests`` and ``true``.
    """

    level: Level = "system"
    group_id: str = ""
    types: tuple[str, ...] = ()
    since: datetime | None = None
    type_filters: tuple[str, ...] = ()
    extra: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if (self.level == "group") != bool(self.group_id):
            raise InputError(
                "A group export needs the id of a Group, and only a group export takes one.",
                remedy="Set the group, or choose another level.",
            )
        if self.group_id and not _ID.fullmatch(self.group_id):
            raise InputError(
                "The group is no FHIR id.", remedy="Give the id alone, without 'Group/' before it."
            )
        if self.since is not None and self.since.tzinfo is None:
            raise InputError(
                "'since' has no time zone.", remedy="Give it in UTC, such as 2026-01-31T00:00:00Z."
            )
        for name in self.types:
            if not _TYPE.fullmatch(name):
                raise InputError(f"'{name}' is no resource type.", remedy="Use FHIR names such as Patient.")
        # The order of types and filters means nothing, so it must not change the digest.
        object.__setattr__(self, "types", tuple(sorted(set(self.types))))
        object.__setattr__(self, "type_filters", tuple(sorted(set(self.type_filters))))

    @property
    def digest(self) -> str:
        """SHA-256 in hex over all parts: the same for requests that mean the same."""
        value = dataclasses.asdict(self) | {"since": self.since_instant}
        return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def since_instant(self) -> str:
        """``since`` as a FHIR instant in UTC, or an empty text."""
        if self.since is None:
            return ""
        return self.since.astimezone(UTC).isoformat(timespec="auto").replace("+00:00", "Z")

    @property
    def path(self) -> str:
        """Path of the operation below the base URL."""
        return {
            "system": "/$export",
            "patient": "/Patient/$export",
            "group": f"/Group/{self.group_id}/$export",
        }[self.level]

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of the parameters that are sent, sorted."""
        return tuple(sorted({name for name, _ in self.parameters()}))

    def parameters(
        self, *, encode_filter_commas: bool = False, join_filters: bool = False, full_since: str = ""
    ) -> list[tuple[str, str]]:
        """Return the parameters of the kick-off as names and values.

        Args:
            encode_filter_commas: Whether commas within a filter are percent-encoded once more.
            join_filters: Whether filters are one list with commas instead of a parameter each.
            full_since: The ``_since`` to send where none is wanted.
        """
        filters = [text.replace(",", "%2C") if encode_filter_commas else text for text in self.type_filters]
        items = [
            ("_outputFormat", "application/fhir+ndjson"),
            ("_type", ",".join(self.types)),
            ("_since", self.since_instant or full_since),
            *(("_typeFilter", text) for text in ([",".join(filters)] if join_filters else filters)),
            *self.extra,
        ]
        return [(name, value) for name, value in items if value]


def parameters_resource(parameters: list[tuple[str, str]]) -> bytes:
    """Return parameters as a FHIR Parameters resource in JSON, for a kick-off by POST.

    Values that may be given several times are repeated: Bulk Data 4.0 has no lists with commas.
    """
    return orjson.dumps(
        {
            "resourceType": "Parameters",
            "parameter": [
                _parameter(name, part)
                for name, value in parameters
                for part in (value.split(",") if name in ("_type", "_elements", "patient") else [value])
            ],
        }
    )


def _parameter(name: str, value: str) -> dict[str, Any]:
    if name in ("_since", "_until"):
        return {"name": name, "valueInstant": value}
    if name == "allowPartialManifests":
        return {"name": name, "valueBoolean": value == "true"}
    if name == "patient":
        return {"name": name, "valueReference": {"reference": value}}
    return {"name": name, "valueString": value}


def check_request(request: ExportRequest, profile: ServerProfile, *, place: str) -> None:
    """Refuse before the kick-off what a server would refuse, or would ignore and export too much.

    Args:
        request: What to export.
        profile: What the server is like.
        place: The server's host, for messages.

    Raises:
        ExportRejectedError: The message names the part, and the remedy what to change.
    """

    def refuse(message: str, remedy: str) -> ExportRejectedError:
        return ExportRejectedError(message, place=place, remedy=remedy)

    kind = f"Servers of the profile '{profile.name}'"
    if request.level not in profile.levels:
        raise refuse(
            f"{kind} have no {request.level} export.", f"Use one of {', '.join(sorted(profile.levels))}."
        )
    refused = sorted(profile.unsupported_parameters.intersection(request.parameter_names))
    if refused:
        raise refuse(
            f"{kind} do not support {', '.join(refused)}.",
            "Leave it out; a server might ignore it and export something else.",
        )
    missing = sorted(profile.not_exported.intersection(request.types))
    if missing and len(missing) == len(request.types):
        raise refuse(
            f"{kind} leave {', '.join(missing)} out of bulk exports.", "Fetch them by search instead."
        )
    references = sorted(profile.reference_types.intersection(request.types))
    if references and not set(request.types) - profile.reference_types:
        raise refuse(
            f"{kind} export {', '.join(references)} only beside a clinical type.",
            "Add a clinical type such as Encounter to the types.",
        )
    _check_filters(request, profile, kind, refuse)


def _check_filters(
    request: ExportRequest,
    profile: ServerProfile,
    kind: str,
    refuse: Callable[[str, str], ExportRejectedError],
) -> None:
    if not request.type_filters:
        return
    if profile.filters_need_types and not request.types:
        raise refuse(f"{kind} take no _typeFilter without _type.", "List the resource types too.")
    targets: Counter[str] = Counter()
    for text in request.type_filters:
        target, mark, query = text.partition("?")
        if not mark:
            continue  # some servers take filters for all types, such as _filter=...
        targets[target] += 1
        if request.types and target not in request.types:
            raise refuse(
                "A _typeFilter is for a type that is not among the types.",
                "Add the type, or leave the filter out.",
            )
        if target in profile.unfilterable_types:
            raise refuse(f"{kind} do not filter {target}.", "Leave the filter out and filter afterwards.")
        names = {name.partition(":")[0] for name, _ in parse_qsl(query, keep_blank_values=True)}
        if misused := sorted(names & (_RESULT_PARAMETERS | profile.unfilterable_parameters)):
            raise refuse(
                f"{kind} do not take {', '.join(misused)} in a _typeFilter.",
                "Use a search parameter of the resource, or filter afterwards.",
            )
    most = profile.filters_per_type
    crowded = sorted(target for target, number in targets.items() if most is not None and number > most)
    if crowded:
        raise refuse(
            f"{kind} take {most} _typeFilter for each type; {', '.join(crowded)} has more.",
            "Join them into one query, or export the type in several runs.",
        )
