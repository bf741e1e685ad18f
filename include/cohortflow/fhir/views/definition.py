"""A ViewDefinition as written, checked for its shape.

Source: SQL-on-FHIR v2, https://sql-on-fhir.org/ig/StructureDefinition-ViewDefinition.html.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from cohortflow.errors import ViewError
from cohortflow.fhir.elements import is_resource, suggest_resource

__all__ = ["ColumnDefinition", "ConstantDefinition", "Select", "ViewDefinition", "parse_view"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_ELEMENT_KEYS = ("id", "extension")
_VIEW_KEYS = (
    "resourceType",
    "id",
    "meta",
    "implicitRules",
    "language",
    "text",
    "contained",
    "extension",
    "url",
    "identifier",
    "version",
    "versionAlgorithmString",
    "versionAlgorithmCoding",
    "name",
    "title",
    "status",
    "experimental",
    "date",
    "publisher",
    "contact",
    "description",
    "useContext",
    "jurisdiction",
    "purpose",
    "copyright",
    "copyrightLabel",
    "fhirVersion",
    "resource",
    "profile",
    "constant",
    "select",
    "where",
)
_SELECT_KEYS = ("column", "select", "forEach", "forEachOrNull", "repeat", "unionAll", *_ELEMENT_KEYS)
_COLUMN_KEYS = ("name", "path", "description", "type", "collection", "tag", *_ELEMENT_KEYS)
_WHERE_KEYS = ("path", "description", *_ELEMENT_KEYS)
_TAG_KEYS = ("name", "value", *_ELEMENT_KEYS)
_ITERATIONS = ("forEach", "forEachOrNull", "repeat")
# Types of a constant's value[x], by the kind of JSON value that each is written as.
_CONSTANT_TEXTS = (
    "base64Binary",
    "canonical",
    "code",
    "date",
    "dateTime",
    "id",
    "instant",
    "markdown",
    "oid",
    "string",
    "time",
    "uri",
    "url",
    "uuid",
)
_CONSTANT_INTEGERS = ("integer", "integer64", "positiveInt", "unsignedInt")
_CONSTANT_TYPES = (*_CONSTANT_TEXTS, *_CONSTANT_INTEGERS, "boolean", "decimal")


@dataclass(frozen=True, slots=True)
class ColumnDefinition:
    """A column as declared; ``place`` is where, such as ``select[0].column[2]``."""

    name: str
    path: str
    type: str
    collection: bool
    description: str
    tags: Mapping[str, str]
    place: str


@dataclass(frozen=True, slots=True)
class Select:
    """A select: an optional iteration, then columns, nested selects and unions, in this order."""

    columns: tuple[ColumnDefinition, ...]
    selects: tuple[Select, ...]
    unions: tuple[Select, ...]
    iteration: str
    paths: tuple[str, ...]
    place: str


@dataclass(frozen=True, slots=True)
class ConstantDefinition:
    """A constant with its FHIR type."""

    name: str
    type: str
    value: bool | int | str | Decimal


@dataclass(frozen=True, slots=True)
class ViewDefinition:
    """A ViewDefinition; ``name`` may be empty, ``wheres`` are (place, path)."""

    name: str
    resource: str
    constants: Mapping[str, ConstantDefinition]
    selects: tuple[Select, ...]
    wheres: tuple[tuple[str, str], ...]


def parse_view(view: Mapping[str, Any]) -> ViewDefinition:
    """Check the shape of a ViewDefinition.

    Args:
        view: The ViewDefinition as JSON.

    Raises:
        ViewError: A key or value is unknown, missing or of the wrong kind; ``place`` names it.
    """
    if not isinstance(view, Mapping):
        raise ViewError("A ViewDefinition must be an object.", remedy="See the views of the catalog.")
    name = view.get("name")
    try:
        return _parse(view)
    except ViewError as error:
        label = f"view {name}" if isinstance(name, str) else "view"
        raise ViewError(error.message, remedy=error.remedy, place=f"{label}{error.place}") from None


def _parse(view: Mapping[str, Any]) -> ViewDefinition:
    _check_keys(view, _VIEW_KEYS, "")
    name = _text(view, "name", "", required=False)
    if name and not _NAME.fullmatch(name):
        raise ViewError(f"'{name}' is no name for a table.", remedy="Use letters, digits and _.")
    if str(view.get("resourceType", "ViewDefinition")).rsplit("/", 1)[-1] != "ViewDefinition":
        raise ViewError("resourceType is not ViewDefinition.", remedy="Give a ViewDefinition.")
    resource = _text(view, "resource", "")
    if not is_resource(resource):
        near = suggest_resource(resource)
        raise ViewError(
            f"'{resource}' is no resource type of FHIR R4.",
            remedy=f"Did you mean '{near}'?" if near else "See https://hl7.org/fhir/R4/resourcelist.html.",
            place=".resource",
        )
    constants: dict[str, ConstantDefinition] = {}
    for place, entry in _objects(view, "constant", ""):
        constant = _parse_constant(entry, place)
        if constant.name in constants:
            raise ViewError(f"Two constants are named '{constant.name}'.", remedy="Rename one.", place=place)
        constants[constant.name] = constant
    selects = tuple(_parse_select(entry, place) for place, entry in _objects(view, "select", ""))
    if not selects:
        raise ViewError("The view selects nothing.", remedy="Add a select with columns.", place=".select")
    wheres = []
    for place, entry in _objects(view, "where", ""):
        _check_keys(entry, _WHERE_KEYS, place)
        wheres.append((place, _text(entry, "path", place)))
    return ViewDefinition(name, resource, MappingProxyType(constants), selects, tuple(wheres))


def _parse_constant(entry: Mapping[str, Any], place: str) -> ConstantDefinition:
    keys = {f"value{kind[0].upper()}{kind[1:]}": kind for kind in _CONSTANT_TYPES}
    _check_keys(entry, ("name", *keys, *_ELEMENT_KEYS), place)
    name = _text(entry, "name", place)
    if not _NAME.fullmatch(name):
        raise ViewError(f"'{name}' is no name for a constant.", remedy="Use letters, digits, _.", place=place)
    given = [key for key in entry if key in keys]
    if len(given) != 1:
        raise ViewError(
            f"Constant '{name}' has {len(given) or 'no'} value{'s' if given else ''}.",
            remedy="Give exactly one value[x], such as valueString.",
            place=place,
        )
    kind = keys[given[0]]
    value = entry[given[0]]
    if kind == "boolean":
        fits = isinstance(value, bool)
    elif kind == "decimal":
        fits = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
        value = Decimal(str(value)) if fits else value
    elif kind in _CONSTANT_INTEGERS:
        fits = isinstance(value, int) and not isinstance(value, bool)
    else:
        fits = isinstance(value, str)
    if not fits:
        raise ViewError(
            f"{given[0]} does not hold a value of type {kind}.", remedy="Mend the value.", place=place
        )
    return ConstantDefinition(name, kind, value)


def _parse_select(entry: Mapping[str, Any], place: str) -> Select:
    _check_keys(entry, _SELECT_KEYS, place)
    iterations = [key for key in _ITERATIONS if key in entry]
    if len(iterations) > 1:
        raise ViewError(
            f"{' and '.join(iterations)} stand in one select.",
            remedy="Keep one and nest the other in a select.",
            place=place,
        )
    iteration = iterations[0] if iterations else ""
    paths: tuple[str, ...] = ()
    if iteration == "repeat":
        value = entry["repeat"]
        if not isinstance(value, list) or not value or not all(isinstance(path, str) for path in value):
            raise ViewError(
                "repeat must be a list of FHIRPath texts.", remedy='Write "repeat": ["item"].', place=place
            )
        paths = tuple(value)
    elif iteration:
        paths = (_text(entry, iteration, place),)
    columns = tuple(_parse_column(column, at) for at, column in _objects(entry, "column", place))
    selects = tuple(_parse_select(select, at) for at, select in _objects(entry, "select", place))
    unions = tuple(_parse_select(select, at) for at, select in _objects(entry, "unionAll", place))
    if not (columns or selects or unions):
        raise ViewError(
            "The select has no columns.", remedy="Add column, select or unionAll, or remove it.", place=place
        )
    return Select(columns, selects, unions, iteration, paths, place)


def _parse_column(entry: Mapping[str, Any], place: str) -> ColumnDefinition:
    _check_keys(entry, _COLUMN_KEYS, place)
    name = _text(entry, "name", place)
    if not _NAME.fullmatch(name):
        raise ViewError(
            f"'{name}' is no name for a column.",
            remedy="Start with a letter; then letters, digits and _.",
            place=place,
        )
    collection = entry.get("collection", False)
    if not isinstance(collection, bool):
        raise ViewError("collection must be true or false.", remedy="Mend it.", place=place)
    tags = {}
    for at, tag in _objects(entry, "tag", place):
        _check_keys(tag, _TAG_KEYS, at)
        tags[_text(tag, "name", at)] = _text(tag, "value", at)
    return ColumnDefinition(
        name=name,
        path=_text(entry, "path", place),
        type=_text(entry, "type", place, required=False).rsplit("/", 1)[-1],
        collection=collection,
        description=_text(entry, "description", place, required=False),
        tags=MappingProxyType(tags),
        place=place,
    )


def _check_keys(entry: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    known = list(known)
    for key in entry:
        if key in known:
            continue
        if key == "modifierExtension":
            raise ViewError(
                "A modifierExtension could change what the view means; none is known.",
                remedy="Remove it.",
                place=place,
            )
        near = difflib.get_close_matches(str(key), known, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(known)}."
        raise ViewError(f"Unknown key '{key}'.", remedy=hint, place=place)


def _objects(entry: Mapping[str, Any], key: str, place: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    value = entry.get(key, [])
    if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
        raise ViewError(f"{key} must be a list of objects.", remedy="Mend it.", place=f"{place}.{key}")
    return [(f"{place}.{key}[{index}]", part) for index, part in enumerate(value)]


def _text(entry: Mapping[str, Any], key: str, place: str, *, required: bool = True) -> str:
    value = entry.get(key)
    if value is None and not required:
        return ""
    if value is None:
        raise ViewError(f"'{key}' is missing.", remedy=f"Add '{key}'.", place=place)
    if not isinstance(value, str) or not value:
        raise ViewError(f"'{key}' must be a text.", remedy="Mend it.", place=place)
    return value
