"""Quantities in expressions: a value and a UCUM unit; units are compared, never converted.

An element is a FHIRPath Quantity if its unit is a UCUM code and it has no comparator
(http://hl7.org/fhir/R4/fhirpath.html#quantity). Quantities of different units have no order and no equality
here: the result is empty, as FHIRPath 2.0.0, section 6.1.1, asks of what cannot convert units.
"""

from __future__ import annotations

from decimal import Decimal

from cohortflow.fhir import fhirpath as fp
from cohortflow.fhir.views.operands import Operands
from cohortflow.fhir.views.scope import join_paths
from cohortflow.fhir.views.typed import Choice, Compare, Constant, Node, QuantityParts
from cohortflow.fhir.views.types import CALENDAR, is_quantity, kind_of

__all__ = ["compare_quantities", "convert_to_quantity", "quantity_literal"]

_UCUM = "http://unitsofmeasure.org"


def quantity_literal(node: fp.Literal) -> QuantityParts:
    """Return the parts of a literal such as ``4.5 'mg'`` or ``4 days``."""
    unit = CALENDAR.get(node.unit.removesuffix("s"), node.unit)
    number = node.value if isinstance(node.value, Decimal) else None
    return _parts(_constant("decimal", number), _constant("string", unit))


def _constant(kind: str, value: str | Decimal | None) -> Constant:
    return Constant(type=kind, many=False, value=value)


def _parts(value: Node, unit: Node) -> QuantityParts:
    return QuantityParts(type="Quantity", many=False, value=value, unit=unit, paths=join_paths(value, unit))


def compare_quantities(resolver: Operands, operator: str, left: Node, right: Node, at: int) -> Node:
    """Resolve a comparison of two Quantities; empty if a unit is no UCUM code, or they differ.

    Raises:
        FhirPathError: One of the operands is no Quantity.
    """
    one, other = _parts_of(resolver, left, at), _parts_of(resolver, right, at)
    if operator in {"~", "!~"}:
        found = _equivalent(resolver, one, other)
        return resolver.apply("not", (found,), "boolean") if operator == "!~" else found
    same_unit = _compare("=", one.unit, other.unit)
    return resolver.apply("choose", (same_unit, _compare(operator, one.value, other.value)), "boolean")


def _equivalent(resolver: Operands, one: QuantityParts, other: QuantityParts) -> Node:
    """Return true for equal values of one unit, or for two that are not there; never empty."""
    missing = tuple(resolver.apply("not", (resolver.exists(part.value),), "boolean") for part in (one, other))
    neither = resolver.apply("and", missing, "boolean")
    same_unit = resolver.apply("isTrue", (_compare("=", one.unit, other.unit),), "boolean")
    same = resolver.apply("and", (same_unit, _compare("~", one.value, other.value)), "boolean")
    return resolver.apply("or", (neither, same), "boolean")


def _compare(operator: str, left: Node, right: Node) -> Node:
    paths = join_paths(left, right)
    return Compare(operator=operator, left=left, right=right, type="boolean", many=False, paths=paths)


def _parts_of(resolver: Operands, node: Node, at: int) -> QuantityParts:
    if isinstance(node, QuantityParts):
        return node
    if node.type == "empty":
        return _parts(_constant("decimal", None), _constant("string", None))
    if isinstance(node, Choice) or not is_quantity(node.type):
        raise resolver.refusal(
            at,
            f"A Quantity can be compared with a Quantity only, this is a {node.type}.",
            "Name the element that is a Quantity.",
        )
    element = resolver.single(node)
    is_ucum = _compare("=", resolver.get(element, "system", at), _constant("uri", _UCUM))
    comparator = resolver.exists(resolver.get(element, "comparator", at))
    exact = resolver.apply("not", (comparator,), "boolean")
    comparable = resolver.apply("and", (is_ucum, exact), "boolean")
    unit = resolver.apply("choose", (comparable, resolver.get(element, "code", at)), "string")
    return _parts(resolver.get(element, "value", at), unit)


def convert_to_quantity(resolver: Operands, source: Node, at: int) -> QuantityParts:
    """Resolve ``toQuantity()`` (FHIRPath 2.0.0, section 5.5.7).

    Raises:
        FhirPathError: The value is of a type that is never a Quantity.
    """
    if isinstance(source, QuantityParts) or is_quantity(source.type):
        return _parts_of(resolver, source, at)
    source = resolver.primitive(source, at)
    kind = kind_of(source.type)
    if kind == "string":
        number = resolver.apply("quantityValue", (source,), "decimal")
        return _parts(number, resolver.apply("quantityUnit", (source,), "string"))
    if kind not in {"number", "boolean", "empty"}:
        raise resolver.refusal(at, f"A {source.type} is no Quantity.", "Remove the call.")
    number = source if kind == "number" else resolver.apply(f"toDecimal:{kind}", (source,), "decimal")
    unit = resolver.apply("choose", (resolver.exists(number), _constant("string", "1")), "string")
    return _parts(number, unit)
