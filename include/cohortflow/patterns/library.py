"""The patterns of a catalog, each proven by its examples."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType

import polars as pl
from polars.exceptions import ComputeError

from cohortflow.errors import CatalogError
from cohortflow.model import Catalog
from cohortflow.patterns.definition import PatternKind
from cohortflow.patterns.files import LocatedDefinition, read_definitions
from cohortflow.patterns.pattern import Pattern

__all__ = ["PatternLibrary", "load_patterns"]


class PatternLibrary:
    """Patterns by name, in the order of their names.

    Args:
        patterns: Any patterns; of several with one name the last one counts.
    """

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        named = {pattern.name: pattern for pattern in patterns}
        self._patterns: Mapping[str, Pattern] = MappingProxyType(dict(sorted(named.items())))

    def __getitem__(self, name: str) -> Pattern:
        """Return a pattern.

        Raises:
            CatalogError: There is none of this name; the remedy names the nearest one.
        """
        try:
            return self._patterns[name]
        except KeyError:
            raise _unknown(name, self._patterns) from None

    def __iter__(self) -> Iterator[Pattern]:
        return iter(self._patterns.values())

    def __len__(self) -> int:
        return len(self._patterns)

    def __contains__(self, name: object) -> bool:
        return name in self._patterns

    def __repr__(self) -> str:
        return f"PatternLibrary({len(self)} patterns)"

    @property
    def names(self) -> tuple[str, ...]:
        """Names, sorted."""
        return tuple(self._patterns)

    def may_occur_in(self, text: pl.Expr) -> pl.Expr:
        """Return whether a text may contain one of the patterns; null for null.

        One pass over the text for all patterns together. Where it is false, ``occurs_in`` is false for each
        of them; where it is true, a check digit or a boundary may still say no. It saves the dozens of passes
        over texts that hold nothing.
        """
        return text.str.contains(
            "|".join(f"(?:{pattern.text_regex})" for pattern in self) or "[^\x00-\U0010ffff]"
        )

    def select(
        self, *, kinds: Iterable[PatternKind] = (), hipaa: bool = False, telling: bool = False
    ) -> PatternLibrary:
        """Return some of the patterns.

        Args:
            kinds: Kinds to keep; all where none are named.
            hipaa: Keep those alone that are identifiers of 45 CFR 164.514(b)(2)(i).
            telling: Keep those alone that are found in a text without a context word.
        """
        wanted = frozenset(kinds)
        return PatternLibrary(
            pattern
            for pattern in self
            if (not wanted or pattern.kind in wanted)
            and (not hipaa or pattern.hipaa is not None)
            and (not telling or pattern.telling)
        )


def load_patterns(catalog: Catalog, *names: str) -> PatternLibrary:
    """Load patterns and try their examples.

    Args:
        catalog: Its own patterns are added to the shipped ones; one of the same name takes the place of
            the shipped one.
        names: Patterns to load; all where none are named.

    Raises:
        CatalogError: A file is malformed, a name unknown, a regular expression is no Rust expression or
            matches the empty text, or an example does not prove its pattern. The error names file and line.
    """
    definitions = read_definitions(catalog)
    for name in names:
        if name not in definitions:
            raise _unknown(name, definitions)
    return PatternLibrary(_prove(definitions[name]) for name in names or definitions)


def _unknown(name: str, known: Iterable[str]) -> CatalogError:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return CatalogError(
        f"There is no pattern '{name}'.",
        remedy=f"Did you mean '{near[0]}'?" if near else "'cohortflow patterns list' shows all.",
    )


@lru_cache(maxsize=1024)
def _prove(item: LocatedDefinition) -> Pattern:
    """Return the pattern of a definition, once its examples are as they should be."""
    pattern = Pattern(item.definition, item.place)
    _check_expressions(pattern)
    examples = item.definition.examples
    values = [*examples.valid, *examples.invalid]
    matched = pl.DataFrame({"value": values}).select(pattern.matches(pl.col("value"))).to_series().to_list()
    for value, found in zip(values, matched, strict=True):
        if found != (value in examples.valid):
            kind = "valid" if value in examples.valid else "invalid"
            raise _refuse(pattern, f"the {kind} example '{value}' is {'' if found else 'not '}matched")
    texts = pl.DataFrame({"text": [example.text for example in examples.in_text]})
    found_in = texts.select(pattern.find_all(pl.col("text")), occurs=pattern.occurs_in(pl.col("text"))).rows()
    for example, (found, occurs) in zip(examples.in_text, found_in, strict=True):
        if tuple(found) != example.finds or occurs != bool(example.finds):
            raise _refuse(
                pattern,
                f"in the text '{example.text}' it finds {list(found)} and not {list(example.finds)}",
            )
    return pattern


def _check_expressions(pattern: Pattern) -> None:
    item = pattern.definition
    named = [("regex", form) for form in item.regex]
    named += [("in_text", form) for form in item.in_text or ()]
    named += [(key, form) for key in ("token", "check_part") if (form := getattr(item, key)) is not None]
    for key, form in named:
        try:
            empty = pl.select(pl.lit("").str.contains(form)).item()
        except ComputeError as error:
            reason = str(error).partition("error:")[2].strip().splitlines()
            problem = next((line for line in reason if line.startswith("error:")), "error: malformed")
            remedy = (
                "Rust's expressions have no look-around: use 'boundary', 'token' or 'never' instead."
                if "look-around" in problem
                else "Write it in the syntax of Rust's regex crate."
            )
            raise _refuse(
                pattern, f"{key} is no regular expression: {problem.removeprefix('error: ')}", remedy
            ) from None
        if empty:
            raise _refuse(pattern, f"{key} matches the empty text", "Let it match at least one character.")
    groups = pl.select(pl.lit("").str.extract_groups(pattern.text_regex)).to_series().struct.fields
    expected = (1 + pattern.telling) if item.context and item.token is None else 0
    if len([name for name in groups if name]) > expected:
        raise _refuse(pattern, "a form has groups", "Write (?:...) for groups.")


def _refuse(
    pattern: Pattern, problem: str, remedy: str = "Mend the expression, or the example."
) -> CatalogError:
    return CatalogError(f"Pattern {pattern.name}: {problem}.", place=pattern.place, remedy=remedy)
