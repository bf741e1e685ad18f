"""What a function or an operator needs of its operands: one value, a number, a text, ..."""

from __future__ import annotations

from cohortflow.fhir.views.navigation import Navigator
from cohortflow.fhir.views.scope import join_paths
from cohortflow.fhir.views.typed import Apply, Choice, Collection, Constant, Node, QuantityParts
from cohortflow.fhir.views.types import common_type, kind_of

__all__ = ["Operands"]


_OF_KIND = {"boolean": "boolean", "number": "integer", "string": "string"}


class Operands(Navigator):
    """Turns nodes into operands, and operands into nodes."""

    def primitive(self, source: Node, at: int) -> Node:
        """Return one primitive value."""
        source = self.single(self.value(source, at))
        if isinstance(source, QuantityParts):
            raise self.refusal(at, "A Quantity can only be compared.", "Compute with its .value.")
        if kind_of(source.type) == "complex":
            raise self.refusal(at, f"A {source.type} is no simple value.", "Go on to one of its elements.")
        return source

    def _of_kind(self, source: Node, at: int, kind: str, hint: str) -> Node:
        source = self.primitive(source, at)
        if source.type == "empty":
            return Constant(type=_OF_KIND[kind], many=False, value=None)
        if kind_of(source.type) != kind:
            raise self.refusal(at, f"Expected a {kind}, found a {source.type}.", hint)
        return source

    def boolean(self, source: Node, at: int) -> Node:
        """Return one boolean; one value of another type counts as true.

        Source: FHIRPath 2.0.0, section 4.5, singleton evaluation of collections.
        """
        if isinstance(source, Choice | QuantityParts) or kind_of(source.type) not in {
            "boolean",
            "empty",
        }:
            one = source if isinstance(source, Choice | QuantityParts) else self.single(source)
            true = Constant(type="boolean", many=False, value=True)
            return self.apply("choose", (self.exists(one), true), "boolean")
        return self._of_kind(source, at, "boolean", "Compare it, or test it with exists().")

    def number(self, source: Node, at: int) -> Node:
        """Return one number."""
        return self._of_kind(source, at, "number", "Use a number.")

    def string(self, source: Node, at: int) -> Node:
        """Return one text; dates and times are texts too."""
        source = self.primitive(source, at)
        if source.type == "empty":
            return Constant(type="string", many=False, value=None)
        if kind_of(source.type) not in {"string", "date", "time"}:
            raise self.refusal(at, f"Expected a string, found a {source.type}.", "Use toString().")
        return source

    def apply(self, name: str, arguments: tuple[Node, ...], kind: str) -> Node:
        """Return an operation on single values; what is never there is taken to be of the result's type."""
        arguments = tuple(
            Constant(type=kind, many=False, value=None) if one.type == "empty" else one for one in arguments
        )
        return Apply(name=name, arguments=arguments, type=kind, many=False, paths=join_paths(*arguments))

    def combine(self, name: str, left: Node, right: Node, at: int) -> Node:
        """Return ``left | right`` (``union``) or ``left.combine(right)``."""
        kind = common_type(left.type, right.type)
        if left.type == right.type and kind_of(left.type) == "complex":
            return self._combine_elements(name, left, right, at)
        if kind is None or kind_of(kind) == "complex":
            raise self.refusal(
                at, f"{left.type} and {right.type} cannot be combined.", "Combine simple values of one type."
            )
        target = left.target if left.target == right.target else ""
        return Collection(
            name=name,
            inputs=(left, right),
            type=kind,
            many=True,
            paths=join_paths(left, right),
            target=target,
        )

    def _combine_elements(self, name: str, left: Node, right: Node, at: int) -> Node:
        """Return two collections of elements of one type as one."""
        if name == "union":
            # Of the elements only what is used is read: whether two are equal is not known.
            raise self.refusal(
                at, f"Duplicates among elements of type {left.type} are not found.", "Use combine() instead."
            )
        if left.route is None or right.route is None:
            raise self.refusal(at, "Computed elements cannot be combined.", "Combine simple values.")
        # What is read of the one is read of the other, so that both have the same shape.
        if not self._reads.share(left.route, right.route):
            raise self.refusal(at, "An element cannot be combined with a part of it.", "Use repeat().")
        return Collection(
            name=name,
            inputs=(left, right),
            type=left.type,
            many=True,
            paths=join_paths(left, right),
            route=left.route,
            tested=(*left.tested, *right.tested),
        )
