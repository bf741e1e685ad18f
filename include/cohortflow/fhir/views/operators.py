"""The FHIRPath operators: which operands each takes and what it yields (FHIRPath 2.0.0, section 6)."""

from __future__ import annotations

from cohortflow.fhir import fhirpath as fp
from cohortflow.fhir.views.quantities import compare_quantities
from cohortflow.fhir.views.resolve import Resolver
from cohortflow.fhir.views.scope import Scope, join_paths
from cohortflow.fhir.views.typed import Collection, Compare, Node, QuantityParts
from cohortflow.fhir.views.types import common_type, is_quantity, kind_of

__all__ = ["operate"]

_EQUALITY = frozenset({"=", "!=", "~", "!~"})
_ORDER = frozenset({"<", "<=", ">", ">="})
_LOGIC = frozenset({"and", "or", "xor", "implies"})
_ARITHMETIC = frozenset({"+", "-", "*", "/", "div", "mod"})


def operate(resolver: Resolver, node: fp.Binary, scope: Scope) -> Node:
    """Resolve a binary operation.

    Raises:
        FhirPathError: The operands do not fit, or the operation is not supported.
    """
    operator = node.operator
    left = resolver.value(resolver.resolve(node.left, scope), node.at)
    right = resolver.value(resolver.resolve(node.right, scope), node.at)
    if operator in _LOGIC:
        parts = (resolver.boolean(left, node.at), resolver.boolean(right, node.at))
        return resolver.apply(operator, parts, "boolean")
    if operator in _EQUALITY or operator in _ORDER:
        return _compare(resolver, operator, left, right, node.at)
    if operator in {"in", "contains"}:
        items, sought = (right, left) if operator == "in" else (left, right)
        return _membership(resolver, items, sought, node.at)
    if operator == "|":
        return resolver.combine("union", left, right, node.at)
    return _arithmetic(
        resolver, operator, resolver.primitive(left, node.at), resolver.primitive(right, node.at), node.at
    )


def _compare(resolver: Resolver, operator: str, left: Node, right: Node, at: int) -> Node:
    if isinstance(left, QuantityParts) or isinstance(right, QuantityParts) or _are_quantities(left, right):
        return compare_quantities(resolver, operator, left, right, at)
    if operator in _ORDER:
        left, right = resolver.single(left), resolver.single(right)
    kinds = {kind_of(left.type), kind_of(right.type)} - {"empty"}
    if "complex" in kinds:
        raise resolver.refusal(
            at, f"A {left.type} cannot be compared as a whole.", "Compare one of its elements."
        )
    if len(kinds) > 1 or (kinds == {"boolean"} and operator in _ORDER):
        hint = "Write dates as @2020-01-31." if "date" in kinds else "Compare values of one type."
        raise resolver.refusal(at, f"{left.type} {operator} {right.type} cannot be compared.", hint)
    found = Compare(
        operator="~" if operator == "!~" else operator,
        left=left,
        right=right,
        type="boolean",
        many=False,
        paths=join_paths(left, right),
    )
    return resolver.apply("not", (found,), "boolean") if operator == "!~" else found


def _are_quantities(left: Node, right: Node) -> bool:
    return is_quantity(left.type) and is_quantity(right.type)


def _membership(resolver: Resolver, items: Node, sought: Node, at: int) -> Node:
    sought = resolver.primitive(sought, at)
    if kind_of(items.type) != kind_of(sought.type) or kind_of(sought.type) in {"date", "time", "complex"}:
        raise resolver.refusal(
            at, f"{sought.type} in {items.type} is not supported.", "Use where(...).exists()."
        )
    return Collection(
        name="contains",
        inputs=(items, sought),
        type="boolean",
        many=False,
        paths=join_paths(items, sought),
    )


def _arithmetic(resolver: Resolver, operator: str, left: Node, right: Node, at: int) -> Node:
    if operator == "&":
        return resolver.apply("concat", (resolver.string(left, at), resolver.string(right, at)), "string")
    kinds = {kind_of(left.type), kind_of(right.type)} - {"empty"}
    if operator == "+" and kinds == {"string"}:
        return resolver.apply("join", (left, right), "string")
    if operator not in _ARITHMETIC or kinds - {"number"}:
        raise resolver.refusal(
            at, f"{left.type} {operator} {right.type} is not supported.", "Use numbers, or & for texts."
        )
    if operator == "/":
        kind = "decimal"
    elif operator == "div":
        kind = "integer"
    else:
        kind = common_type(left.type, right.type) or "decimal"
        kind = "integer" if kind not in {"decimal", "empty"} else kind
    return resolver.apply(operator, (left, right), kind)
