"""Which class of protected health information a FHIR element is, by a shipped table of rules.

``phi_classes.csv`` has one rule a line: a pattern over element paths, a class, the paragraph of the
regulation that makes it one, a note. A path's segments are separated by dots. In a pattern ``*`` stands
for characters within one segment, ``**`` for any number of segments, none included. Neither matches an
``extension(<url>)`` step or ``contained``: these are known only where a rule spells them out.

The rule with the most literal segments wins, then the one with the most partly literal segments; between
equals the strictest class wins. A path that no rule knows is ``UNKNOWN``, which every policy drops.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from cohortflow.model import Column, ColumnType, PhiClass

__all__ = ["PathPattern", "PhiRule", "classify", "classify_columns", "load_rules", "split_path"]

_SEPARATOR = re.compile(r"\.(?![^(]*\))")
_OPAQUE = re.compile(r"(extension|modifierExtension|contained)\b")


def split_path(path: str) -> tuple[str, ...]:
    """Split an element path at its dots, not at those of an extension's URL.

    ``Patient.extension(http://a.b/c).valueCode`` has the segments ``Patient``,
    ``extension(http://a.b/c)`` and ``valueCode``.
    """
    return tuple(_SEPARATOR.split(path))


@dataclass(frozen=True)
class PathPattern:
    """A pattern over element paths.

    Attributes:
        text: Segments separated by dots, with ``*`` and ``**``.
    """

    text: str

    @property
    def specificity(self) -> tuple[int, int, int]:
        """Sort key: literal segments, then partly literal ones, then ``*``; the greatest wins."""
        segments = split_path(self.text)
        literal = sum("*" not in segment for segment in segments)
        single = sum(segment == "*" for segment in segments)
        anything = sum(segment == "**" for segment in segments)
        return literal, len(segments) - literal - single - anything, single

    def matches(self, path: str) -> bool:
        """Whether the pattern covers the path."""
        return _match(split_path(self.text), split_path(path))


def _match(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    if not pattern:
        return not path
    head, rest = pattern[0], pattern[1:]
    if head == "**":
        if _match(rest, path):
            return True
        return bool(path) and _OPAQUE.match(path[0]) is None and _match(pattern, path[1:])
    return bool(path) and _match_segment(head, path[0]) and _match(rest, path[1:])


def _match_segment(pattern: str, segment: str) -> bool:
    if "*" not in pattern:
        return pattern == segment
    if _OPAQUE.match(segment):
        return False
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), segment) is not None


@dataclass(frozen=True, slots=True)
class PhiRule:
    """One line of the table.

    Attributes:
        pattern: Paths that it covers.
        phi: Their class.
        source: Paragraph of the regulation, empty where none makes it an identifier.
        note: Why, for people who read the table.
    """

    pattern: PathPattern
    phi: PhiClass
    source: str = ""
    note: str = ""


@lru_cache(maxsize=1)
def load_rules() -> tuple[PhiRule, ...]:
    """Read the shipped table, most specific and strictest first."""
    text = resources.files("cohortflow.redaction").joinpath("phi_classes.csv").read_text(encoding="utf-8")
    rules = [
        PhiRule(PathPattern(row["pattern"]), PhiClass[row["class"]], row["source"], row["note"])
        for row in csv.DictReader(text.splitlines())
    ]
    return tuple(sorted(rules, key=lambda rule: (rule.pattern.specificity, rule.phi), reverse=True))


@lru_cache(maxsize=4096)
def classify(path: str) -> PhiClass:
    """Return the class of an element path such as ``Patient.name.family``, or ``UNKNOWN``."""
    return next((rule.phi for rule in load_rules() if rule.pattern.matches(path)), PhiClass.UNKNOWN)


def classify_columns(columns: Iterable[Column]) -> tuple[Column, ...]:
    """Give each column the strictest class of its paths.

    A column without paths was derived by a step, or is the same for all patients (a literal of a view): it
    keeps the class that was stated. A yes or no that was derived from a date or an age, such as whether a
    date of death exists, is neither.
    """
    return tuple(
        dataclasses.replace(column, phi=_classify_column(column)) if column.paths else column
        for column in columns
    )


def _classify_column(column: Column) -> PhiClass:
    strictest = max(classify(path) for path in column.paths)
    if column.type is ColumnType.BOOLEAN and strictest in {PhiClass.DATE, PhiClass.AGE}:
        return PhiClass.QUASI_IDENTIFIER
    return strictest
