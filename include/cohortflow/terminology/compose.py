"""The compose of a FHIR ValueSet, read and checked; what it means is for `value_set` and `expansion` to say.

Source: https://hl7.org/fhir/R4/valueset.html#compositions, https://hl7.org/fhir/R5/valueset.html (the filter
operators), https://terminology.hl7.org/SNOMEDCT.html (the property ``constraint`` and the implicit value sets
of SNOMED CT).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from cohortflow.errors import CatalogError, InputError
from cohortflow.model import Catalog
from cohortflow.terminology.code_patterns import code_list_pattern
from cohortflow.terminology.ecl import parse_ecl
from cohortflow.terminology.resource import Element, refuse, validate_resource
from cohortflow.terminology.systems import SNOMED_CT, canonical_code, canonical_system

__all__ = [
    "FILTER_OPERATORS",
    "Compose",
    "ComposeFilter",
    "ComposePart",
    "ListedConcept",
    "check_pattern",
    "find_value_set",
    "implicit_value_set",
    "load_compose",
    "parse_compose",
]

FILTER_OPERATORS = (
    "=",
    "is-a",
    "descendent-of",
    "is-not-a",
    "regex",
    "in",
    "not-in",
    "generalizes",
    "child-of",
    "descendent-leaf",
    "exists",
)
"""Of R4 and R5."""
ECL_PROPERTIES = frozenset({"constraint", "expression"})
"""Properties of SNOMED CT whose value is an expression constraint."""
_IMPLICIT = re.compile(
    r"^(?P<edition>https?://snomed\.info/sct(?:/[^?]*)?)\?fhir_vs(?:=(?P<what>.*))?$", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class ListedConcept:
    """A concept that a set lists, with the name that the set gives it."""

    code: str
    display: str | None = None


@dataclass(frozen=True, slots=True)
class ComposeFilter:
    """A condition on a property of a concept."""

    property: str
    op: str
    value: str


@dataclass(frozen=True, slots=True)
class ComposePart:
    """One include or exclude: all its conditions hold for a member.

    Attributes:
        system: Canonical URI; ``None`` for a part that only refers to other sets.
        version: Version of the code system that it is pinned to; ``None`` for the newest.
        concepts: What it lists; ``None`` where it does not.
        filters: Conditions.
        value_sets: Canonical URLs of sets that hold the member too.
    """

    system: str | None = None
    version: str | None = None
    concepts: tuple[ListedConcept, ...] | None = None
    filters: tuple[ComposeFilter, ...] = ()
    value_sets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Compose:
    """What a value set is made of.

    Attributes:
        name: Name in the catalog.
        url: Canonical URL.
        version: Business version, or empty.
        title: Name for people.
        include: A member is in one of these ...
        exclude: ... and in none of these.
        inactive: Whether filters find retired codes too. Listed codes are members in any case.
        sets: The sets that it refers to and that are known, by URL as it writes it.
        place: File that it is from, for messages.
    """

    name: str
    url: str
    version: str
    title: str
    include: tuple[ComposePart, ...]
    exclude: tuple[ComposePart, ...] = ()
    inactive: bool = False
    sets: Mapping[str, Compose] = field(default_factory=dict)
    place: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of what the set says, with the sets that it refers to; its names do not count."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()

    def _content(self) -> dict[str, Any]:
        return {
            "include": [dataclasses.asdict(part) for part in self.include],
            "exclude": [dataclasses.asdict(part) for part in self.exclude],
            "inactive": self.inactive,
            "sets": {url: other._content() for url, other in self.sets.items()},  # noqa: SLF001 - same class
        }


class _Concept(Element):
    code: str
    display: str | None = None


class _Filter(Element):
    property: str
    op: str
    value: str


class _Part(Element):
    system: str | None = None
    version: str | None = None
    concept: tuple[_Concept, ...] = ()
    filter: tuple[_Filter, ...] = ()
    valueSet: tuple[str, ...] = ()  # noqa: N815 - FHIR's spelling


class _Compose(Element):
    inactive: bool = False
    include: tuple[_Part, ...]
    exclude: tuple[_Part, ...] = ()


class _Resource(Element):
    url: str = ""
    version: str | None = None
    title: str | None = None
    compose: _Compose


def load_compose(catalog: Catalog, name: str) -> Compose:
    """Read a ValueSet of the catalog, with the sets of the catalog that it refers to.

    Raises:
        CatalogError: There is no such set, or one of them is malformed, or includes itself.
    """
    return _load(catalog, name, ())


def parse_compose(
    data: Mapping[str, Any],
    *,
    name: str,
    place: str,
    find: Callable[[str], Compose | None] = lambda _url: None,
) -> Compose:
    """Read a ValueSet from JSON.

    Args:
        data: The resource.
        name: Name to give it.
        place: File, for messages.
        find: Returns a set that it refers to; ``None`` for one that must be among the loaded terminologies.

    Raises:
        CatalogError: It is malformed. Names file and element.
    """
    resource = validate_resource(_Resource, "ValueSet", data, place)
    if not resource.compose.include:
        raise refuse(place, "compose.include", "The set includes nothing.", "Give it an include.")
    include, exclude = (
        tuple(
            _read_part(part, place, f"compose.{kind}[{index}]")
            for index, part in enumerate(getattr(resource.compose, kind))
        )
        for kind in ("include", "exclude")
    )
    urls = sorted({url for part in (*include, *exclude) for url in part.value_sets})
    found = {url: _read_implicit(url, place) or find(url) for url in urls}
    return Compose(
        name,
        resource.url,
        resource.version or "",
        resource.title or name,
        include,
        exclude,
        inactive=resource.compose.inactive,
        sets={url: other for url, other in found.items() if other is not None},
        place=place,
    )


def implicit_value_set(url: str) -> Compose | None:
    """Return the value set that a URL of SNOMED CT stands for; ``None`` for any other URL.

    ``http://snomed.info/sct?fhir_vs`` is all of it, ``...=isa/<code>``, ``...=refset/<code>`` and
    ``...=ecl/<expression>`` parts. An edition and version before the question mark pin the release.

    Raises:
        InputError: The URL is of this form, and malformed.
    """
    found = _IMPLICIT.match(url)
    if found is None:
        return None
    edition, what = found["edition"], unquote(found["what"] or "")
    kind, _, value = what.partition("/")
    constraint = {"": "*", "isa": f"<< {value}", "refset": f"^ {value or '*'}", "ecl": value}.get(kind)
    if constraint is None or (kind in {"isa", "ecl"} and not value):
        raise InputError(
            f"The implicit value set '{what}' of SNOMED CT is not known.",
            place=url,
            remedy="Use fhir_vs=isa/<code>, fhir_vs=refset/<code> or fhir_vs=ecl/<expression>.",
        )
    parse_ecl(constraint)
    part = ComposePart(
        system=SNOMED_CT.uri,
        version=edition if "/version/" in edition else None,
        filters=(ComposeFilter("constraint", "=", constraint),),
    )
    return Compose(url, url, "", url, (part,), place=url)


def find_value_set(catalog: Catalog, url: str) -> str | None:
    """Return the name of the catalog's value set with a canonical URL, which may have a version."""
    wanted, _, version = url.partition("|")
    for name in catalog.names("valuesets"):
        entry = catalog.load("valuesets", name)
        if entry.get("url") == wanted and version in {"", entry.get("version")}:
            return name
    return None


def _load(catalog: Catalog, name: str, above: tuple[str, ...]) -> Compose:
    place = str(catalog.path("valuesets", name))
    if name in above:
        problem = f"The set includes itself: {' > '.join((*above, name))}."
        raise CatalogError(problem, place=place, remedy="Remove one of the references.")

    def find(url: str) -> Compose | None:
        other = find_value_set(catalog, url)
        return _load(catalog, other, (*above, name)) if other is not None else None

    return parse_compose(catalog.load("valuesets", name), name=name, place=place, find=find)


def _read_implicit(url: str, place: str) -> Compose | None:
    try:
        return implicit_value_set(url)
    except InputError as error:
        raise CatalogError(f"{url}: {error.message}", place=place, remedy=error.remedy) from None


def _read_part(part: _Part, place: str, path: str) -> ComposePart:
    if part.system is None and (part.concept or part.filter):
        raise refuse(place, path, "The code system is missing.", "Give 'system'.")
    if part.system is None and not part.valueSet:
        raise refuse(place, path, "The part is empty.", "Give 'system' or 'valueSet'.")
    if part.concept and part.filter:
        raise refuse(place, path, "Concepts and filters exclude each other (vsd-3).", "Make two includes.")
    system = canonical_system(part.system) if part.system is not None else None
    return ComposePart(
        system=system,
        version=part.version,
        concepts=tuple(ListedConcept(canonical_code(system or "", c.code), c.display) for c in part.concept)
        or None,
        filters=tuple(
            _read_filter(rule, system or "", place, f"{path}.filter[{index}]")
            for index, rule in enumerate(part.filter)
        ),
        value_sets=part.valueSet,
    )


def _read_filter(rule: _Filter, system: str, place: str, path: str) -> ComposeFilter:
    if rule.op not in FILTER_OPERATORS:
        raise refuse(
            place,
            path,
            f"The operator '{rule.op}' is not known.",
            f"Use one of: {', '.join(FILTER_OPERATORS)}.",
        )
    try:
        _check_value(rule, system)
    except InputError as error:
        raise refuse(place, path, f"{error.place}: {error.message}", error.remedy) from None
    except ValueError as error:
        raise refuse(place, path, str(error), "Mend the filter.") from None
    return ComposeFilter(rule.property, rule.op, rule.value)


def _check_value(rule: _Filter, system: str) -> None:
    """Refuse a value that its operator cannot have.

    Raises:
        InputError: An expression constraint is malformed.
        ValueError: Another value is.
    """
    if rule.property in ECL_PROPERTIES and system == SNOMED_CT.uri:
        if rule.op != "=":
            raise ValueError(f"The property '{rule.property}' has the operator '=' alone.")
        parse_ecl(rule.value)
    elif rule.property == "code" and rule.op in {"in", "not-in"}:
        code_list_pattern(system, rule.value)
    elif rule.op == "regex":
        check_pattern(rule.value)
    elif rule.op == "exists" and rule.value not in {"true", "false"}:
        raise ValueError("The value of 'exists' is 'true' or 'false'.")


def check_pattern(pattern: str) -> None:
    """Refuse a regular expression that Polars cannot run in linear time.

    Raises:
        ValueError: The message tells the problem.
    """
    if re.search(r"\(\?(?!:)|\\[1-9]", pattern):
        raise ValueError(
            "The regular expression has look-around or back-references, which are not supported."
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"The regular expression is malformed at character {error.pos}.") from None
