"""The FHIRPath functions on single values: texts, numbers, conversions, boundaries (sections 5.5 to 5.7)."""

from __future__ import annotations

import re
from collections.abc import Callable

from cohortflow.fhir import fhirpath as fp
from cohortflow.fhir.views.resolve import Resolver, Scope
from cohortflow.fhir.views.typed import Apply, Constant, Node
from cohortflow.fhir.views.types import kind_of

__all__ = ["SCALAR_FUNCTIONS", "Handler", "text_argument"]

Handler = Callable[[Resolver, fp.Call, Scope, Node], Node]
"""Gets the call, where it stands and what it is called on."""

# Polars' regular expressions run in linear time and therefore lack these.
_UNSUPPORTED_PATTERN = re.compile(r"\(\?<?[=!]|\\[1-9]|\(\?P=")


def text_argument(resolver: Resolver, node: fp.Call, index: int) -> str:
    """Return an argument that must be a text in quotes."""
    argument = node.arguments[index]
    if not isinstance(argument, fp.Literal) or argument.kind is not fp.LiteralKind.STRING:
        raise resolver.refusal(argument.at, f"{node.name}() needs a text in quotes.", "Write it as 'text'.")
    return str(argument.value)


def _boundary(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
    source = resolver.primitive(source, node.at)
    if source.type == "decimal":
        raise resolver.refusal(
            node.at,
            f"{node.name}() of a decimal is not supported: its digits are not kept when JSON is read.",
            "Compute the bounds from the value.",
        )
    if kind_of(source.type) not in {"date", "time"}:
        raise resolver.refusal(
            node.at, f"A {source.type} has no boundary.", "Use it on a date, dateTime or time."
        )
    name = f"{node.name}:{source.type}"
    return Apply(name=name, arguments=(source,), type=source.type, many=False, paths=source.paths)


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
            raise resolver.refusal(
                node.at,
                "toString() of a decimal is not supported: its digits are not kept when JSON is read.",
                "Keep it a number.",
            )
        if node.name in {"toInteger", "toDecimal"} and kind_of(source.type) in {"date", "time"}:
            raise resolver.refusal(node.at, f"A {source.type} is no number.", "Remove the call.")
        return resolver.apply(f"{node.name}:{kind_of(source.type)}", (source,), kind)

    return handle


SCALAR_FUNCTIONS: dict[str, tuple[int, int, Handler]] = {
    "lowBoundary": (0, 0, _boundary),
    "highBoundary": (0, 0, _boundary),
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
}
"""Least and greatest number of arguments, and the handler, by name."""
