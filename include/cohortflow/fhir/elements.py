"""The elements of FHIR R4: which types and how many values each may hold.

Read from ``elements.json`` (made by ``tools/build_fhir_elements.py``) at first use, in about 2 ms.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from dataclasses import dataclass
from importlib import resources
from typing import cast

__all__ = [
    "Element",
    "base_type",
    "find_element",
    "is_primitive",
    "is_resource",
    "is_type",
    "list_elements",
    "list_types",
    "suggest_element",
    "suggest_resource",
    "suggest_type",
]

_TYPE = re.compile(r"([^|(*]+)(?:\(([^)]*)\))?")
_PRIMITIVES = frozenset(
    {
        "base64Binary",
        "boolean",
        "canonical",
        "code",
        "date",
        "dateTime",
        "decimal",
        "id",
        "instant",
        "integer",
        "integer64",
        "markdown",
        "oid",
        "positiveInt",
        "string",
        "time",
        "unsignedInt",
        "uri",
        "url",
        "uuid",
        "xhtml",
    }
)
_RESOURCE_BASES = frozenset({"Resource", "DomainResource"})


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a type.

    Attributes:
        name: Its name in FHIRPath: ``value``, not ``value[x]`` or ``valueQuantity``.
        types: Its types: one, or the alternatives of a choice.
        many: Whether it is a list.
        choice: Whether it is written ``value[x]`` in the specification.
        targets: Resource types that a reference may point to; empty means any.
    """

    name: str
    types: tuple[str, ...]
    many: bool
    choice: bool
    targets: tuple[str, ...] = ()

    def key(self, type_name: str) -> str:
        """Return the JSON key of the element when it holds a value of the type."""
        return f"{self.name}{type_name[0].upper()}{type_name[1:]}" if self.choice else self.name


@functools.cache
def _table() -> dict[str, dict[str, str]]:
    text = resources.files("cohortflow.fhir").joinpath("elements.json").read_text(encoding="utf-8")
    return cast("dict[str, dict[str, str]]", json.loads(text))


@functools.cache
def find_element(owner: str, name: str) -> Element | None:
    """Return an element of a type by its FHIRPath name, inherited ones included, or ``None``."""
    entry = _table().get(owner)
    while entry is not None:
        for key, choice in ((name, False), (f"{name}[x]", True)):
            if key and key in entry:
                return _parse(name, entry[key], choice=choice)
        entry = _table().get(entry.get("", ""))
    return None


def _parse(name: str, text: str, *, choice: bool) -> Element:
    found = _TYPE.findall(text)
    targets = tuple(target for target in found[0][1].split("|") if target)
    return Element(name, tuple(kind for kind, _ in found), text.endswith("*"), choice, targets)


def base_type(name: str) -> str:
    """Return the type that a type inherits its elements from, or an empty string."""
    return _table().get(name, {}).get("", "")


def list_types() -> tuple[str, ...]:
    """Return all types but the primitive ones: resources, data types, nested elements."""
    return tuple(_table())


def list_elements(owner: str) -> tuple[Element, ...]:
    """Return the elements that a type adds to those that it inherits."""
    found = (find_element(owner, key.removesuffix("[x]")) for key in _table().get(owner, {}) if key)
    return tuple(element for element in found if element is not None)


def is_type(name: str) -> bool:
    """Say whether a name is a FHIR type: a resource, a data type, a nested element or a primitive."""
    return name in _table() or name in _PRIMITIVES


def is_primitive(name: str) -> bool:
    """Say whether a type is primitive: FHIR writes exactly those in lower case."""
    return name[:1].islower()


def suggest_type(name: str) -> str:
    """Return the type nearest to a mistyped name, or an empty string."""
    return _nearest(name, [*_PRIMITIVES, *_table()])


def is_resource(name: str) -> bool:
    """Say whether a type is a concrete resource type."""
    entry = _table().get(name)
    return entry is not None and name not in _RESOURCE_BASES and entry.get("") in _RESOURCE_BASES


def suggest_resource(name: str) -> str:
    """Return the resource type nearest to a mistyped name, or an empty string."""
    return _nearest(name, [kind for kind in _table() if is_resource(kind)])


def suggest_element(owner: str, name: str) -> str:
    """Return the element of a type nearest to a mistyped name, as FHIRPath, or an empty string.

    ``valueQuantity`` gives ``value.ofType(Quantity)``.
    """
    names: dict[str, str] = {}
    entry = _table().get(owner)
    while entry is not None:
        for key, text in entry.items():
            plain = key.removesuffix("[x]")
            if not key:
                continue
            names[plain] = plain
            if key != plain:
                element = _parse(plain, text, choice=True)
                names.update({element.key(kind): f"{plain}.ofType({kind})" for kind in element.types})
        entry = _table().get(entry.get("", ""))
    near = _nearest(name, list(names))
    return names.get(near, "")


def _nearest(name: str, known: list[str]) -> str:
    lowered = {entry.lower(): entry for entry in known}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    return lowered[near[0]] if near else ""
