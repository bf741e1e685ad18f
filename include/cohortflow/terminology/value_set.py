"""FHIR ValueSet: its compose as one membership test over columns.

Source: https://hl7.org/fhir/R4/valueset.html#compositions. An include is the intersection of its parts, a
value set the union of its includes without its excludes. Concepts, references to other sets of the catalog
and filters that the code alone decides are supported; anything else is refused when the set is read. The
resource itself is read by `compose`; what needs the tables of a terminology is in `expansion`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cohortflow.model import Catalog
from cohortflow.terminology.code_patterns import code_list_pattern, subtree_pattern
from cohortflow.terminology.compose import Compose, ComposeFilter, ComposePart, load_compose, parse_compose
from cohortflow.terminology.resource import refuse
from cohortflow.terminology.systems import ICD10, ICD10CM

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


def load_value_set(catalog: Catalog, name: str) -> ValueSet:
    """Read a ValueSet of the catalog, with the sets that it includes.

    Raises:
        CatalogError: There is no such set, or one of them is malformed, uses what is not supported, or
            includes itself.
    """
    return _decide(load_compose(catalog, name))


def parse_value_set(
    data: Mapping[str, Any],
    *,
    name: str,
    place: str,
    find: Callable[[str], Compose | None] = lambda _url: None,
) -> ValueSet:
    """Read a ValueSet from JSON.

    Args:
        data: The resource.
        name: Name to give it.
        place: File, for messages.
        find: Returns a set that it refers to, or ``None`` where there is none.

    Raises:
        CatalogError: It is malformed or uses what is not supported. Names file and element.
    """
    return _decide(parse_compose(data, name=name, place=place, find=find))


def _decide(compose: Compose) -> ValueSet:
    """Return the set as a test that looks at the code alone."""
    sets = {url: _decide(other) for url, other in compose.sets.items()}
    include, exclude = (
        tuple(
            _decide_part(part, sets, compose.place, f"compose.{kind}[{index}]")
            for index, part in enumerate(getattr(compose, kind))
        )
        for kind in ("include", "exclude")
    )
    return ValueSet(compose.name, compose.url, compose.version, compose.title, include, exclude)


def _decide_part(part: ComposePart, sets: Mapping[str, ValueSet], place: str, path: str) -> ValueSetPart:
    for url in part.value_sets:
        if url not in sets:
            problem = f"No value set of the catalog has the URL {url}."
            raise refuse(place, path, problem, "Add the set to the catalog's valuesets.")
    return ValueSetPart(
        system=part.system,
        codes=frozenset(c.code for c in part.concepts) if part.concepts is not None else None,
        patterns=tuple(
            _filter_pattern(rule, part.system or "", place, f"{path}.filter[{index}]")
            for index, rule in enumerate(part.filters)
        ),
        sets=tuple(sets[url] for url in part.value_sets),
    )


def _filter_pattern(rule: ComposeFilter, system: str, place: str, path: str) -> str:
    """Return the pattern of a filter: ``code regex``, ``code in``, or ``concept is-a`` in ICD-10."""
    if (rule.property, rule.op) == ("code", "regex"):
        return rule.value
    if (rule.property, rule.op) == ("code", "in"):
        return code_list_pattern(system, rule.value)
    if (rule.property, rule.op) == ("concept", "is-a") and system in {ICD10CM.uri, ICD10.uri}:
        return subtree_pattern(system, rule.value)
    raise refuse(
        place,
        path,
        f"The filter '{rule.property} {rule.op}' is not supported for this code system.",
        "Use 'code regex' or 'code in', 'concept is-a' with ICD-10, or list the concepts.",
    )
