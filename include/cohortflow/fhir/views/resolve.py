"""Syntax tree to typed expression: every name is looked up, every cardinality decided.

What cannot be evaluated is refused here, with its place, before any data are read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from cohortflow.errors import FhirPathError
from cohortflow.fhir import fhirpath as fp
from cohortflow.fhir.elements import find_element, is_primitive, is_type, suggest_element, suggest_type
from cohortflow.fhir.views.definition import ConstantDefinition
from cohortflow.fhir.views.reads import DIGITS, ReadTree
from cohortflow.fhir.views.typed import (
    Apply,
    Choice,
    Collection,
    Constant,
    Context,
    Exists,
    Get,
    Item,
    Node,
    Pick,
    RowIndex,
    Single,
    Step,
)
from cohortflow.fhir.views.types import common_type, kind_of

__all__ = ["Resolver", "Scope", "join_paths"]

_TERMINOLOGIES = {
    "sct": "http://snomed.info/sct",
    "loinc": "http://loinc.org",
    "ucum": "http://unitsofmeasure.org",
}
_LITERAL_TYPES = {
    fp.LiteralKind.BOOLEAN: "boolean",
    fp.LiteralKind.STRING: "string",
    fp.LiteralKind.INTEGER: "integer",
    fp.LiteralKind.DECIMAL: "decimal",
    fp.LiteralKind.DATE: "date",
    fp.LiteralKind.DATETIME: "dateTime",
    fp.LiteralKind.TIME: "time",
    fp.LiteralKind.EMPTY: "empty",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """Where an expression stands.

    Attributes:
        focus: What a bare name is looked up in.
        context: The element that the whole expression is evaluated on (``%context``).
        resource: The resource (``%resource``).
        in_list: Whether it is a criterion on the items of a list: the row around it is out of reach.
    """

    focus: Node
    context: Node
    resource: Context
    in_list: bool = False

    def on(self, items: Node) -> Scope:
        """Return the scope of a criterion on each of some values."""
        item = Item(type=items.type, many=False, paths=items.paths, route=items.route)
        return replace(self, focus=item, in_list=self.in_list or items.many)


def join_paths(*nodes: Node, tested: bool = False) -> tuple[str, ...]:
    """Return the element paths of several nodes, each once; on request those of their criteria too."""
    paths = [path for node in nodes for path in (*node.paths, *(node.tested if tested else ()))]
    return tuple(dict.fromkeys(paths))


class Resolver:
    """Resolves the expressions of one view.

    Args:
        constants: The view's constants.
        reads: Collects the elements that are used.
        call: Resolves function calls.
        operate: Resolves binary operations.

    Attributes:
        moment: What ``now()`` is, for all of the view.
        numbers_rows: Whether ``%rowIndex`` was met; the caller resets it.
        carried: Elements of the resource that are used inside an iteration.
    """

    def __init__(
        self,
        constants: Mapping[str, ConstantDefinition],
        reads: ReadTree,
        call: Callable[[Resolver, fp.Call, Scope], Node],
        operate: Callable[[Resolver, fp.Binary, Scope], Node],
    ) -> None:
        self._handlers: dict[type, Callable[..., Node]] = {
            fp.Literal: self._literal,
            fp.Variable: self._variable,
            fp.Special: self._special,
            fp.Member: self._member,
            fp.Indexer: self._indexer,
            fp.Unary: self._unary,
            fp.Binary: functools.partial(operate, self),
            fp.TypeTest: self._type_test,
            fp.Call: functools.partial(call, self),
        }
        self._constants = constants
        self._reads = reads
        self._text = ""
        self.moment = datetime.now(UTC)
        self.numbers_rows = False
        self.carried: set[str] = set()
        self._iterates = False

    def resolve_text(self, text: str, scope: Scope) -> Node:
        """Parse and resolve an expression.

        Raises:
            FhirPathError: It is wrong, or uses what is not supported; ``place`` names the character.
        """
        tree = fp.parse(text)
        self._text = text
        self._iterates = scope.context is not scope.resource
        return self.resolve(tree, scope)

    def refusal(self, at: int, message: str, remedy: str) -> FhirPathError:
        """Return the error for a character of the expression in hand."""
        return FhirPathError(message, remedy=remedy, place=fp.locate(self._text, at))

    def resolve(self, node: fp.Expression, scope: Scope) -> Node:
        """Resolve a node of the syntax tree."""
        return self._handlers[type(node)](node, scope)

    def _special(self, node: fp.Special, scope: Scope) -> Node:
        if node.name != "$this":
            raise self.refusal(
                node.at, f"{node.name} is not supported.", "Use %rowIndex, or [n] for a position."
            )
        return scope.focus

    def _unary(self, node: fp.Unary, scope: Scope) -> Node:
        operand = self.number(self.resolve(node.operand, scope), node.at)
        return operand if node.operator == "+" else self._negate(operand)

    def _type_test(self, node: fp.TypeTest, scope: Scope) -> Node:
        return self.test_type(self.resolve(node.operand, scope), node.type_name, node.operator, node.at)

    def _literal(self, node: fp.Literal, _: Scope) -> Node:
        if node.kind is fp.LiteralKind.QUANTITY:
            raise self.refusal(
                node.at,
                "A Quantity literal can only be compared with an element.",
                "Compute with .value instead.",
            )
        return Constant(type=_LITERAL_TYPES[node.kind], many=False, value=node.value)

    def _negate(self, operand: Node) -> Node:
        if isinstance(operand, Constant) and isinstance(operand.value, int | Decimal):
            return replace(operand, value=-operand.value)
        return Apply(name="negate", arguments=(operand,), type=operand.type, many=False, paths=operand.paths)

    def _variable(self, node: fp.Variable, scope: Scope) -> Node:
        name = node.name
        if name in self._constants:
            constant = self._constants[name]
            return Constant(type=constant.type, many=False, value=constant.value)
        if name in _TERMINOLOGIES:
            return Constant(type="uri", many=False, value=_TERMINOLOGIES[name])
        if name in {"rowIndex", "resource", "rootResource", "context"}:
            if scope.in_list:
                raise self.refusal(
                    node.at,
                    f"%{name} cannot be used in a criterion on the items of a list, nor inside repeat.",
                    "Iterate with forEach and compare there.",
                )
            if name == "rowIndex":
                self.numbers_rows = True
                return RowIndex(type="integer", many=False)
            return scope.context if name == "context" else scope.resource
        known = ", ".join(sorted(self._constants)) or "none"
        raise self.refusal(
            node.at, f"No constant '%{name}'.", f"Add it to 'constant' of the view. Known: {known}."
        )

    def _member(self, node: fp.Member, scope: Scope) -> Node:
        if node.source is None:
            if isinstance(scope.focus, Context) and not scope.focus.name and node.name == scope.focus.type:
                return scope.focus  # `Patient.name` says the same as `name`
            return self.get(scope.focus, node.name, node.at)
        return self.get(self.resolve(node.source, scope), node.name, node.at)

    def get(self, source: Node, name: str, at: int) -> Node:
        """Return the element of a node by name."""
        if isinstance(source, Choice):
            raise self._choice_refusal(source, at)
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
        if source.type != kind:
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
        if isinstance(source, Choice):
            found: tuple[Node, ...] = tuple(
                Exists(input=one, type="boolean", many=False, paths=one.paths)
                for one in self.alternatives(source)
            )
            paths = join_paths(*found, tested=True) + source.tested
            return Apply(name="any", arguments=found, type="boolean", many=False, paths=paths)
        return Exists(input=source, type="boolean", many=False, paths=join_paths(source, tested=True))

    def _indexer(self, node: fp.Indexer, scope: Scope) -> Node:
        source = self.value(self.resolve(node.source, scope), node.at)
        index = self.resolve(node.index, scope)
        if not isinstance(index, Constant) or not isinstance(index.value, int):
            raise self.refusal(
                node.at, "An index must be a number or a constant.", "Write [0] or [%constant]."
            )
        if index.value < 0:
            raise self.refusal(node.at, "An index counts from 0.", "Use last() for the last value.")
        return self.pick(source, index.value)

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

    def primitive(self, source: Node, at: int) -> Node:
        """Return one primitive value."""
        source = self.single(self.value(source, at))
        if kind_of(source.type) == "complex":
            raise self.refusal(at, f"A {source.type} is no simple value.", "Go on to one of its elements.")
        return source

    def _of_kind(self, source: Node, at: int, kind: str, hint: str) -> Node:
        source = self.primitive(source, at)
        if kind_of(source.type) not in {kind, "empty"}:
            raise self.refusal(at, f"Expected a {kind}, found a {source.type}.", hint)
        return source

    def boolean(self, source: Node, at: int) -> Node:
        """Return one boolean."""
        return self._of_kind(source, at, "boolean", "Compare it, or test it with exists().")

    def number(self, source: Node, at: int) -> Node:
        """Return one number."""
        return self._of_kind(source, at, "number", "Use a number.")

    def string(self, source: Node, at: int) -> Node:
        """Return one text; dates and times are texts too."""
        source = self.primitive(source, at)
        if kind_of(source.type) not in {"string", "date", "time", "empty"}:
            raise self.refusal(at, f"Expected a string, found a {source.type}.", "Use toString().")
        return source

    def apply(self, name: str, arguments: tuple[Node, ...], kind: str) -> Node:
        """Return an operation on single values."""
        return Apply(name=name, arguments=arguments, type=kind, many=False, paths=join_paths(*arguments))

    def combine(self, name: str, left: Node, right: Node, at: int) -> Node:
        """Return ``left | right`` (``union``) or ``left.combine(right)``."""
        kind = common_type(left.type, right.type)
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
