"""Ages among results: which codes mean one, which columns may hold one, and how to find them.

45 CFR 164.514(b)(2)(i)(C) wants ages over 89 to be one group, wherever they stand. Elements of the type
``Age`` have a class of their own. An age that was recorded as a result, in an Observation, a component of
one or an answer to a questionnaire, is a number like any other but for the code beside it. ``age_codes.csv``
lists codes that mean an age, with their sources; a policy adds the source's own (``also_age_codes``).

What a row is about does not follow from the row: a view may show another coding than the one that is listed,
or none. So the ages are looked for in the records themselves, by views of their own (``age_views``), and the
rows that show them are found by the id of the record.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Final

from cohortflow.model import Column, ColumnType

__all__ = [
    "AgeCode",
    "AgeMatch",
    "AgeReading",
    "Place",
    "age_views",
    "find_record_key",
    "load_age_codes",
    "read_ages_of",
]


class Place(StrEnum):
    """An element that has a code and a value."""

    OBSERVATION = "Observation"
    COMPONENT = "Observation.component"
    ANSWER = "QuestionnaireResponse.item"

    @property
    def resource(self) -> str:
        """The resource type that it belongs to."""
        return self.value.partition(".")[0]

    @property
    def code_path(self) -> str:
        """Path of what says what the value means."""
        return f"{self}.linkId" if self is Place.ANSWER else f"{self}.code.coding.code"


class AgeMatch(StrEnum):
    """How a column may hold an age."""

    NUMBER = "number"
    """As a number that can be capped."""
    TEXT = "text"
    """As a text or a code, which cannot."""
    DERIVED = "derived"
    """As something computed from it, or chosen by it."""


@dataclass(frozen=True, slots=True)
class AgeReading:
    """That a column reads results, so that some of its values may be ages.

    Attributes:
        place: Where the results stand.
        match: As what the column holds them.
    """

    place: Place
    match: AgeMatch

    def describe(self, cap: int) -> str:
        """Say what is done about it, in a sentence.

        Args:
            cap: Greatest age that is told, in years.
        """
        return _DONE[self.match].format(cap=cap, over=cap + 1)


_DONE: Final = MappingProxyType(
    {
        AgeMatch.NUMBER: "Ages above {cap} years, by the record's code, become {over} years in their unit.",
        AgeMatch.TEXT: "Null where the record's code means an age.",
        AgeMatch.DERIVED: "Null where the record, by its code, holds an age above {cap} years.",
    }
)


@dataclass(frozen=True, slots=True)
class AgeCode:
    """A code whose value is an age.

    Attributes:
        code: The code.
        system: Code system in which it means that; empty: in any.
    """

    code: str
    system: str = ""

    @classmethod
    def parse(cls, text: str) -> AgeCode:
        """Read ``system|code``, as in a FHIR search; ``|code`` holds for any system."""
        system, _, code = text.rpartition("|")
        return cls(code, system)


@lru_cache(maxsize=1)
def load_age_codes() -> tuple[AgeCode, ...]:
    """Return the shipped codes, for any system: the ones that are listed are unmistakable.

    Sources write LOINC and SNOMED CT as a URI, as an OID, or leave the system out.
    """
    text = resources.files("cohortflow.redaction").joinpath("age_codes.csv").read_text(encoding="utf-8")
    return tuple(AgeCode(row["code"]) for row in csv.DictReader(text.splitlines()))


_RESULT: Final = re.compile(
    r"(?P<place>Observation\.component|Observation|QuestionnaireResponse(?:\.item|\.answer)+)"
    r"\.value(?P<type>[A-Z]\w*)(?:\.(?P<rest>.+))?"
)
_NUMBERS: Final = re.compile(r"Quantity\.value|Integer|Decimal|Range\.(low|high)\.value")
_UNITS: Final = re.compile(r"Quantity\.\w+|Range\.(low|high)\.\w+")
_NO_AGES: Final = re.compile(
    r"Boolean|Date|DateTime|Instant|Time|Period\..+|Reference\..+|Attachment\..+"
    r"|Quantity|Range|Ratio|CodeableConcept|Coding|SampledData|Period|Reference|Attachment"
)
"""Values of classes of their own, or that tell no age; that there is a value of some type."""
_NUMERIC: Final = frozenset({ColumnType.INTEGER, ColumnType.FLOAT, ColumnType.DECIMAL})


def read_ages_of(column: Column) -> AgeReading | None:
    """Return how a column may hold an age that was recorded as a result; ``None`` where it cannot."""
    found = [reading for path in column.paths if (reading := _read_path(path)) is not None]
    derived = [reading for path in column.computed if (reading := _read_path(path)) is not None]
    if derived:
        return AgeReading(derived[0].place, AgeMatch.DERIVED)
    if not found or column.type is ColumnType.BOOLEAN:  # whether there is a value
        return None
    place = found[0].place
    if column.collection or len({reading.place for reading in found}) > 1:
        return AgeReading(place, AgeMatch.DERIVED)
    numbers = [reading.match is AgeMatch.NUMBER for reading in found]
    if all(numbers):
        return AgeReading(place, AgeMatch.NUMBER if column.type in _NUMERIC else AgeMatch.DERIVED)
    return AgeReading(place, AgeMatch.DERIVED if any(numbers) else AgeMatch.TEXT)


def find_record_key(columns: Iterable[Column], place: Place) -> str:
    """Return the name of the column with the id of the record that a result is in, or an empty text."""
    wanted = (f"{place.resource}.id",)
    return next((one.name for one in columns if one.paths == wanted and not one.computed), "")


def _read_path(path: str) -> AgeReading | None:
    match = _RESULT.fullmatch(path)
    if match is None:
        return None
    place = match["place"]
    value = match["type"] + (f".{match['rest']}" if match["rest"] else "")
    where = Place.ANSWER if place.startswith(Place.ANSWER.resource) else Place(place)
    if _NUMBERS.fullmatch(value):
        return AgeReading(where, AgeMatch.NUMBER)
    if _UNITS.fullmatch(value) or _NO_AGES.fullmatch(value):
        return None
    return AgeReading(where, AgeMatch.TEXT)


def age_views(resource: str, codes: Iterable[AgeCode]) -> dict[Place, dict[str, Any]]:
    """Return ViewDefinitions that find the results of a resource type that may be ages.

    Their columns are those that ``cohortflow.redaction.ages.find_ages`` reads. Answers are found by their
    ``linkId`` there, since FHIRPath does not see it from within an answer.

    Args:
        resource: A resource type; there are none for types without results.
        codes: Codes that mean an age.
    """
    criterion = " or ".join(dict.fromkeys(_equals(code) for code in codes))
    if resource == Place.OBSERVATION.resource:
        root = {"where": [{"path": f"code.coding.exists({criterion})"}], "select": [_id(), _values()]}
        each = {"forEach": f"component.where(code.coding.exists({criterion}))", **_values()}
        # Most records have no such component, which is quicker to tell of the record.
        some = {"where": [{"path": f"component.code.coding.exists({criterion})"}], "select": [_id(), each]}
        return {
            Place.OBSERVATION: _view("cohortflow_ages", resource, root),
            Place.COMPONENT: _view("cohortflow_component_ages", resource, some),
        }
    if resource == Place.ANSWER.resource:
        answers = {
            "repeat": ["item", "answer.item"],
            "column": [{"name": "link_id", "path": "linkId"}],
            "select": [{"forEach": "answer", **_values(answer=True)}],
        }
        return {Place.ANSWER: _view("cohortflow_answered_ages", resource, {"select": [_id(), answers]})}
    return {}


def _view(name: str, resource: str, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "resourceType": "ViewDefinition",
        "name": name,
        "status": "active",
        "resource": resource,
        **body,
    }


def _equals(code: AgeCode) -> str:
    test = f"code = {_quote(code.code)}"
    return f"(system = {_quote(code.system)} and {test})" if code.system else test


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _id() -> dict[str, Any]:
    return {"column": [{"name": "id", "path": "getResourceKey()"}]}


def _values(*, answer: bool = False) -> dict[str, Any]:
    other = ("string", "Coding") if answer else ("string", "CodeableConcept", "Ratio")
    columns = [
        *_quantity("quantity", "value.ofType(Quantity)"),
        {"name": "whole", "path": "value.ofType(integer)", "type": "integer"},
        {"name": "other", "path": " or ".join(f"value.ofType({kind}).exists()" for kind in other)},
    ]
    if answer:
        columns.append({"name": "decimal", "path": "value.ofType(decimal)", "type": "decimal"})
    else:
        columns += _quantity("low", "value.ofType(Range).low") + _quantity("high", "value.ofType(Range).high")
    return {"column": columns}


def _quantity(name: str, path: str) -> list[dict[str, str]]:
    return [
        {"name": name, "path": f"{path}.value", "type": "decimal"},
        {"name": f"{name}_code", "path": f"{path}.code"},
        {"name": f"{name}_unit", "path": f"{path}.unit"},
    ]
