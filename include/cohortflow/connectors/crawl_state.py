"""What is asked of a crawl, and what is remembered of it, so that any worker can go on with it."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cohortflow.connectors.state import Phase, RawSink
from cohortflow.errors import InputError, SourceError

__all__ = ["CrawlLimits", "CrawlRequest", "CrawlState", "PartFile", "PatientSelection", "UnitState"]

_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
_ID = re.compile(r"[A-Za-z0-9\-._]{1,255}")


@dataclass(frozen=True, slots=True)
class PatientSelection:
    """Whose records are crawled: exactly one of these.

    Attributes:
        group_id: The members of a Group.
        ids: These patients, such as those of a former export.
        search: Those that a search for Patient finds, as parameters; a server may not allow it.
    """

    group_id: str = ""
    ids: tuple[str, ...] = field(default=(), repr=False)
    search: tuple[tuple[str, str], ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if sum((bool(self.group_id), bool(self.ids), self.search is not None)) != 1:
            raise InputError(
                "Patients are to be chosen in one way.", remedy="Name a group, or ids, or a search."
            )
        if not all(_ID.fullmatch(name) for name in (*self.ids, *filter(None, [self.group_id]))):
            raise InputError(
                "A patient or group is no FHIR id.",
                remedy="Give ids alone, without 'Patient/' or 'Group/' before them.",
            )
        object.__setattr__(self, "ids", tuple(dict.fromkeys(self.ids)))


@dataclass(frozen=True, slots=True)
class CrawlRequest:
    """What to search for.

    Attributes:
        types: Resource types.
        patients: Whose records; ``None``: types are searched as a whole.
        since: Only what changed after this time; patients that are not among ``known_patients`` are
            fetched with their whole history.
        known_patients: Whom ``since`` holds for; ``None``: everybody.
        overlap: How far before ``since`` the search begins, because a server's index may lag.
        filters: Searches such as ``Observation?category=laboratory``, which take the place of the
            profile's own for their type.
    """

    types: tuple[str, ...]
    patients: PatientSelection | None = None
    since: datetime | None = None
    known_patients: frozenset[str] | None = field(default=None, repr=False)
    overlap: timedelta = timedelta(minutes=10)
    filters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.types:
            raise InputError("A search needs resource types.", remedy="Name those that the study reads.")
        for name in self.types:
            if not _TYPE.fullmatch(name):
                raise InputError(f"'{name}' is no resource type.", remedy="Use FHIR names such as Patient.")
        if self.since is not None and self.since.tzinfo is None:
            raise InputError(
                "'since' has no time zone.", remedy="Give it in UTC, such as 2026-01-31T00:00:00Z."
            )
        for text in self.filters:
            if text.partition("?")[0] not in self.types or not text.partition("?")[2]:
                raise InputError(
                    "A filter is no search of a type that is asked for.",
                    remedy="Write it like Observation?category=laboratory.",
                )
        object.__setattr__(self, "types", tuple(sorted(set(self.types))))
        object.__setattr__(self, "filters", tuple(sorted(set(self.filters))))

    @property
    def mode(self) -> Literal["crawl", "search"]:
        """Per patient, or per type."""
        return "search" if self.patients is None else "crawl"

    @property
    def last_updated(self) -> str:
        """Value of ``_lastUpdated``; empty without ``since``."""
        if self.since is None:
            return ""
        start = (self.since - self.overlap).astimezone(UTC)
        return "ge" + start.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    @property
    def digest(self) -> str:
        """SHA-256 in hex over all parts: the same for requests that mean the same."""
        known = None if self.known_patients is None else sorted(self.known_patients)
        value = dataclasses.asdict(self) | {
            "mode": self.mode,
            "since": self.last_updated,
            "overlap": None,
            "known_patients": known,
        }
        return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class CrawlLimits:
    """How a crawl is cut into parts, and what it puts up with.

    Attributes:
        patients_per_part: Patients of one part file, at least.
        max_batches: Batches of patients at most: the more patients, the larger a batch.
        resources_per_part: Resources of one part file of a type that is searched as a whole.
        max_failed_share: Largest share of queries of one type that may fail.
        min_failures: So many failures are always put up with, unless they are all there is.
        probe_failures: After so many refusals of a type without one success, it is not asked for more.
    """

    patients_per_part: int = 25
    max_batches: int = 64
    resources_per_part: int = 20_000
    max_failed_share: float = 0.05
    min_failures: int = 5
    probe_failures: int = 10

    def batch_size(self, patients: int) -> int:
        """Return how many patients make a batch."""
        return max(self.patients_per_part, -(-patients // self.max_batches))


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class PartFile(_Part):
    """One file of a crawl: type, name in the sink, resources, bytes, SHA-256 in hex."""

    type: str
    name: str
    lines: int
    bytes: int
    sha256: str


class UnitState(_Part):
    """One unit of work: a type of a batch of patients, or one search of a type.

    Attributes:
        done: Whether nothing is left of it.
        parts: How often a part of it was completed: the number of its next part file, less one.
        rest: Positions of the patients that are left; ``None``: all.
        tries: How often some of its queries found the server failing, and no other query did.
        cursor: URL of the page to go on with.
        files: Its files.
    """

    done: bool = False
    parts: int = 0
    rest: tuple[int, ...] | None = None
    tries: int = 0
    cursor: str = Field(default="", repr=False)
    files: tuple[PartFile, ...] = ()


class CrawlState(_Part):
    """State of one crawl, kept as JSON beside its files.

    Attributes:
        version: Of this layout.
        mode: Per patient, or per type.
        server: FHIR base URL.
        request_digest: ``CrawlRequest.digest``.
        types: Resource types that were asked for.
        skipped: Those that are not searched, with the reason.
        phase: ``pending``, ``running``, ``complete``, ``failed`` or ``cancelled``.
        transaction_time: FHIR instant, the server's, when the crawl began.
        patients: How many there are.
        batch_size: Patients of one unit.
        units: Units of work by key.
        tallies: Per type, how many queries came to which end; ``ok`` is the good one.
        closed: Types that the server does not let us have, with the reason.
        waiting: Types that are to wait, until when (seconds since the epoch).
        survivors: Merged patients: the id under which the record lives on.
    """

    version: Literal[1] = 1
    mode: Literal["crawl", "search"]
    server: str
    request_digest: str
    types: tuple[str, ...] = ()
    skipped: dict[str, str] = Field(default_factory=dict)
    phase: Phase = Phase.RUNNING
    transaction_time: str = ""
    patients: int = 0
    batch_size: int = 1
    units: dict[str, UnitState] = Field(default_factory=dict)
    tallies: dict[str, dict[str, int]] = Field(default_factory=dict)
    closed: dict[str, str] = Field(default_factory=dict)
    waiting: dict[str, float] = Field(default_factory=dict)
    survivors: dict[str, str] = Field(default_factory=dict, repr=False)

    @property
    def files(self) -> tuple[PartFile, ...]:
        """All files of completed parts."""
        return tuple(file for unit in self.units.values() for file in unit.files)

    def evolve(self, **changes: object) -> CrawlState:
        """Return a copy with other values."""
        return self.model_copy(update=changes)

    def with_tallies(self, resource_type: str, counts: Mapping[str, int]) -> CrawlState:
        """Return a copy with more ends of queries counted."""
        known = dict(self.tallies.get(resource_type, {}))
        for name, count in counts.items():
            known[name] = known.get(name, 0) + count
        return self.evolve(tallies={**self.tallies, resource_type: known})

    @classmethod
    async def read(cls, sink: RawSink) -> CrawlState | None:
        """Read the state of a sink, or ``None`` where nothing was started.

        Raises:
            SourceError: The state was written by another mode or version, or damaged.
        """
        data = await sink.read_state()
        if data is None:
            return None
        try:
            return cls.model_validate_json(data)
        except ValidationError:
            raise SourceError(
                "The state of the crawl cannot be read: it is damaged, or from another mode or version.",
                remedy="Delete the folder of this extraction in the raw zone; the next run begins anew.",
            ) from None

    async def write(self, sink: RawSink) -> None:
        """Write the state of a sink."""
        await sink.write_state(self.model_dump_json().encode())
