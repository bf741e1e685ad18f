"""Which class of protected health information a FHIR element is, by a shipped table of rules.

``phi_classes.csv`` has one rule a line: a pattern over element paths, a class, the paragraph of the
regulation that makes it one, a note. A path's segments are separated by dots. In a pattern ``*`` stands
for characters within one segment, ``**`` for any number of segments, none included. Neither matches an
``extension(<url>)`` step or ``contained``: these are known only where a rule spells them out.

The rule with the most literal segments wins, then the one with the most partly literal segments; between
equals the strictest class wins. An element of FHIR R4 that no pattern covers has the class of its type, by
``phi_elements.csv``; see ``cohortflow.redaction.elements``. What is no such element is ``UNKNOWN``, which
every policy drops: extensions that are not listed, contained resources, misspelt names.
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
from cohortflow.redaction.dicom import DICOM, find_attribute
from cohortflow.redaction.elements import find_element_rule

__all__ = [
    "PathPattern",
    "PhiRule",
    "classify",
    "classify_columns",
    "decide_class",
    "find_rule",
    "load_rules",
    "split_path",
]

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


_UNKNOWN = PhiRule(
    PathPattern(""),
    PhiClass.UNKNOWN,
    "45 CFR 164.514(b)(2)(i)(R)",
    "no rule knows it: an extension or attribute that is not listed, or no element of FHIR R4",
)


@lru_cache(maxsize=1)
def _rules_by_end() -> dict[str, list[PhiRule]]:
    """Return the rules by their last segment, for a quick look; those that end in a ``*`` by ``*``."""
    found: dict[str, list[PhiRule]] = {}
    for rule in load_rules():
        last = split_path(rule.pattern.text)[-1]
        found.setdefault("*" if "*" in last else last, []).append(rule)
    return found


@lru_cache(maxsize=65536)
def find_rule(path: str) -> PhiRule:
    """Return the rule that decides the class of an element path, with its source.

    Its pattern is ``HumanName.**`` where the type of the element decides.
    """
    segments = split_path(path)
    if segments[0] == DICOM:
        attribute = find_attribute(segments)
        if attribute is None:
            return _UNKNOWN
        return PhiRule(PathPattern(path), attribute.phi, attribute.source, attribute.note)
    by_end = _rules_by_end()
    covering = [
        rule for end in {segments[-1], "*"} for rule in by_end.get(end, ()) if rule.pattern.matches(path)
    ]
    best = max(covering, key=lambda rule: (rule.pattern.specificity, rule.phi), default=None)
    if best is not None and best.phi is not PhiClass.FREE_TEXT:
        return best
    element = find_element_rule(segments)
    # A text within a name or a number is more than a text that somebody wrote.
    if best is not None and (element is None or element.phi is not PhiClass.DIRECT_IDENTIFIER):
        return best
    if element is None:
        return _UNKNOWN
    pattern = f"{element.type}.{element.element}" if element.element else element.type
    return PhiRule(PathPattern(pattern), element.phi, element.source, element.note)


def classify(path: str) -> PhiClass:
    """Return the class of an element path such as ``Patient.name.family``, or ``UNKNOWN``."""
    return find_rule(path).phi


def classify_columns(columns: Iterable[Column]) -> tuple[Column, ...]:
    """Give each column the strictest class of what it reads.

    A column that reads nothing was derived by a step, or is the same for all patients (a literal of a
    view, the number of a row): it keeps the class that was stated.
    """
    return tuple(
        dataclasses.replace(column, phi=decide_class(column).phi) if _reads(column) else column
        for column in columns
    )


def decide_class(column: Column) -> PhiRule:
    """Return the rule of the strictest element that a column reads, with the class that follows from it.

    Whether there is a date or an age, such as a date of death, is neither, but identifies in combination. So
    does a value that is there where a date or an age is. What compares one, as ``birthDate < @1970-06-01``
    does, tells of the date itself and has its class.
    """
    if not _reads(column):
        return PhiRule(PathPattern(""), column.phi, "", "stated by what made the column")
    rules = [_soften(path, column) for path in column.tested]
    soft = column.type is ColumnType.BOOLEAN
    values = [_soften(path, column) if soft else find_rule(path) for path in column.paths]
    return max((*values, *rules), key=lambda rule: rule.phi)


def _reads(column: Column) -> bool:
    return bool(column.paths or column.tested)


def _soften(path: str, column: Column) -> PhiRule:
    rule = find_rule(path)
    if rule.phi not in {PhiClass.DATE, PhiClass.AGE} or path in column.computed:
        return rule
    note = "says something of a date or an age, and neither of them"
    return PhiRule(rule.pattern, PhiClass.QUASI_IDENTIFIER, "", note)
