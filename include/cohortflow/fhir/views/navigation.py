"""Paths: from an element to its children, its types, and whether it is there."""

from __future__ import annotations

from dataclasses import replace

from cohortflow.errors import FhirPathError
from cohortflow.fhir import fhirpath as fp
from cohortflow.fhir.elements import find_element, is_primitive, is_type, suggest_element, suggest_type
from cohortflow.fhir.views.reads import DIGITS, ReadTree
from cohortflow.fhir.views.scope import join_paths
from cohortflow.fhir.views.typed import (
    Apply,
    Choice,
    Constant,
    Context,
    Exists,
    Get,
    Node,
    Pick,
    QuantityParts,
    Single,
    Step,
)
from cohortflow.fhir.views.types import is_subtype

__all__ = ["Navigator"]


class Navigator:
    """Follows paths within one view.

    Args:
        reads: Collects the elements that are used.

    Attributes:
        carried: Elements of the resource that are used inside an iteration.
    """

    def __init__(self, reads: ReadTree) -> None:
        self._reads = reads
        self._text = ""
        self._iterates = False
        self.carried: set[str] = set()

    def start(self, text: str, *, iterates: bool) -> None:
        """Note the expression in hand, and whether it stands inside an iteration."""
        self._text = text
        self._iterates = iterates

    def refusal(self, at: int, message: str, remedy: str) -> FhirPathError:
        """Return the error for a character of the expression in hand."""
        return FhirPathError(message, remedy=remedy, place=fp.locate(self._text, at))

    def get(self, source: Node, name: str, at: int) -> Node:
        """Return the element of a node by name."""
        if isinstance(source, Choice):
            raise self._choice_refusal(source, at)
        if isinstance(source, QuantityParts):
            return self._get_of_quantity(source, name, at)
        if is_primitive(source.type):
            return self._get_of_primitive(source, name, at)
        element = find_element(source.type, name)
        if element is None:
            near = suggest_element(source.type, name)
            hint = f"Did you mean '{near}'?" if near else f"See the elements of {source.type} in FHIR R4."
            raise self.refusal(at, f"{source.type} has no element '{name}'.", hint)
        if element.choice:
            paths = tuple(f"{path}.{name}" for path in source.paths)
            return Choice(
                input=source, element=element, type=name, many=source.many, paths=paths, tested=source.tested
            )
        return self._get(source, element.name, element.types[0], at, lists=element.many)

    def take(self, source: Node, key: str, kind: str, way: str) -> Get:
        """Return the list under a key of our own.

        Args:
            source: Where it stands.
            key: The key.
            kind: Type of its elements.
            way: Path of the elements, for the lineage.
        """
        found = self._get(source, key, kind, 0, lists=True)
        return replace(found, paths=tuple(f"{path}.{way}" for path in source.paths))

    def _get(self, source: Node, key: str, kind: str, at: int, *, lists: bool = False) -> Get:
        if source.route is None:
            raise self.refusal(
                at, f"'{key}' cannot be taken from a computed value.", "Take it before computing."
            )
        route = (*source.route, Step(key, kind, lists))
        self._reads.touch(route)
        if self._iterates and isinstance(source, Context) and not source.name:
            self.carried.add(key)
        return Get(
            input=source,
            key=key,
            lists=lists,
            type=kind,
            many=source.many or lists,
            paths=tuple(f"{path}.{key}" for path in source.paths),
            route=route,
            tested=source.tested,
        )

    def digits(self, source: Get) -> Get:
        """Return the digits of a decimal as they were written, as text."""
        twin = self._get(source.input, source.key + DIGITS, "string", 0)
        return replace(twin, paths=source.paths)

    def _get_of_primitive(self, source: Node, name: str, at: int) -> Node:
        if name not in {"id", "extension"}:
            raise self.refusal(at, f"A {source.type} has no element '{name}'.", "Remove the step.")
        if not isinstance(source, Get) or source.lists:
            raise self.refusal(
                at,
                f"'{name}' of a primitive is supported directly behind an element that is no list.",
                "Iterate with forEach over the parent.",
            )
        sibling = self._get(source.input, f"_{source.key}", "Element", at)
        return self.get(replace(sibling, paths=source.paths), name, at)

    def _get_of_quantity(self, source: QuantityParts, name: str, at: int) -> Node:
        """Return a part of a Quantity that is no element of the resource."""
        if name == "value":
            return source.value
        if name in {"unit", "code"}:
            return source.unit
        raise self.refusal(at, f"A computed Quantity has no '{name}'.", "Take its value or its unit.")

    def test_type(self, source: Node, type_name: str, operator: str, at: int) -> Node:
        """Resolve ``ofType``, ``as`` or ``is``."""
        kind = type_name.removeprefix("FHIR.")
        if not is_type(kind):
            near = suggest_type(kind)
            hint = f"Did you mean '{near}'?" if near else "Write it as FHIR does: Quantity, dateTime."
            raise self.refusal(at, f"'{type_name}' is no FHIR type.", hint)
        if source.type == "Resource":
            raise self.refusal(
                at, "Resources within resources are not supported.", "Use a view of their type."
            )
        if isinstance(source, Choice):
            return self._choose(source, kind, operator, at)
        if not is_subtype(source.type, kind):
            raise self.refusal(
                at,
                f"The value is of type {source.type}, never {kind}.",
                f"Use {source.type}, or remove the test.",
            )
        if operator == "is":
            arguments = (self.exists(source), Constant(type="boolean", many=False, value=True))
            return Apply(name="choose", arguments=arguments, type="boolean", many=False, paths=source.paths)
        return source

    def _choose(self, source: Choice, kind: str, operator: str, at: int) -> Node:
        element = source.element
        if kind not in element.types:
            raise self.refusal(
                at, f"'{element.name}' is never of type {kind}.", f"Its types: {', '.join(element.types)}."
            )
        chosen = self._get(source.input, element.key(kind), kind, at)
        if operator != "is":
            return chosen
        arguments = (self.exists(source), self.exists(self.single(chosen)))
        return Apply(name="choose", arguments=arguments, type="boolean", many=False, paths=source.paths)

    def alternatives(self, source: Choice) -> list[Get]:
        """Return a choice element in each of its types."""
        return [self._get(source.input, source.element.key(kind), kind, 0) for kind in source.element.types]

    def exists(self, source: Node) -> Node:
        """Return whether there is a value."""
        if isinstance(source, QuantityParts):
            return self.exists(source.value)
        if isinstance(source, Choice):
            found: tuple[Node, ...] = tuple(
                Exists(input=one, type="boolean", many=False, paths=one.paths)
                for one in self.alternatives(source)
            )
            paths = join_paths(*found, tested=True) + source.tested
            return Apply(name="any", arguments=found, type="boolean", many=False, paths=paths)
        return Exists(input=source, type="boolean", many=False, paths=join_paths(source, tested=True))

    def pick(self, source: Node, position: int) -> Node:
        """Return one value by position."""
        if not source.many and position in {0, -1}:
            return source
        if not source.many:
            return Constant(type=source.type, many=False, value=None)
        return Pick(
            input=source,
            position=position,
            type=source.type,
            many=False,
            paths=source.paths,
            route=source.route,
            target=source.target,
            tested=source.tested,
        )

    def value(self, source: Node, at: int) -> Node:
        """Refuse a choice element whose type is open."""
        if isinstance(source, Choice):
            raise self._choice_refusal(source, at)
        return source

    def _choice_refusal(self, source: Choice, at: int) -> FhirPathError:
        name, types = source.element.name, source.element.types
        shown = ", ".join(f"{name}.ofType({kind})" for kind in types[:12])
        more = " ..." if len(types) > 12 else ""  # noqa: PLR2004 - a line's worth
        return self.refusal(at, f"'{name}' may be of several types.", f"Choose one: {shown}{more}.")

    def single(self, source: Node) -> Node:
        """Return the one value of a node; several are an error when the data are read."""
        if not source.many:
            return source
        return Single(
            input=source,
            type=source.type,
            many=False,
            paths=source.paths,
            route=source.route,
            target=source.target,
            tested=source.tested,
        )
