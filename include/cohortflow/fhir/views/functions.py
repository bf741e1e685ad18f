"""The FHIRPath and SQL-on-FHIR functions: what each needs and what it yields.

Sources: FHIRPath 2.0.0 section 5; SQL-on-FHIR v2, "Required FHIRPath expressions/functions".
"""

from __future__ import annotations

import difflib
from dataclasses import replace

from cohortflow.fhir import fhirpath as fp
from cohortflow.fhir.elements import is_resource, suggest_resource
from cohortflow.fhir.views.repetition import resolve_repeat
from cohortflow.fhir.views.resolve import Resolver
from cohortflow.fhir.views.scalar_functions import SCALAR_FUNCTIONS, Handler, text_argument
from cohortflow.fhir.views.scope import Scope, join_paths
from cohortflow.fhir.views.typed import (
    Apply,
    Choice,
    Collection,
    Compare,
    Constant,
    Context,
    Exists,
    Filter,
    Item,
    Node,
    Project,
    QuantityParts,
)
from cohortflow.fhir.views.types import common_type, kind_of

__all__ = ["call"]


def call(resolver: Resolver, node: fp.Call, scope: Scope) -> Node:
    """Resolve a function call.

    Raises:
        FhirPathError: The function is unknown or not supported, or its arguments do not fit.
    """
    known = _FUNCTIONS.get(node.name)
    if known is None:
        near = difflib.get_close_matches(node.name, _FUNCTIONS, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Supported: {', '.join(sorted(_FUNCTIONS))}."
        raise resolver.refusal(node.at, f"Function '{node.name}' is not supported.", hint)
    least, most, handler = known
    if not least <= len(node.arguments) <= most:
        wants = f"{least}" if least == most else f"{least} to {most}"
        raise resolver.refusal(
            node.at, f"{node.name}() has {len(node.arguments)} arguments.", f"It takes {wants} of them."
        )
    source = scope.focus if node.source is None else resolver.resolve(node.source, scope)
    return handler(resolver, node, scope, source)


def _not(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
    return resolver.apply("not", (resolver.boolean(source, node.at),), "boolean")


def _exists(resolver: Resolver, node: fp.Call, scope: Scope, source: Node) -> Node:
    return resolver.exists(_where(resolver, node, scope, source) if node.arguments else source)


def _empty(resolver: Resolver, _node: fp.Call, _scope: Scope, source: Node) -> Node:
    return resolver.apply("not", (resolver.exists(source),), "boolean")


def _where(resolver: Resolver, node: fp.Call, scope: Scope, source: Node) -> Node:
    source = resolver.value(source, node.at)
    inner = scope.on(source)
    condition = resolver.boolean(resolver.resolve(node.arguments[0], inner), node.at)
    return Filter(
        input=source,
        condition=condition,
        type=source.type,
        many=source.many,
        paths=source.paths or condition.paths,
        route=source.route,
        target=source.target,
        tested=(*source.tested, *condition.paths),
    )


def _all(resolver: Resolver, node: fp.Call, scope: Scope, source: Node) -> Node:
    source = resolver.value(source, node.at)
    condition = resolver.boolean(resolver.resolve(node.arguments[0], scope.on(source)), node.at)
    true = Constant(type="boolean", many=False, value=True)
    # All fulfil it when none is without it; an empty result does not count as fulfilled.
    unmet = resolver.apply("not", (resolver.apply("isTrue", (condition,), "boolean"),), "boolean")
    rest = Filter(input=source, condition=unmet, type=source.type, many=source.many, paths=source.paths)
    paths = join_paths(source, condition)
    none = Exists(input=rest, type="boolean", many=False, paths=paths)
    return Compare(operator="!=", left=none, right=true, type="boolean", many=False, paths=paths)


def _select(resolver: Resolver, node: fp.Call, scope: Scope, source: Node) -> Node:
    source = resolver.value(source, node.at)
    body = resolver.value(resolver.resolve(node.arguments[0], scope.on(source)), node.at)
    return Project(
        input=source,
        body=body,
        type=body.type,
        many=source.many or body.many,
        # A text in quotes tells nothing, but that it is there tells of the source.
        paths=body.paths or join_paths(source, tested=True),
        route=body.route,
        target=body.target,
        tested=source.tested,
    )


def _iif(resolver: Resolver, node: fp.Call, scope: Scope, _source: Node) -> Node:
    condition = resolver.boolean(resolver.resolve(node.arguments[0], scope), node.at)
    then = resolver.value(resolver.resolve(node.arguments[1], scope), node.at)
    other: Node = Constant(type="empty", many=False, value=None)
    for argument in node.arguments[2:]:
        other = resolver.value(resolver.resolve(argument, scope), node.at)
    kind = common_type(then.type, other.type)
    if kind is None or kind_of(kind) == "complex":
        raise resolver.refusal(
            node.at, f"iif() yields {then.type} or {other.type}.", "Yield simple values of one type."
        )
    many = then.many or other.many
    paths = join_paths(condition, then, other)
    if many:
        return Collection(name="choose", inputs=(condition, then, other), type=kind, many=True, paths=paths)
    target = then.target if then.target == other.target else ""
    return Apply(
        name="choose", arguments=(condition, then, other), type=kind, many=False, paths=paths, target=target
    )


def _of_type(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
    return resolver.test_type(source, _type_name(resolver, node.arguments[0]), "ofType", node.at)


def _is(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
    return resolver.test_type(source, _type_name(resolver, node.arguments[0]), "is", node.at)


def _type_name(resolver: Resolver, node: fp.Expression, *, quoted: bool = False) -> str:
    if quoted and isinstance(node, fp.Literal) and node.kind is fp.LiteralKind.STRING:
        return str(node.value)  # as the specification of getReferenceKey() has it in an example
    if isinstance(node, fp.Member) and node.source is None:
        return node.name
    if isinstance(node, fp.Member) and isinstance(node.source, fp.Member) and node.source.source is None:
        return f"{node.source.name}.{node.name}"
    raise resolver.refusal(
        node.at, "Expected the name of a type.", "Write it without quotes: ofType(Quantity)."
    )


def _pick(position: int) -> Handler:
    def handle(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
        return resolver.pick(resolver.value(source, node.at), position)

    return handle


def _single(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
    return resolver.single(resolver.value(source, node.at))


def _subset(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
    source = resolver.value(source, node.at)
    numbers: tuple[int, ...] = ()
    if node.arguments:
        argument = node.arguments[0]
        if not isinstance(argument, fp.Literal) or not isinstance(argument.value, int):
            raise resolver.refusal(node.at, f"{node.name}() needs a number.", f"Write {node.name}(1).")
        numbers = (argument.value,)
    return Collection(
        name=node.name,
        inputs=(source,),
        numbers=numbers,
        type=source.type,
        many=True,
        paths=source.paths,
        route=source.route,
        target=source.target,
        tested=source.tested,
    )


def _distinct(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
    source = resolver.value(source, node.at)
    if kind_of(source.type) == "complex":
        raise resolver.refusal(
            node.at, f"{node.name}() of {source.type} is not supported.", "Take a simple element."
        )
    many = node.name == "distinct"
    kind = source.type if many else "boolean"
    return Collection(name=node.name, inputs=(source,), type=kind, many=many, paths=join_paths(source))


def _count(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
    source = resolver.value(source, node.at)
    paths = join_paths(source, tested=True)
    return Collection(name="count", inputs=(source,), type="integer", many=False, paths=paths)


def _combine(resolver: Resolver, node: fp.Call, scope: Scope, source: Node) -> Node:
    other = resolver.value(resolver.resolve(node.arguments[0], scope), node.at)
    return resolver.combine(node.name, resolver.value(source, node.at), other, node.at)


def _booleans(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
    source = resolver.value(source, node.at)
    if source.type != "boolean":
        raise resolver.refusal(node.at, f"{node.name}() needs booleans.", "Use all(...) or exists(...).")
    return Collection(name=node.name, inputs=(source,), type="boolean", many=False, paths=join_paths(source))


def _join(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
    source = resolver.value(source, node.at)
    if kind_of(source.type) not in {"string", "date", "time"}:
        raise resolver.refusal(
            node.at, f"join() needs texts, found {source.type}.", "Take an element that is a text."
        )
    separator = text_argument(resolver, node, 0) if node.arguments else ""
    paths = join_paths(source)
    return Collection(name="join", inputs=(source,), text=separator, type="string", many=False, paths=paths)


def _extension(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
    url = text_argument(resolver, node, 0)
    every = resolver.get(resolver.value(source, node.at), "extension", node.at)
    item = Item(type=every.type, many=False, route=every.route)
    found = resolver.get(item, "url", node.at)
    wanted = Constant(type="uri", many=False, value=url)
    condition = Compare(operator="=", left=found, right=wanted, type="boolean", many=False)
    return Filter(
        input=every,
        condition=condition,
        type=every.type,
        many=every.many,
        paths=tuple(f"{path}({url})" for path in every.paths),
        route=every.route,
        tested=source.tested,
    )


def _resource_key(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
    if not isinstance(source, Context) or source.name:
        raise resolver.refusal(
            node.at, "getResourceKey() belongs to a resource.", "Move it to a select without forEach."
        )
    return replace(resolver.get(source, "id", node.at), target=source.type)


def _reference_key(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
    source = resolver.value(source, node.at)
    if source.type != "Reference":
        raise resolver.refusal(
            node.at, f"getReferenceKey() needs a Reference, found {source.type}.", "Name one."
        )
    target = ""
    if node.arguments:
        target = _type_name(resolver, node.arguments[0], quoted=True).removeprefix("FHIR.")
        if not is_resource(target):
            near = suggest_resource(target)
            hint = f"Did you mean '{near}'?" if near else "Name a resource type."
            raise resolver.refusal(node.arguments[0].at, f"'{target}' is no resource type.", hint)
    text = resolver.get(source, "reference", node.at)
    wanted = Constant(type="string", many=False, value=target)
    if not text.many:
        return Apply(
            name="referenceKey",
            arguments=(text, wanted),
            type="id",
            many=False,
            paths=text.paths,
            target=target,
        )
    item = Item(type="string", many=False, paths=text.paths)
    body = Apply(name="referenceKey", arguments=(item, wanted), type="id", many=False)
    return Project(input=text, body=body, type="id", many=True, paths=text.paths, target=target)


def _has_value(resolver: Resolver, node: fp.Call, _: Scope, source: Node) -> Node:
    if isinstance(source, Choice | QuantityParts) or kind_of(source.type) == "complex":
        raise resolver.refusal(node.at, "hasValue() is for simple values.", "Use exists().")
    return resolver.exists(source)


_FUNCTIONS: dict[str, tuple[int, int, Handler]] = {
    "not": (0, 0, _not),
    "exists": (0, 1, _exists),
    "empty": (0, 0, _empty),
    "hasValue": (0, 0, _has_value),
    "where": (1, 1, _where),
    "select": (1, 1, _select),
    "all": (1, 1, _all),
    "allTrue": (0, 0, _booleans),
    "anyTrue": (0, 0, _booleans),
    "allFalse": (0, 0, _booleans),
    "anyFalse": (0, 0, _booleans),
    "count": (0, 0, _count),
    "distinct": (0, 0, _distinct),
    "isDistinct": (0, 0, _distinct),
    "repeat": (1, 1, resolve_repeat),
    "iif": (2, 3, _iif),
    "ofType": (1, 1, _of_type),
    "as": (1, 1, _of_type),
    "is": (1, 1, _is),
    "first": (0, 0, _pick(0)),
    "last": (0, 0, _pick(-1)),
    "single": (0, 0, _single),
    "tail": (0, 0, _subset),
    "skip": (1, 1, _subset),
    "take": (1, 1, _subset),
    "union": (1, 1, _combine),
    "combine": (1, 1, _combine),
    "join": (0, 1, _join),
    "extension": (1, 1, _extension),
    "getResourceKey": (0, 0, _resource_key),
    "getReferenceKey": (0, 1, _reference_key),
    **SCALAR_FUNCTIONS,
}
