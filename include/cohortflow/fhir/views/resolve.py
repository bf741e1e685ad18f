"""Syntax tree to typed expression: every name is looked up, every cardinality decided.

What cannot be evaluated is refused here, with its place, before any data are read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from cohortflow.fhir import fhirpath as fp
from cohortflow.fhir.views.definition import ConstantDefinition
from cohortflow.fhir.views.operands import Operands
from cohortflow.fhir.views.quantities import quantity_literal
from cohortflow.fhir.views.reads import ReadTree
from cohortflow.fhir.views.scope import Scope
from cohortflow.fhir.views.typed import Apply, Constant, Context, Node, RowIndex

__all__ = ["Resolver"]

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


class Resolver(Operands):
    """Resolves the expressions of one view.

    Args:
        constants: The view's constants.
        reads: Collects the elements that are used.
        call: Resolves function calls.
        operate: Resolves binary operations.

    Attributes:
        moment: What ``now()`` is, for all of the view.
        numbers_rows: Whether ``%rowIndex`` was met; the caller resets it.
    """

    def __init__(
        self,
        constants: Mapping[str, ConstantDefinition],
        reads: ReadTree,
        call: Callable[[Resolver, fp.Call, Scope], Node],
        operate: Callable[[Resolver, fp.Binary, Scope], Node],
    ) -> None:
        super().__init__(reads)
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
        self.moment = datetime.now(UTC)
        self.numbers_rows = False

    def resolve_text(self, text: str, scope: Scope) -> Node:
        """Parse and resolve an expression.

        Raises:
            FhirPathError: It is wrong, or uses what is not supported; ``place`` names the character.
        """
        tree = fp.parse(text)
        self.start(text, iterates=scope.context is not scope.resource)
        return self.resolve(tree, scope)

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
            return quantity_literal(node)
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
            if scope.sealed:
                raise self.refusal(
                    node.at,
                    f"%{name} is out of reach inside a repeat.",
                    "Select it beside the repeat.",
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
