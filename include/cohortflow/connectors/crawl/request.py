"""What is asked of a crawl, and how it is cut into parts."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import orjson

from cohortflow.errors import InputError

__all__ = ["CrawlLimits", "CrawlRequest", "PatientSelection"]

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
