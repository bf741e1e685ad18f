"""How vendors' search differs: the queries per resource type, page sizes, issue codes. Data only.

The codes in the comments (E13, O12) are those of ``docs/sandbox.md``, which says where each is
known from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from cohortflow.connectors.profiles.server import CodeAction, ServerProfile

__all__ = ["SUPPORTING_TYPES", "Meaning", "QueryRule", "SearchProfile", "search_profile"]

Parameters = tuple[tuple[str, str], ...]

SUPPORTING_TYPES = frozenset({"Location", "Medication", "Organization", "Practitioner", "PractitionerRole"})
"""Types without a patient, which are fetched where other resources refer to them."""


class Meaning(StrEnum):
    """What an issue of an OperationOutcome means for an extraction."""

    EMPTY = "empty"
    """Nothing was found, and that is all."""
    MERGED = "merged"
    """The patient lives on under another id."""
    DELETED = "deleted"
    """It is no longer there."""
    EXPIRED_PAGE = "expired-page"
    """The search has to be started again."""
    PARTIAL = "partial"
    """There may be more than what came."""
    RESTRICTED = "break-the-glass"
    """The record is withheld from us."""
    DAILY_LIMIT = "daily-limit"
    """No more today."""
    IGNORED = "ignored-parameter"
    """A parameter took no effect."""
    REFUSED = "refused"
    """What came is not what was asked for."""
    NOT_ENABLED = "not-enabled"
    """A part of what was asked for is not among the client's registered APIs."""


@dataclass(frozen=True, slots=True)
class QueryRule:
    """How one resource type is searched.

    Attributes:
        splits: Parameters of each query that is sent; together they cover the type.
        count: ``_count``; ``None``: the server's default.
        one_of: The server refuses a query that has none of these parameters. Where the rule's own
            splits hold none, the study has to give a filter.
        provenance: Whether ``_revinclude=Provenance:target`` is understood.
    """

    splits: tuple[Parameters, ...] = ((),)
    count: int | None = None
    one_of: frozenset[str] = frozenset()
    provenance: bool = False


@dataclass(frozen=True, slots=True)
class SearchProfile:
    """How the search of a kind of server departs from FHIR R4.

    Attributes:
        name: As that of the ``ServerProfile``.
        splits: Per type, the queries that together cover it, where one does not.
        one_of: Per type, parameters of which a query has to have one.
        counts: Per type, the resources per page to ask for.
        provenance: Whether ``_revinclude=Provenance:target`` is understood.
        meanings: What issue codes mean: vendors' codes and those of http://hl7.org/fhir/issue-type.
        patient_search: Whether patients may be searched without naming one.
        type_search: Whether types may be searched without naming a patient.
        batch_ids: Ids per ``_id=`` search; 1: resources are read one by one.
        since: Whether ``_lastUpdated`` can be searched for.
        not_with_since: Parameters that may not stand beside ``_lastUpdated``.
        check_self_link: Whether a ``self`` link without one of our filters means that it was ignored.
    """

    name: str = "generic"
    splits: Mapping[str, tuple[Parameters, ...]] = field(default_factory=lambda: MappingProxyType({}))
    one_of: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    provenance: bool = False
    meanings: Mapping[str, Meaning] = field(default_factory=lambda: _STANDARD)
    patient_search: bool = True
    type_search: bool = True
    batch_ids: int = 50
    since: bool = True
    not_with_since: frozenset[str] = frozenset()
    check_self_link: bool = True

    def rule(self, resource_type: str) -> QueryRule:
        """Return how a type is searched."""
        return QueryRule(
            self.splits.get(resource_type, ((),)),
            self.counts.get(resource_type),
            frozenset(self.one_of.get(resource_type, ())),
            self.provenance and resource_type not in _WITHOUT_PROVENANCE,
        )


_WITHOUT_PROVENANCE = SUPPORTING_TYPES | {"Binary", "Group", "Patient", "Provenance"}

_STANDARD: Mapping[str, Meaning] = MappingProxyType(
    {
        "not-supported": Meaning.IGNORED,
        "suppressed": Meaning.RESTRICTED,
        "deleted": Meaning.DELETED,
        "incomplete": Meaning.PARTIAL,
    }
)

_ACTIONS: Mapping[CodeAction, Meaning] = MappingProxyType(
    {
        "ignore": Meaning.EMPTY,
        "partial": Meaning.PARTIAL,
        "restart": Meaning.EXPIRED_PAGE,
        "tomorrow": Meaning.DAILY_LIMIT,
        "fail": Meaning.REFUSED,
    }
)

# What a search has to know besides what the action of a code says; a profile with another action wins.
_FINER: Mapping[str, tuple[CodeAction, Meaning]] = MappingProxyType(
    {  # E16, E17
        "4103": ("warn", Meaning.DELETED),
        "4107": ("warn", Meaning.MERGED),
        "4122": ("fail", Meaning.IGNORED),
        "4130": ("partial", Meaning.RESTRICTED),
        "4131": ("partial", Meaning.RESTRICTED),
        "4134": ("partial", Meaning.RESTRICTED),
        "59100": ("fail", Meaning.IGNORED),
        "59204": ("warn", Meaning.NOT_ENABLED),
    }
)


def _categories(*names: str) -> tuple[Parameters, ...]:
    return tuple((("category", name),) for name in names)


_EPIC = SearchProfile(
    name="epic",
    # E13: procedure, therapy and activity are refused.
    splits=MappingProxyType(
        {
            "Observation": _categories(
                "social-history", "vital-signs", "laboratory", "imaging", "survey", "exam"
            )
        }
    ),
    provenance=True,
    patient_search=False,  # E1
    type_search=False,
    batch_ids=1,
    since=False,  # E3
)

_CERNER = SearchProfile(
    name="cerner",
    provenance=True,
    patient_search=False,
    type_search=False,
    batch_ids=20,
    not_with_since=frozenset({"date"}),  # O13
)

_KNOWN: Mapping[str, SearchProfile] = MappingProxyType(
    {
        "generic": SearchProfile(),
        "epic": _EPIC,
        "cerner": _CERNER,
        "soarian": dataclasses.replace(_CERNER, name="soarian"),
        "hdr": SearchProfile(name="hdr"),
    }
)


def search_profile(server: ServerProfile) -> SearchProfile:
    """Return how a server of this profile is searched.

    Page sizes, demands and codes are the server profile's, so that a connection's overrides hold here
    too; the rest is that of the profile's name, or what FHIR says where the name is unknown.
    """
    return dataclasses.replace(
        _KNOWN.get(server.name, _KNOWN["generic"]),
        one_of=server.search_demands,
        # The largest page that the vendor allows (O12); its default needs no asking for.
        counts=server.page_limits,
        meanings=MappingProxyType({**_STANDARD, **_meanings(server.codes)}),
    )


def _meanings(codes: Mapping[str, CodeAction]) -> dict[str, Meaning]:
    found: dict[str, Meaning] = {}
    for code, action in codes.items():
        expected, meaning = _FINER.get(code, (action, _ACTIONS.get(action)))
        if expected != action:
            meaning = _ACTIONS.get(action)
        if meaning is not None:
            found[code] = meaning
    return found
