"""The part of a resource that a view reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cohortflow.fhir.elements import is_primitive
from cohortflow.fhir.views.typed import Step
from cohortflow.fhir.views.types import column_type
from cohortflow.model import ColumnType

__all__ = ["DIGITS", "ReadField", "ReadTree", "digit_keys", "merge_reads"]

DIGITS = "#digits"
"""Behind the key of a decimal: the key of its twin, a text with its digits as they were written."""


@dataclass(frozen=True, slots=True)
class ReadField:
    """A JSON key to read.

    Attributes:
        name: The key.
        type: How a primitive value is read; ``None`` for an object.
        many: Whether it is a list.
        fields: The keys of an object.
    """

    name: str
    type: ColumnType | None
    many: bool
    fields: tuple[ReadField, ...] = ()


class ReadTree:
    """Collects the elements that expressions use."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[Step, ReadTree]] = {}

    def touch(self, route: tuple[Step, ...]) -> None:
        """Add the element at the end of a route."""
        tree = self
        for step in route:
            tree = tree._steps.setdefault(step.key, (step, ReadTree()))[1]

    def fields(self) -> tuple[ReadField, ...]:
        """Return what to read, by name."""
        return tuple(_field(step, tree) for _, (step, tree) in sorted(self._steps.items()))


def _field(step: Step, tree: ReadTree) -> ReadField:
    if is_primitive(step.type):
        physical = column_type(step.type)
        # JSON has one kind of number: an integer is read like any, so that 3.5 does not become 3.
        physical = ColumnType.FLOAT if physical is ColumnType.INTEGER else physical
        return ReadField(step.key, physical, step.many)
    # An object of which nothing is used still tells that it is there; an empty object cannot be read.
    fields = tree.fields() or (ReadField("id", ColumnType.STRING, many=False),)
    return ReadField(step.key, None, step.many, fields)


def digit_keys(fields: tuple[ReadField, ...]) -> tuple[str, ...]:
    """Return the keys of the decimals whose digits are read, at any depth."""
    keys = {field.name.removesuffix(DIGITS) for field in fields if field.name.endswith(DIGITS)}
    for field in fields:
        keys.update(digit_keys(field.fields))
    return tuple(sorted(keys))


def merge_reads(reads: Iterable[tuple[ReadField, ...]]) -> tuple[ReadField, ...]:
    """Return the fields that serve several views of one resource type."""
    merged: dict[str, ReadField] = {}
    for fields in reads:
        for field in fields:
            known = merged.get(field.name)
            if known is not None and field.type is None:
                both = merge_reads((known.fields, field.fields))
                merged[field.name] = ReadField(field.name, None, field.many, both)
            else:
                merged[field.name] = field
    return tuple(merged[name] for name in sorted(merged))
