"""The FHIRPath functions on single values: texts, numbers, conversions, boundaries (sections 5.5 to 5.7)."""

from __future__ import annotations

import re
from collections.abc import Callable

from cohortflow.fhir import fhirpath as fp
from cohortflow.fhir.views.digits import digits_of
from cohortflow.fhir.views.quantities import convert_to_quantity
from cohortflow.fhir.views.resolve import Resolver
from cohortflow.fhir.views.scope import Scope
from cohortflow.fhir.views.typed import Apply, Constant, Node
from cohortflow.fhir.views.types import BOUND_WIDTHS, bound_kind, kind_of

__all__ = ["SCALAR_FUNCTIONS", "Handler", "text_argument"]

Handler = Callable[[Resolver, fp.Call, Scope, Node], Node]
"""Gets the call, where it stands and what it is called on."""

# The most digits behind the point that a boundary can be asked for.
_MOST_DIGITS = 31
# Polars' regular expressions run in linear time and therefore lack these.
_UNSUPPORTED_PATTERN = re.compile(r"\(\?<?[=!]|\\[1-9]|\(\?P=")


def text_argument(resolver: Resolver, node: fp.Call, index: int) -> str:
    """Return an argument that must be a text in quotes."""
    argument = node.arguments[index]
    if not isinstance(argument, fp.Literal) or argument.kind is not fp.LiteralKind.STRING:
        raise resolver.refusal(argument.at, f"{node.name}() needs a text in quotes.", "Write it as 'text'.")
    return str(argument.value)


def _boundary(resolver: Resolver, node: fp.Call, scope: Scope, source: Node) -> Node:
    if source.type == "Period":
        end = "start" if node.name == "lowBoundary" else "end"
        source = resolver.get(resolver.single(source), end, node.at)
    source = resolver.primitive(source, node.at)
    kind = kind_of(source.type)
    if kind not in {"number", "date", "time", "empty"}:
        raise resolver.refusal(
            node.at,
            f"A {source.type} has no boundary.",
            "Use it on a decimal, date, dateTime, time or Period.",
        )
    precision = _precision(resolver, node, scope)
    result = "decimal" if kind == "number" else source.type
    if kind == "empty" or (precision is not None and precision not in _precisions(source.type)):
        return Constant(type=result, many=False, value=None, paths=source.paths)
    if kind == "number":
        source = _digits(resolver, node, source)
    wanted = Constant(type="integer", many=False, value=precision)
    name = f"{node.name}:{result}"
    return Apply(name=name, arguments=(source, wanted), type=result, many=False, paths=source.paths)


def _precision(resolver: Resolver, node: fp.Call, scope: Scope) -> int | None:
    if not node.arguments:
        return None
    argument = resolver.resolve(node.arguments[0], scope)
    if not isinstance(argument, Constant) or not isinstance(argument.value, int):
        at = node.arguments[0].at
        raise resolver.refusal(at, f"{node.name}() needs a whole number.", f"Write {node.name}(8).")
    return argument.value


def _precisions(type_name: str) -> range | frozenset[int]:
    """Return how precise a boundary can be; FHIRPath counts the digits of dates and times."""
    if kind_of(type_name) == "number":
        return range(_MOST_DIGITS + 1)
    return frozenset(BOUND_WIDTHS[bound_kind(type_name)])


def _digits(resolver: Resolver, node: fp.Call, source: Node) -> Node:
    found = digits_of(resolver, source)
    if found is None:
        raise resolver.refusal(
            node.at,
            f"{node.name}() of a computed decimal is not supported: it has no digits of its own.",
            "Apply it to the element, before computing.",
        )
    return found


def _text(kind: str) -> Handler:
    def handle(resolver: Resolver, node: fp.Call, scope: Scope, source: Node) -> Node:
        arguments = [resolver.string(source, node.at)]
        if node.name in {"matches", "replaceMatches"}:
            _check_pattern(resolver, node)
        for argument in node.arguments:
            found = resolver.resolve(argument, scope)
            if kind_of(found.type) == "number":
                arguments.append(resolver.number(found, argument.at))
            else:
                arguments.append(resolver.string(found, argument.at))
        for position, found in enumerate(arguments[1:]):
            wants = "number" if node.name == "substring" else "string"
            if kind_of(found.type) != wants:
                at = node.arguments[position].at
                raise resolver.refusal(
                    at, f"{node.name}() needs a {wants} here, found {found.type}.", "Mend it."
                )
        return resolver.apply(node.name, tuple(arguments), kind)

    return handle


def _check_pattern(resolver: Resolver, node: fp.Call) -> None:
    pattern = text_argument(resolver, node, 0)
    at = node.arguments[0].at
    try:
        re.compile(pattern)
    except re.error as error:
        raise resolver.refusal(at, f"Not a regular expression: {error}.", "Mend the pattern.") from None
    if _UNSUPPORTED_PATTERN.search(pattern):
        raise resolver.refusal(at, "Look-around and back-references are not supported.", "Write it without.")


def _math(kind: str) -> Handler:
    def handle(resolver: Resolver, node: fp.Call, scope: Scope, source: Node) -> Node:
        number = resolver.number(source, node.at)
        arguments = [number]
        for argument in node.arguments:
            found = resolver.resolve(argument, scope)
            if node.name == "round" and not isinstance(found, Constant):
                raise resolver.refusal(argument.at, "round() needs a number of digits.", "Write round(2).")
            arguments.append(resolver.number(found, argument.at))
        return resolver.apply(node.name, tuple(arguments), kind or number.type)

    return handle


def _convert(kind: str) -> Handler:
    def handle(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
        source = resolver.primitive(source, node.at)
        if kind_of(source.type) not in {"string", "number", "boolean", "date", "time"}:
            raise resolver.refusal(
                node.at, f"{node.name}() of {source.type} is not supported.", "Use a simple value."
            )
        if node.name == "toString" and source.type == "decimal":
            return _digits(resolver, node, source)
        if node.name in {"toInteger", "toDecimal"} and kind_of(source.type) in {"date", "time"}:
            raise resolver.refusal(node.at, f"A {source.type} is no number.", "Remove the call.")
        return resolver.apply(f"{node.name}:{kind_of(source.type)}", (source,), kind)

    return handle


def _to_quantity(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
    return convert_to_quantity(resolver, source, node.at)


def _clock(resolver: Resolver, node: fp.Call, _scope: Scope, _source: Node) -> Node:
    """Return the time of the compilation, in UTC: one for all of the view and all rows."""
    text = f"{resolver.moment:%Y-%m-%dT%H:%M:%S}.{resolver.moment.microsecond // 1000:03}Z"
    if node.name == "now":
        return Constant(type="dateTime", many=False, value=text)
    day, _, time = text.removesuffix("Z").partition("T")
    if node.name == "today":
        return Constant(type="date", many=False, value=day)
    return Constant(type="time", many=False, value=time)


SCALAR_FUNCTIONS: dict[str, tuple[int, int, Handler]] = {
    "lowBoundary": (0, 1, _boundary),
    "highBoundary": (0, 1, _boundary),
    "now": (0, 0, _clock),
    "today": (0, 0, _clock),
    "timeOfDay": (0, 0, _clock),
    "startsWith": (1, 1, _text("boolean")),
    "endsWith": (1, 1, _text("boolean")),
    "contains": (1, 1, _text("boolean")),
    "matches": (1, 1, _text("boolean")),
    "replace": (2, 2, _text("string")),
    "replaceMatches": (2, 2, _text("string")),
    "substring": (1, 2, _text("string")),
    "indexOf": (1, 1, _text("integer")),
    "upper": (0, 0, _text("string")),
    "lower": (0, 0, _text("string")),
    "trim": (0, 0, _text("string")),
    "length": (0, 0, _text("integer")),
    "abs": (0, 0, _math("")),
    "ceiling": (0, 0, _math("integer")),
    "floor": (0, 0, _math("integer")),
    "truncate": (0, 0, _math("integer")),
    "round": (0, 1, _math("decimal")),
    "sqrt": (0, 0, _math("decimal")),
    "exp": (0, 0, _math("decimal")),
    "ln": (0, 0, _math("decimal")),
    "toString": (0, 0, _convert("string")),
    "toInteger": (0, 0, _convert("integer")),
    "toDecimal": (0, 0, _convert("decimal")),
    "toQuantity": (0, 0, _to_quantity),
}
"""Least and greatest number of arguments, and the handler, by name."""
