"""What sets one kind of server apart from another: data, no code.

The numbers in the comments (E3, O6) are those of the tables in docs/sandbox.md and docs/bulk-export.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from types import MappingProxyType
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cohortflow.errors import ConfigurationError

__all__ = ["GENERIC", "PROFILES", "CodeAction", "Level", "QuietHours", "ServerProfile"]

Level = Literal["system", "patient", "group"]

CodeAction = Literal["ignore", "warn", "partial", "restart", "tomorrow", "fail"]
"""What an issue code means, whatever severity came with it.

``ignore``: nothing is wrong. ``warn``: worth telling. ``partial``: data are missing. ``restart``: ask the
same again. ``tomorrow``: data are missing that the server gives tomorrow. ``fail``: what came is not what
was asked for.
"""

_MINUTE = 60.0
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class QuietHours:
    """A time of day in which a server is left alone.

    Attributes:
        start: When it starts, local time.
        end: When it ends; before ``start`` where it goes past midnight.
    """

    start: time
    end: time

    @classmethod
    def parse(cls, text: str) -> QuietHours:
        """Read ``07:00-18:30``.

        Raises:
            ValueError: It is no such text, or start and end are the same.
        """
        start, _, end = text.partition("-")
        hours = cls(time.fromisoformat(start.strip()), time.fromisoformat(end.strip()))
        if hours.start == hours.end or hours.start.tzinfo or hours.end.tzinfo:
            raise ValueError(text)
        return hours

    def end_of(self, now: datetime) -> datetime | None:
        """Return when the quiet time that ``now`` lies in ends; ``None`` outside of it."""
        for day in (now.date() - timedelta(days=1), now.date()):
            start = datetime.combine(day, self.start, now.tzinfo)
            end = datetime.combine(day, self.end, now.tzinfo)
            if self.end < self.start:
                end = datetime.combine(day + timedelta(days=1), self.end, now.tzinfo)
            if start <= now < end:
                return end
        return None


@dataclass(frozen=True, slots=True)
class ServerProfile:
    """How a kind of server departs from the Bulk Data specification.

    Attributes:
        name: What the ``profile`` field of a connection calls it.
        levels: Export operations that exist.
        unsupported_parameters: Parameters that the server would refuse or, worse, ignore.
        full_since: ``_since`` to send where everything is wanted; empty: none.
        client_id_header: Header in which the server wants the client id; empty: none.
        wildcard_scopes: Whether scopes for all types at once (``system/*.read``) are granted.
        accept: ``Accept`` of a kick-off.
        kick_off_method: ``GET``, or ``POST`` with a Parameters resource (the only form in Bulk Data 4.0).
        kick_off_attempts: How often a kick-off is tried; ``None``: as often as other requests.
        kick_off_window_seconds: How long the server refuses another export of the same group, where it
            does not say.
        single_flight: Whether the server runs one export of a client at a time.
        encode_filter_commas: Whether commas within a ``_typeFilter`` are percent-encoded once more.
        join_filters: Whether ``_typeFilter`` is one list with commas instead of a parameter each.
        filters_need_types: Whether ``_typeFilter`` is refused without ``_type``.
        filters_per_type: How many ``_typeFilter`` a type may have; ``None``: any number.
        unfilterable_types: Types that take no ``_typeFilter``.
        unfilterable_parameters: Search parameters that a ``_typeFilter`` must not hold.
        reference_types: Types that are exported only beside a clinical one.
        not_exported: Types that bulk exports leave out.
        withholds_members: Whether members of panels and results of reports come only by reference.
        poll_seconds: Wait between polls where the server does not say.
        max_wait_seconds: How long an export may take.
        max_outage_seconds: How long the server may stay unreachable while an export runs.
        requests_per_second: Most requests per second to one host; 0: as fast as they go.
        trust_counts: Whether the manifest's ``count`` is the number of resources in a file.
        page_limits: Most resources per search page, by type.
        search_demands: Search parameters of which one must be given, by type.
        quiet_hours: When no export and no download starts.
        time_zone: IANA name of the zone of ``quiet_hours`` and of the server's days.
        codes: What issue codes mean.
    """

    name: str = "generic"
    levels: frozenset[Level] = frozenset({"system", "patient", "group"})
    unsupported_parameters: frozenset[str] = frozenset()
    full_since: str = ""
    client_id_header: str = ""
    wildcard_scopes: bool = True
    accept: str = "application/fhir+json"
    kick_off_method: Literal["GET", "POST"] = "GET"
    kick_off_attempts: int | None = None
    kick_off_window_seconds: float = _DAY
    single_flight: bool = False
    encode_filter_commas: bool = False
    join_filters: bool = False
    filters_need_types: bool = False
    filters_per_type: int | None = None
    unfilterable_types: frozenset[str] = frozenset()
    unfilterable_parameters: frozenset[str] = frozenset()
    reference_types: frozenset[str] = frozenset()
    not_exported: frozenset[str] = frozenset()
    withholds_members: bool = False
    poll_seconds: float = 30.0
    max_wait_seconds: float = 30 * _DAY
    max_outage_seconds: float = _DAY / 4
    requests_per_second: float = 0.0
    trust_counts: bool = True
    page_limits: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    search_demands: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    quiet_hours: tuple[QuietHours, ...] = ()
    time_zone: str = "UTC"
    codes: Mapping[str, CodeAction] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def fatal_codes(self) -> frozenset[str]:
        """Codes that mean that what came is not what was asked for."""
        return frozenset(code for code, action in self.codes.items() if action == "fail")

    @property
    def supports_since(self) -> bool:
        """Whether ``_since`` works."""
        return "_since" not in self.unsupported_parameters

    def quiet_seconds(self, now: datetime) -> float:
        """Return for how many seconds from ``now`` on (with a time zone) the server is to be left alone."""
        local = now.astimezone(ZoneInfo(self.time_zone))
        ends = [end for hours in self.quiet_hours if (end := hours.end_of(local)) is not None]
        # Instants are compared: local times would be an hour wrong when clocks change meanwhile.
        return max((end.timestamp() - now.timestamp() for end in ends), default=0.0)

    def seconds_to_tomorrow(self, now: datetime) -> float:
        """Return the seconds from ``now`` (with a time zone) until the server's next day begins."""
        local = now.astimezone(ZoneInfo(self.time_zone))
        midnight = datetime.combine(local.date() + timedelta(days=1), time(), local.tzinfo)
        return midnight.timestamp() - now.timestamp()

    def with_overrides(self, values: Mapping[str, object]) -> ServerProfile:
        """Return a copy with single values changed, as a connection's extra gives them.

        Names are those of the attributes. Sets are given as lists, ``quiet_hours`` as a list of texts
        such as ``07:00-18:30``, mappings (``codes``, ``page_limits``, ...) as objects that are merged in.

        Raises:
            ConfigurationError: A name is unknown or a value is not of its kind; the message says which.
        """
        fields = {item.name for item in dataclasses.fields(self)} - {"name"}
        changes: dict[str, Any] = {}
        for name, value in values.items():
            if name not in fields:
                raise ConfigurationError(
                    f"A server profile has no value '{name}'.",
                    place="profile_overrides",
                    remedy=f"Use one of {', '.join(sorted(fields))}.",
                )
            try:
                changes[name] = _READERS[name](getattr(self, name), value)
            except (TypeError, ValueError, ZoneInfoNotFoundError):
                raise ConfigurationError(
                    f"The profile value '{name}' is not of its kind.",
                    place="profile_overrides",
                    remedy="Compare it with the table of profile values in the documentation.",
                ) from None
        return dataclasses.replace(self, **changes)


def _flag(_: object, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _text(_: object, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _seconds(_: object, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError
    return float(value)


def _positive_seconds(_: object, value: object) -> float:
    if not (seconds := _seconds(_, value)):
        raise ValueError
    return seconds


def _positive(_: object, value: object) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError
    return value


def _names(_: object, value: object) -> frozenset[str]:
    if not isinstance(value, list | tuple | set | frozenset):
        raise TypeError
    return frozenset(_text(_, item) for item in value)


def _levels(_: object, value: object) -> frozenset[str]:
    if not (levels := _names(_, value)) or not levels <= set(get_args(Level)):
        raise ValueError
    return levels


def _method(_: object, value: object) -> str:
    if not isinstance(value, str) or value not in ("GET", "POST"):
        raise ValueError
    return value


def _zone(_: object, value: object) -> str:
    return ZoneInfo(_text(_, value)).key


def _hours(_: object, value: object) -> tuple[QuietHours, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError
    return tuple(QuietHours.parse(_text(_, item)) for item in value)


def _merged(read: Callable[[object], object]) -> Callable[[Any, object], Mapping[str, Any]]:
    def merge(known: Any, value: object) -> Mapping[str, Any]:  # noqa: ANN401  # any of the mappings
        if not isinstance(value, Mapping):
            raise TypeError
        return MappingProxyType({**known, **{_text(None, name): read(item) for name, item in value.items()}})

    return merge


def _action(value: object) -> str:
    if not isinstance(value, str) or value not in get_args(CodeAction):
        raise ValueError
    return value


def _count(value: object) -> int:
    if (number := _positive(None, value)) is None:
        raise ValueError
    return number


_READERS: Mapping[str, Callable[[Any, object], Any]] = {
    "levels": _levels,
    "unsupported_parameters": _names,
    "full_since": _text,
    "client_id_header": _text,
    "wildcard_scopes": _flag,
    "accept": _text,
    "kick_off_method": _method,
    "kick_off_attempts": _positive,
    "kick_off_window_seconds": _seconds,
    "single_flight": _flag,
    "encode_filter_commas": _flag,
    "join_filters": _flag,
    "filters_need_types": _flag,
    "filters_per_type": _positive,
    "unfilterable_types": _names,
    "unfilterable_parameters": _names,
    "reference_types": _names,
    "not_exported": _names,
    "withholds_members": _flag,
    "poll_seconds": _positive_seconds,
    "max_wait_seconds": _positive_seconds,
    "max_outage_seconds": _positive_seconds,
    "requests_per_second": _seconds,
    "trust_counts": _flag,
    "page_limits": _merged(_count),
    "search_demands": _merged(lambda value: tuple(sorted(_names(None, value)))),
    "quiet_hours": _hours,
    "time_zone": _zone,
    "codes": _merged(_action),
}


GENERIC = ServerProfile()
"""A server that keeps to Bulk Data 2.0 or 3.0."""

EPIC = ServerProfile(
    "epic",
    levels=frozenset({"group"}),  # E1
    unsupported_parameters=frozenset({"_since"}),  # E3
    client_id_header="Epic-Client-ID",  # E10
    accept="application/fhir+json",  # E11
    kick_off_attempts=1,  # E4: never a loop
    kick_off_window_seconds=_DAY,  # E4
    encode_filter_commas=True,  # E12
    not_exported=frozenset({"Binary", "MedicationAdministration"}),  # E19, E20
    withholds_members=True,  # E14
    poll_seconds=10 * _MINUTE,  # E5
    max_wait_seconds=30 * _DAY,  # E6
    search_demands=MappingProxyType(
        {"Observation": ("category", "code"), "EpisodeOfCare": ("type",)}  # E13, E20
    ),
    codes=MappingProxyType(
        {  # E16, E17
            "4101": "ignore",  # nothing found
            "4103": "warn",  # the resource was deleted
            "4107": "warn",  # merged into another
            "4113": "restart",  # the page's session expired
            "4119": "partial",  # further data may exist
            "4122": "fail",  # a parameter was ignored
            "4127": "fail",  # more than 100 patients
            "4130": "partial",  # break-the-glass
            "4131": "partial",
            "4134": "partial",
            "4135": "tomorrow",  # daily cap of documents
            "59100": "fail",  # a parameter was ignored
            "59108": "fail",  # a search without what it needs
            "59204": "warn",  # the app lacks this API
        }
    ),
)
"""Epic: one Group at a time, once a day."""

_REFERENCES = frozenset({"Location", "Medication", "Organization", "Practitioner", "PractitionerRole"})

CERNER = ServerProfile(
    "cerner",
    levels=frozenset({"group"}),  # O4
    unsupported_parameters=frozenset({"_elements", "patient"}),  # O7
    wildcard_scopes=False,  # O1
    accept="application/fhir+json",  # O2
    kick_off_attempts=1,  # O3: the scheduler waits, not a worker
    single_flight=True,  # O3
    encode_filter_commas=True,
    join_filters=True,  # O6
    filters_need_types=True,  # O6
    filters_per_type=1,  # O6
    unfilterable_types=frozenset({"Patient", "Provenance", *_REFERENCES}),  # O6
    unfilterable_parameters=frozenset(  # O6
        {"_id", "_lastUpdated", "encounter", "identifier", "patient", "subject"}
    ),
    reference_types=_REFERENCES,  # O5
    not_exported=frozenset({"Binary"}),  # O10
    poll_seconds=_MINUTE,
    page_limits=MappingProxyType(
        {"Observation": 200, "DocumentReference": 100, "DiagnosticReport": 100, "Patient": 20}  # O12
    ),
)
"""Oracle Health Millennium: one export at a time, strict about filters."""

SOARIAN = dataclasses.replace(
    CERNER,
    name="soarian",
    levels=frozenset({"patient", "group"}),  # O15: 501 where the Patient export is disabled
)
"""Oracle Health Soarian."""

HDR = dataclasses.replace(
    CERNER,
    name="hdr",
    levels=frozenset({"system", "patient", "group"}),
    full_since="1900-01-01T00:00:00Z",  # O15: without it, only the last 24 hours come
)
"""Oracle Healthcare Data Repository."""

PROFILES: Mapping[str, ServerProfile] = MappingProxyType(
    {profile.name: profile for profile in (GENERIC, EPIC, CERNER, SOARIAN, HDR)}
)
"""Profiles by name."""
