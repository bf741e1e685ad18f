"""FHIR ValueSet: its compose as one membership test over columns.

Source: https://hl7.org/fhir/R4/valueset.html#compositions. An include is the intersection of its parts, a
value set the union of its includes without its excludes. Concepts, references to other sets of the catalog
and filters that the code alone decides are supported; anything else is refused when the set is read. What
needs the tables of a terminology is in `compose` and `expansion`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cohortflow.errors import CatalogError
from cohortflow.model import Catalog
from cohortflow.terminology.code_patterns import code_list_pattern, subtree_pattern
from cohortflow.terminology.resource import Element, refuse, validate_resource
from cohortflow.terminology.systems import ICD10, ICD10CM, canonical_code, canonical_system

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ValueSet", "ValueSetPart", "load_value_set", "parse_value_set"]


@dataclass(frozen=True, slots=True)
class ValueSetPart:
    """One include or exclude: all its conditions hold for a member.

    Attributes:
        system: Canonical URI; ``None`` for a part that only refers to other sets.
        codes: Canonical codes; ``None`` for every code of the system.
        patterns: Regular expressions of the whole canonical code.
        sets: Sets that hold the member too.
    """

    system: str | None
    codes: frozenset[str] | None = None
    patterns: tuple[str, ...] = ()
    sets: tuple[ValueSet, ...] = ()


@dataclass(frozen=True, slots=True)
class ValueSet:
    """A checked ValueSet.

    Attributes:
        name: Name in the catalog.
        url: Canonical URL, by which other sets refer to it.
        version: Business version, or empty.
        title: Name for people.
        include: A member is in one of these ...
        exclude: ... and in none of these.
    """

    name: str
    url: str
    version: str
    title: str
    include: tuple[ValueSetPart, ...]
    exclude: tuple[ValueSetPart, ...] = ()

    def matches(self, system: pl.Expr, code: pl.Expr) -> pl.Expr:
        """Return whether each code is a member, never null.

        Args:
            system: Code systems in any known spelling.
            code: Codes as the source wrote them.
        """
        import polars as pl

        from cohortflow.terminology.normalize import over_distinct, spell

        holds = self._holds(pl.col("system"), pl.col("code")).fill_null(value=False)
        return over_distinct([system, code], lambda values: spell(values).select(holds), pl.Boolean())

    def _holds(self, system: pl.Expr, code: pl.Expr) -> pl.Expr:
        import polars as pl

        found = pl.any_horizontal([_part_holds(part, system, code) for part in self.include])
        if not self.exclude:
            return found
        return found & ~pl.any_horizontal([_part_holds(part, system, code) for part in self.exclude])


def _part_holds(part: ValueSetPart, system: pl.Expr, code: pl.Expr) -> pl.Expr:
    import polars as pl

    conditions = [code_set._holds(system, code) for code_set in part.sets]  # noqa: SLF001 - same class
    if part.system is not None:
        conditions += [system == part.system, code.is_not_null()]
    if part.codes is not None:
        conditions.append(code.is_in(sorted(part.codes)))
    conditions += [code.str.contains(f"^(?:{pattern})$") for pattern in part.patterns]
    return pl.all_horizontal(conditions).fill_null(value=False)


class _Concept(Element):
    code: str


class _Filter(Element):
    property: str
    op: str
    value: str


class _Part(Element):
    system: str | None = None
    concept: tuple[_Concept, ...] = ()
    filter: tuple[_Filter, ...] = ()
    valueSet: tuple[str, ...] = ()  # noqa: N815 - FHIR's spelling


class _Compose(Element):
    include: tuple[_Part, ...]
    exclude: tuple[_Part, ...] = ()


class _Resource(Element):
    """The elements of a ValueSet that are read."""

    url: str = ""
    version: str | None = None
    title: str | None = None
    compose: _Compose


def load_value_set(catalog: Catalog, name: str) -> ValueSet:
    """Read a ValueSet of the catalog, with the sets that it includes.

    Raises:
        CatalogError: There is no such set, or one of them is malformed, uses what is not supported, or
            includes itself.
    """
    return _load(catalog, name, ())


def parse_value_set(
    data: Mapping[str, Any], *, name: str, place: str, sets: Mapping[str, ValueSet] | None = None
) -> ValueSet:
    """Read a ValueSet from JSON.

    Args:
        data: The resource.
        name: Name to give it.
        place: File, for messages.
        sets: The sets that it refers to, by canonical URL.

    Raises:
        CatalogError: It is malformed or uses what is not supported. Names file and element.
    """
    resource = validate_resource(_Resource, "ValueSet", data, place)
    if not resource.compose.include:
        raise refuse(place, "compose.include", "The set includes nothing.", "Give it an include.")
    parts = {
        kind: tuple(
            _read_part(part, sets or {}, place, f"compose.{kind}[{index}]")
            for index, part in enumerate(getattr(resource.compose, kind))
        )
        for kind in ("include", "exclude")
    }
    return ValueSet(name, resource.url, resource.version or "", resource.title or name, **parts)


def _load(catalog: Catalog, name: str, above: tuple[str, ...]) -> ValueSet:
    place = str(catalog.path("valuesets", name))
    if name in above:
        problem = f"The set includes itself: {' > '.join((*above, name))}."
        raise CatalogError(problem, place=place, remedy="Remove one of the references.")
    data = catalog.load("valuesets", name)
    resource = validate_resource(_Resource, "ValueSet", data, place)
    urls = {url for p in (*resource.compose.include, *resource.compose.exclude) for url in p.valueSet}
    sets = {url: _load(catalog, _find(catalog, url, place), (*above, name)) for url in sorted(urls)}
    return parse_value_set(data, name=name, place=place, sets=sets)


def _find(catalog: Catalog, url: str, place: str) -> str:
    wanted, _, version = url.partition("|")
    for name in catalog.names("valuesets"):
        entry = catalog.load("valuesets", name)
        if entry.get("url") == wanted and version in {"", entry.get("version")}:
            return name
    raise CatalogError(
        f"No value set of the catalog has the URL {url}.",
        place=place,
        remedy="Add the set to the catalog's valuesets.",
    )


def _read_part(part: _Part, sets: Mapping[str, ValueSet], place: str, path: str) -> ValueSetPart:
    if part.system is None and (part.concept or part.filter):
        raise refuse(place, path, "The code system is missing.", "Give 'system'.")
    if part.system is None and not part.valueSet:
        raise refuse(place, path, "The part is empty.", "Give 'system' or 'valueSet'.")
    if part.concept and part.filter:
        raise refuse(place, path, "Concepts and filters exclude each other (vsd-3).", "Make two includes.")
    for url in part.valueSet:
        if url not in sets:
            raise refuse(place, path, f"The value set {url} is not known.", "Add it to the catalog.")
    system = canonical_system(part.system) if part.system is not None else None
    return ValueSetPart(
        system=system,
        codes=frozenset(canonical_code(system or "", c.code) for c in part.concept) if part.concept else None,
        patterns=tuple(
            _read_filter(f, system or "", place, f"{path}.filter[{index}]")
            for index, f in enumerate(part.filter)
        ),
        sets=tuple(sets[url] for url in part.valueSet),
    )


def _read_filter(rule: _Filter, system: str, place: str, path: str) -> str:
    """Return the pattern of a filter: ``code regex``, ``code in``, or ``concept is-a`` in ICD-10."""
    if (rule.property, rule.op) == ("code", "regex"):
        return _check_pattern(rule.value, place, path)
    if (rule.property, rule.op) == ("code", "in"):
        try:
            return code_list_pattern(system, rule.value)
        except ValueError as error:
            raise refuse(place, path, str(error), "Mend the list of codes.") from None
    if (rule.property, rule.op) == ("concept", "is-a") and system in {ICD10CM.uri, ICD10.uri}:
        return subtree_pattern(system, rule.value)
    raise refuse(
        place,
        path,
        f"The filter '{rule.property} {rule.op}' is not supported for this code system.",
        "Use 'code regex' or 'code in', 'concept is-a' with ICD-10, or list the concepts.",
    )


def _check_pattern(pattern: str, place: str, path: str) -> str:
    remedy = "Use a regular expression without look-around and back-references."
    # Polars' regular expressions run in linear time and therefore lack these.
    if re.search(r"\(\?(?!:)|\\[1-9]", pattern):
        raise refuse(place, path, "The regular expression is not supported.", remedy)
    try:
        re.compile(pattern)
    except re.error as error:
        problem = f"The regular expression is malformed at character {error.pos}."
        raise refuse(place, path, problem, remedy) from None
    return pattern
