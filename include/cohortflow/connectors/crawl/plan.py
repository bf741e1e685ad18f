"""Which searches a crawl consists of, per resource type and patient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl

from cohortflow.connectors.crawl.request import CrawlRequest
from cohortflow.connectors.profiles.search import SUPPORTING_TYPES, SearchProfile
from cohortflow.connectors.search.client import SearchQuery
from cohortflow.errors import ExportRejectedError

__all__ = ["CrawlPlan", "Unit"]

# Types of FHIR R4 whose records of a patient are not found by a parameter 'patient'.
_SUBJECT_PARAMETERS = {"AdverseEvent": "subject", "SupplyRequest": "subject", "Schedule": "actor"}
_WITHOUT_PATIENT = SUPPORTING_TYPES | {
    "Binary",
    "Endpoint",
    "Group",
    "HealthcareService",
    "Substance",
    "ValueSet",
}
_PROVENANCE = "Provenance"


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit of work.

    Attributes:
        key: Its name in the state and in names of files.
        type: Resource type.
        first: Position of its first patient; 0 for a type that is searched as a whole.
        last: Position after its last patient; 0 likewise.
        query: The search of a type as a whole; ``None`` for a batch of patients.
    """

    key: str
    type: str
    first: int = 0
    last: int = 0
    query: SearchQuery | None = None


@dataclass(frozen=True, slots=True)
class CrawlPlan:
    """The searches of one request on one kind of server."""

    request: CrawlRequest
    profile: SearchProfile

    @property
    def types(self) -> tuple[str, ...]:
        """The types that are searched for themselves, not skipped and not included with others."""
        skipped = self.skipped
        return tuple(
            name for name in self.request.types if name not in skipped and not self._comes_along(name)
        )

    @property
    def skipped(self) -> dict[str, str]:
        """The types that are not, with the reason."""
        return {name: reason for name in self.request.types if (reason := self._reason_to_skip(name))}

    def check_support(self, host: str) -> None:
        """Refuse what this kind of server cannot answer, or would answer with something else.

        Raises:
            ExportRejectedError: It is so.
        """
        if fault := self._unsupported():
            raise ExportRejectedError(
                f"Servers of the profile '{self.profile.name}' cannot be searched {fault}.",
                place=host,
                remedy="Crawl the patients of a group or of a list, or export in bulk.",
            )

    def _unsupported(self) -> str:
        request, profile = self.request, self.profile
        if request.since is not None and not profile.since:
            return "by _lastUpdated"
        if request.patients is None and not profile.type_search:
            return "without naming patients"
        if (
            request.patients is not None
            and request.patients.search is not None
            and not profile.patient_search
        ):
            return "for patients"
        names = {name for kind in self.types for query in self.queries(kind) for name in query.names}
        clash = profile.not_with_since & names if request.since is not None else ()
        return f"by _lastUpdated and {', '.join(sorted(clash))} at once" if clash else ""

    def units(self, patients: int, batch_size: int) -> Iterator[Unit]:
        """Yield all units of work in order; the same ones each time.

        Patient comes first: reading it tells who was merged into whom.
        """
        types = sorted(self.types, key=lambda name: (name != "Patient", name))
        if self.request.patients is None:
            for name in types:
                for number, query in enumerate(self.queries(name)):
                    yield Unit(f"{name}.{number:04d}", name, query=query)
            return
        for number, first in enumerate(range(0, patients, batch_size)):
            for name in types:
                yield Unit(f"{name}.{number:04d}", name, first, min(first + batch_size, patients))

    def queries(self, resource_type: str, patient: str = "") -> tuple[SearchQuery, ...]:
        """Return the searches of a type, of one patient where one is given."""
        rule = self.profile.rule(resource_type)
        fixed: list[tuple[str, str]] = []
        if patient:
            fixed.append((_SUBJECT_PARAMETERS.get(resource_type, "patient"), patient))
        options: list[tuple[str, str]] = []
        known = self.request.known_patients
        if self.request.last_updated and (not patient or known is None or patient in known):
            options.append(("_lastUpdated", self.request.last_updated))
        if rule.count:
            options.append(("_count", str(rule.count)))
        if rule.provenance and _PROVENANCE in self.request.types:
            options.append(("_revinclude", "Provenance:target"))
        return tuple(
            SearchQuery(resource_type, (*fixed, *split, *options)) for split in self._splits(resource_type)
        )

    def _splits(self, resource_type: str) -> tuple[tuple[tuple[str, str], ...], ...]:
        given = tuple(
            tuple(parse_qsl(query, keep_blank_values=True))
            for name, _, query in (text.partition("?") for text in self.request.filters)
            if name == resource_type
        )
        return given or self.profile.rule(resource_type).splits

    def _reason_to_skip(self, resource_type: str) -> str:
        rule = self.profile.rule(resource_type)
        splits = self._splits(resource_type)
        if not splits or (rule.one_of and not all(rule.one_of & dict(split).keys() for split in splits)):
            return f"needs a filter with {' or '.join(sorted(rule.one_of))}"
        if self.request.patients is not None and resource_type in _WITHOUT_PATIENT:
            return "has no patient: fetched where others refer to it"
        return ""

    def _comes_along(self, resource_type: str) -> bool:
        return resource_type == _PROVENANCE and any(
            self.profile.rule(name).provenance for name in self.request.types if name != _PROVENANCE
        )
