"""The part of a resource that a view reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cohortflow.fhir.elements import is_primitive
from cohortflow.fhir.views.typed import Step
from cohortflow.fhir.views.types import column_type
from cohortflow.model import ColumnType

__all__ = ["DIGITS", "ReadField", "ReadTree", "digit_keys", "merge_reads", "repeat_key", "repeat_paths"]

DIGITS = "#digits"
"""Behind the key of a decimal: the key of its twin, a text with its digits as they were written."""


_REPEAT = "repeat:"


def repeat_key(paths: Iterable[Sequence[str]]) -> str:
    """Return the key of the list of all elements that paths lead to, over and over."""
    return _REPEAT + "|".join(".".join(path) for path in paths)


def repeat_paths(key: str) -> tuple[tuple[str, ...], ...]:
    """Return the paths of such a list by its key; none for any other key."""
    if not key.startswith(_REPEAT):
        return ()
    return tuple(tuple(path.split(".")) for path in key.removeprefix(_REPEAT).split("|"))


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
    """Collects the elements that expressions use.

    Attributes:
        steps: What is read of an element, by key: the step and what is read of it in turn.
        merged: Tree that holds what is read of this element, if it shares that with another one.
    """

    def __init__(self) -> None:
        self.steps: dict[str, tuple[Step, ReadTree]] = {}
        self.merged: ReadTree | None = None

    def touch(self, route: tuple[Step, ...]) -> ReadTree:
        """Add the element at the end of a route, and return what is read of it."""
        tree = _whole(self)
        for step in route:
            tree = _whole(tree.steps.setdefault(step.key, (step, ReadTree()))[1])
        return tree

    def share(self, route: tuple[Step, ...], other: tuple[Step, ...]) -> bool:
        """Read the same of the elements at the ends of two routes, now and for what is added later.

        Returns:
            ``False`` where the one lies within the other: the schema to read would have no end.
        """
        tree, twin = self.touch(route), self.touch(other)
        if tree is twin:
            return True
        if _holds(tree, twin) or _holds(twin, tree):
            return False
        _absorb(tree, twin)
        return True

    def fields(self) -> tuple[ReadField, ...]:
        """Return what to read, by name."""
        return tuple(_field(step, tree) for _, (step, tree) in sorted(_whole(self).steps.items()))


def _whole(tree: ReadTree) -> ReadTree:
    while tree.merged is not None:
        tree = tree.merged
    return tree


def _holds(tree: ReadTree, other: ReadTree) -> bool:
    inner = (_whole(part) for _, part in tree.steps.values())
    return any(part is other or _holds(part, other) for part in inner)


def _absorb(tree: ReadTree, other: ReadTree) -> None:
    other.merged = tree
    for key, (step, inner) in other.steps.items():
        known = _whole(tree.steps.setdefault(key, (step, inner))[1])
        part = _whole(inner)
        if known is not part:
            _absorb(known, part)


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
