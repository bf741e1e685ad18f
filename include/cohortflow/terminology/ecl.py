"""SNOMED CT's Expression Constraint Language: a subset, as typed nodes.

Source: https://docs.snomed.org/snomed-ct-specifications/snomed-ct-expression-constraint-language (brief
syntax). Supported: ``<`` ``<<`` ``<!`` ``<<!`` ``>`` ``>>`` ``>!`` ``>>!`` ``^`` ``*``, ``AND`` (or a comma),
``OR``, ``MINUS``, brackets, and refinement with ``=`` and ``!=``. Terms between pipes and comments are
skipped. What else the language has - role groups of several attributes, cardinality, dotted and reversed
attributes, filters, concrete values, history supplements - is refused, with its position.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NoReturn, cast

from cohortflow.errors import InputError

__all__ = [
    "Any",
    "Attribute",
    "Compound",
    "Concept",
    "Constraint",
    "Expression",
    "MemberOf",
    "Refined",
    "Refinement",
    "RefinementGroup",
    "parse_ecl",
]

Operator = Literal["<", "<<", "<!", "<<!", ">", ">>", ">!", ">>!"]


@dataclass(frozen=True, slots=True)
class Concept:
    """One concept."""

    code: str


@dataclass(frozen=True, slots=True)
class Any:
    """``*``: every concept."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """Descendants, ancestors, children or parents of the operand."""

    operator: Operator
    operand: Expression


@dataclass(frozen=True, slots=True)
class MemberOf:
    """``^``: members of the reference sets that the operand names."""

    operand: Expression


@dataclass(frozen=True, slots=True)
class Compound:
    """Operands joined by one operator; ``MINUS`` has two."""

    operator: Literal["AND", "OR", "MINUS"]
    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Attribute:
    """A relationship that a concept has: of one of these types, to one of these values, or to another one."""

    name: Expression
    equal: bool
    value: Expression


@dataclass(frozen=True, slots=True)
class RefinementGroup:
    """Conditions joined by one operator."""

    operator: Literal["AND", "OR"]
    operands: tuple[Refinement, ...]


@dataclass(frozen=True, slots=True)
class Refined:
    """Concepts of the focus for which the refinement holds."""

    focus: Expression
    refinement: Refinement


Refinement = Attribute | RefinementGroup
Expression = Concept | Any | Constraint | MemberOf | Compound | Refined

_TOKEN = re.compile(
    r"(?P<skip>\s+|\|[^|]*\||/\*.*?\*/)"
    r"|(?P<operator><<!|<<|<!|<|>>!|>>|>!|>)"
    r"|(?P<code>[1-9][0-9]{5,17})(?![0-9])"
    r"|(?P<number>[0-9]+)"
    r"|(?P<word>[A-Za-z]+)"
    r"|(?P<compare>!=|=)"
    r"|(?P<symbol>\{\{|\}\}|[\^*():,{}\[\].#\"+])",
    re.DOTALL,
)
_UNSUPPORTED = {
    "[": "Cardinality",
    ".": "A dotted attribute",
    "{{": "A filter",
    "#": "A concrete value",
    '"': "A concrete value",
    "+": "A history supplement",
}
_MOST_NESTED = 64


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


def parse_ecl(text: str) -> Expression:
    """Read an expression constraint.

    Raises:
        InputError: It is malformed, or uses what is not supported; ``place`` names the character.
    """
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _split(text)
        self._next = 0
        self._depth = 0

    def parse(self) -> Expression:
        expression = self._expression()
        if self._peek.kind != "end":
            self._refuse("The expression should end here")
        return expression

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._peek
        self._next += 1
        return token

    def _skip(self, text: str) -> bool:
        if self._peek.text == text and self._peek.kind != "end":
            self._next += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._skip(text):
            self._refuse(f"'{text}' is missing")

    def _refuse(self, problem: str) -> NoReturn:
        token = self._peek
        if token.text in _UNSUPPORTED:
            problem = f"{_UNSUPPORTED[token.text]} is not supported"
        _fail(problem, token.position)

    def _expression(self) -> Expression:
        self._depth += 1
        if self._depth > _MOST_NESTED:
            self._refuse("The expression is nested too deeply")
        first = self._refined(self._operand())
        operator = self._conjunction()
        if operator is None:
            self._depth -= 1
            return first
        operands = [first]
        while (found := self._conjunction()) is not None:
            if found != operator:
                self._refuse(f"'{found}' beside '{operator}' needs brackets")
            if operator == "MINUS" and len(operands) > 1:
                self._refuse("A second 'MINUS' needs brackets")
            self._take()
            operands.append(self._operand())
        if self._peek.text == ":":
            self._refuse("A refinement beside an operator needs brackets")
        self._depth -= 1
        return Compound(operator, tuple(operands))

    def _conjunction(self) -> Literal["AND", "OR", "MINUS"] | None:
        token = self._peek
        if token.text == ",":
            return "AND"
        match token.text.upper():
            case "AND":
                return "AND"
            case "OR":
                return "OR"
            case "MINUS":
                return "MINUS"
        return None

    def _operand(self) -> Expression:
        if self._peek.kind == "operator":
            operator = cast("Operator", self._take().text)
            return Constraint(operator, self._operand_without_operator())
        return self._operand_without_operator()

    def _operand_without_operator(self) -> Expression:
        if self._skip("^"):
            return MemberOf(self._focus())
        return self._focus()

    def _focus(self) -> Expression:
        if self._skip("("):
            inner = self._expression()
            self._expect(")")
            return inner
        if self._skip("*"):
            return Any()
        if self._peek.kind == "code":
            return Concept(self._take().text)
        return self._refuse("A concept, '*' or '(' is missing")

    def _refined(self, focus: Expression) -> Expression:
        if not self._skip(":"):
            return focus
        return Refined(focus, self._refinement())

    def _refinement(self) -> Refinement:
        first = self._condition()
        operator = self._conjunction()
        if operator is None:
            return first
        operands = [first]
        while (found := self._conjunction()) is not None:
            if found == "MINUS" or operator == "MINUS":
                self._refuse("'MINUS' does not join attributes")
            if found != operator:
                self._refuse(f"'{found}' beside '{operator}' needs brackets")
            self._take()
            operands.append(self._condition())
        return RefinementGroup("OR" if operator == "OR" else "AND", tuple(operands))

    def _condition(self) -> Refinement:
        self._depth += 1
        if self._depth > _MOST_NESTED:
            self._refuse("The expression is nested too deeply")
        try:
            if self._peek.text == "{":
                return self._group()
            # '(' may begin a bracket of conditions, or of the attribute's name.
            start = self._next
            if self._skip("("):
                if self._is_bracket_of_conditions(start):
                    inner = self._refinement()
                    self._expect(")")
                    return inner
                self._next = start
            return self._attribute()
        finally:
            self._depth -= 1

    def _group(self) -> Refinement:
        position = self._take().position
        inner = self._refinement()
        self._expect("}")
        if not isinstance(inner, Attribute):
            _fail(
                "A role group of several attributes is not supported: loaded relationships have no groups",
                position,
            )
        return inner

    def _is_bracket_of_conditions(self, start: int) -> bool:
        """Tell whether a comparison stands between the bracket and its end."""
        depth = 0
        for token in self._tokens[start:]:
            depth += (token.text == "(") - (token.text == ")")
            if depth == 0:
                return False
            if token.kind == "compare":
                return True
        return False

    def _attribute(self) -> Attribute:
        if self._peek.text.upper() == "R":
            self._refuse("A reversed attribute is not supported")
        name = self._operand()
        if self._peek.kind != "compare":
            self._refuse("'=' or '!=' is missing")
        equal = self._take().text == "="
        return Attribute(name, equal, self._operand())


def _split(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            _fail("This character is not understood", position)
        if found.lastgroup != "skip":
            tokens.append(_Token(str(found.lastgroup), found.group(), position))
        position = found.end()
    return [*tokens, _Token("end", "", len(text))]


def _fail(problem: str, position: int) -> NoReturn:
    raise InputError(
        f"{problem}.",
        place=f"expression constraint, character {position + 1}",
        remedy="See docs/terminology-maps.md for what is supported.",
    )
