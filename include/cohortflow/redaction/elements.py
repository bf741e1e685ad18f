"""Classes of FHIR R4 elements by their types: what holds wherever an element stands.

``phi_elements.csv`` has one rule a line: a type, one of its elements, a class, the paragraph of the
regulation, a note. Without an element it holds for every value of the (primitive) type; ``**`` for
whatever lies below a value of the type; the type ``*`` for elements that have parts. Elements are named
by their JSON keys, so ``authorString`` is the text of the choice ``author[x]``.

A rule for the element itself wins, then one for what it lies in, then the one for its type. Every element
of every type of FHIR R4 thus has a class; what is no such element has none here.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Final

from cohortflow.fhir.elements import base_type, find_element, is_primitive
from cohortflow.model import PhiClass

__all__ = ["ElementRule", "find_element_rule", "load_element_rules"]

_BELOW: Final = "**"
_WITH_PARTS: Final = "*"
_OPAQUE: Final = frozenset({"contained", "extension", "modifierExtension"})
_OPEN: Final = frozenset({"Extension", "Resource"})
"""Types whose values may hold anything: what lies below one of them is not known."""


@dataclass(frozen=True, slots=True)
class ElementRule:
    """One line of the table.

    Attributes:
        type: A type, or ``*``.
        element: JSON key of one of its elements, ``**``, or empty.
        phi: The class.
        source: Paragraph of the regulation, empty where none makes it an identifier.
        note: Why, for people who read the table.
    """

    type: str
    element: str
    phi: PhiClass
    source: str
    note: str


@dataclass(frozen=True, slots=True)
class _Place:
    """A step of a path: an element of a type, and the type of its values."""

    owner: str
    key: str
    type: str


@lru_cache(maxsize=1)
def load_element_rules() -> dict[tuple[str, str], ElementRule]:
    """Read the shipped table, by type and element."""
    text = resources.files("cohortflow.redaction").joinpath("phi_elements.csv").read_text(encoding="utf-8")
    rules = [
        ElementRule(row["type"], row["element"], PhiClass[row["class"]], row["source"], row["note"])
        for row in csv.DictReader(text.splitlines())
    ]
    return {(rule.type, rule.element): rule for rule in rules}


def find_element_rule(segments: tuple[str, ...]) -> ElementRule | None:
    """Return the rule for an element, or ``None`` where the path leads to no element of FHIR R4.

    Args:
        segments: Resource type, or data type, and JSON keys: ``("Patient", "name", "family")``.
    """
    places = _locate(segments)
    if not places:
        return None
    rules = load_element_rules()
    last = places[-1]
    for owner in _lineage(last.owner):
        if (owner, last.key) in rules:
            return rules[owner, last.key]
    if last.type in _OPEN:
        return rules[last.type, ""]
    for place in reversed(places):
        if (place.owner, _BELOW) in rules:
            return rules[place.owner, _BELOW]
    return rules[last.type if is_primitive(last.type) else _WITH_PARTS, ""]


def _locate(segments: tuple[str, ...]) -> list[_Place]:
    """Return the steps of a path; none where it leads to no element, or through one that is open."""
    owner = segments[0]
    places: list[_Place] = []
    for key in segments[1:]:
        if places and owner in _OPEN:
            return []
        kind = _type_of(owner, key)
        if not kind:
            return []
        places.append(_Place(owner, key, "Extension" if key in _OPAQUE else kind))
        owner = kind
    return places


def _type_of(owner: str, key: str) -> str:
    """Return the type of an element by its JSON key, or an empty string."""
    element = find_element(owner, key)
    if element is not None and not element.choice:
        return element.types[0]
    for end in range(1, len(key)):
        element = find_element(owner, key[:end]) if key[end].isupper() else None
        if element is not None and element.choice:
            return next((kind for kind in element.types if element.key(kind) == key), "")
    return ""


def _lineage(owner: str) -> Iterator[str]:
    while owner:
        yield owner
        # A concrete resource inherits what every resource has; nothing else is called 'Resource'.
        owner = base_type(owner)
