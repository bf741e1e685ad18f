"""The FHIRPath operators: which operands each takes and what it yields (FHIRPath 2.0.0, section 6)."""

from __future__ import annotations

from decimal import Decimal

from cohortflow.fhir import fhirpath as fp
from cohortflow.fhir.views.resolve import Resolver, Scope, join_paths
from cohortflow.fhir.views.typed import Collection, Compare, Constant, Node
from cohortflow.fhir.views.types import common_type, kind_of

__all__ = ["operate"]

_EQUALITY = frozenset({"=", "!=", "~", "!~"})
_ORDER = frozenset({"<", "<=", ">", ">="})
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_QUANTITIES = frozenset({"Quantity", "SimpleQuantity", "Age", "Count", "Distance", "Duration"})
# Calendar words in a literal, such as `4 days`, to UCUM codes.
_CALENDAR = {
    "year": "a",
    "month": "mo",
    "week": "wk",
    "day": "d",
    "hour": "h",
    "minute": "min",
    "second": "s",
    "millisecond": "ms",
}
_LOGIC = frozenset({"and", "or", "xor", "implies"})
_ARITHMETIC = frozenset({"+", "-", "*", "/", "div", "mod"})


def operate(resolver: Resolver, node: fp.Binary, scope: Scope) -> Node:
    """Resolve a binary operation.

    Raises:
        FhirPathError: The operands do not fit, or the operation is not supported.
    """
    operator = node.operator
    if _is_quantity(node.left) or _is_quantity(node.right):
        return _compare_quantity(resolver, node, scope)
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
    if operator in {"~", "!~"}:
        return _equivalent(resolver, operator, left, right, at)
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
    if left.many and right.many and kinds & {"date", "time"}:
        raise resolver.refusal(at, "Two lists of dates cannot be compared.", "Use first() on one side.")
    return Compare(
        operator=operator,
        left=left,
        right=right,
        type="boolean",
        many=False,
        paths=join_paths(left, right),
    )


def _equivalent(resolver: Resolver, operator: str, left: Node, right: Node, at: int) -> Node:
    """Compare without regard to case and white space; true or false, never empty."""
    if left.many or right.many:
        raise resolver.refusal(at, f"'{operator}' of lists is not supported.", "Use first() on both sides.")
    left, right = resolver.primitive(left, at), resolver.primitive(right, at)
    kinds = {kind_of(left.type), kind_of(right.type)} - {"empty"}
    if "decimal" in {left.type, right.type}:
        raise resolver.refusal(at, f"'{operator}' of decimals is not supported.", "Use =, or round().")
    if len(kinds) > 1:
        message = f"{left.type} {operator} {right.type} cannot be compared."
        raise resolver.refusal(at, message, "Compare values of one type.")
    if kinds == {"string"}:
        left, right = (
            one if one.type == "empty" else resolver.apply("normalize", (one,), "string")
            for one in (left, right)
        )
    paths = join_paths(left, right)
    equal = Compare(operator="=", left=left, right=right, type="boolean", many=False, paths=paths)
    found = resolver.apply("equivalent", (equal, resolver.exists(left), resolver.exists(right)), "boolean")
    return resolver.apply("not", (found,), "boolean") if operator == "!~" else found


def _is_quantity(node: fp.Expression) -> bool:
    return isinstance(node, fp.Literal) and node.kind is fp.LiteralKind.QUANTITY


def _compare_quantity(resolver: Resolver, node: fp.Binary, scope: Scope) -> Node:
    """Compare an element with a Quantity literal; empty if the units differ.

    An element is a FHIRPath Quantity if its unit is a UCUM code and it has no comparator
    (http://hl7.org/fhir/R4/fhirpath.html#quantity).
    """
    operator, other, literal = node.operator, node.left, node.right
    if _is_quantity(other):
        operator, other, literal = _TURNED.get(operator, operator), literal, other
    element = resolver.single(resolver.value(resolver.resolve(other, scope), node.at))
    if operator not in _EQUALITY | _ORDER:
        raise resolver.refusal(node.at, f"'{operator}' of Quantities is not supported.", "Use .value.")
    if not isinstance(literal, fp.Literal) or element.type not in _QUANTITIES:
        raise resolver.refusal(
            literal.at,
            f"A Quantity can be compared with a Quantity only, this is a {element.type}.",
            "Name the element that is a Quantity.",
        )

    def compare(operator: str, key: str, value: str | Constant) -> Node:
        wanted = value if isinstance(value, Constant) else Constant(type="string", many=False, value=value)
        return _compare(resolver, operator, resolver.get(element, key, node.at), wanted, node.at)

    number = literal.value if isinstance(literal.value, Decimal) else None
    unit = _CALENDAR.get(literal.unit.removesuffix("s"), literal.unit)
    comparator = resolver.exists(resolver.get(element, "comparator", node.at))
    exact = resolver.apply("not", (comparator,), "boolean")
    condition = compare("=", "system", "http://unitsofmeasure.org")
    for part in (compare("=", "code", unit), exact):
        condition = resolver.apply("and", (condition, part), "boolean")
    result = compare(operator, "value", Constant(type="decimal", many=False, value=number))
    return resolver.apply("choose", (condition, result), "boolean")


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
