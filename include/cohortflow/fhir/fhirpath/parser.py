"""Tokens to a syntax tree, by operator precedence (FHIRPath 2.0.0, section 6.8)."""

from __future__ import annotations

import functools
from decimal import Decimal

from cohortflow.errors import FhirPathError
from cohortflow.fhir.fhirpath.lexer import Token, TokenKind, locate, tokenize
from cohortflow.fhir.fhirpath.nodes import (
    Binary,
    Call,
    Expression,
    Indexer,
    Literal,
    LiteralKind,
    Member,
    Special,
    TypeTest,
    Unary,
    Variable,
)

__all__ = ["parse"]

_BINARY = {
    "implies": 1,
    "or": 2,
    "xor": 2,
    "and": 3,
    "in": 4,
    "contains": 4,
    "=": 5,
    "~": 5,
    "!=": 5,
    "!~": 5,
    "<": 6,
    ">": 6,
    "<=": 6,
    ">=": 6,
    "|": 7,
    "is": 8,
    "as": 8,
    "+": 9,
    "-": 9,
    "&": 9,
    "*": 10,
    "/": 10,
    "div": 10,
    "mod": 10,
}
_UNARY = 11
_WORD_OPERATORS = frozenset(word for word in _BINARY if word.isalpha())
# The grammar lets these operators also be names of elements and functions.
_NAMES_TOO = frozenset({"as", "contains", "in", "is"})
_UNITS = frozenset(
    unit + suffix
    for unit in ("year", "month", "week", "day", "hour", "minute", "second", "millisecond")
    for suffix in ("", "s")
)


@functools.lru_cache(maxsize=1024)
def parse(text: str) -> Expression:
    """Parse an expression.

    Args:
        text: The expression, such as ``name.where(use = 'official').family``.

    Raises:
        FhirPathError: It is not FHIRPath; ``place`` names the character.
    """
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokenize(text)
        self._next = 0

    def parse(self) -> Expression:
        if self._peek().kind is TokenKind.END:
            raise self._error("The expression is empty.", "Write a path, such as 'id'.", 0)
        found = self._expression(0)
        token = self._peek()
        if token.kind is not TokenKind.END:
            raise self._unexpected(token)
        return found

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _is_symbol(self, text: str) -> bool:
        token = self._peek()
        return token.kind is TokenKind.SYMBOL and token.text == text

    def _expect(self, text: str) -> Token:
        token = self._peek()
        if not self._is_symbol(text):
            raise self._error(f"Expected '{text}', found {_show(token)}.", f"Add '{text}'.", token.at)
        return self._take()

    def _error(self, message: str, remedy: str, at: int) -> FhirPathError:
        return FhirPathError(message, remedy=remedy, place=locate(self._text, at))

    def _unexpected(self, token: Token) -> FhirPathError:
        return self._error(f"Unexpected {_show(token)}.", "Mend the expression here.", token.at)

    def _expression(self, minimum: int) -> Expression:
        left = self._prefix()
        while True:
            token = self._peek()
            if token.kind not in {TokenKind.SYMBOL, TokenKind.NAME}:
                return left
            level = _BINARY.get(token.text, 0)
            if level <= minimum:
                return left
            self._take()
            if token.text in {"is", "as"}:
                left = TypeTest(token.at, token.text, left, self._type_name())
            else:
                left = Binary(token.at, token.text, left, self._expression(level))

    def _prefix(self) -> Expression:
        token = self._peek()
        if token.kind is TokenKind.SYMBOL and token.text in {"+", "-"}:
            self._take()
            return Unary(token.at, token.text, self._expression(_UNARY))
        return self._postfix(self._term())

    def _postfix(self, found: Expression) -> Expression:
        while True:
            if self._is_symbol("."):
                self._take()
                found = self._invocation(found)
            elif self._is_symbol("["):
                at = self._take().at
                index = self._expression(0)
                self._expect("]")
                found = Indexer(at, found, index)
            else:
                return found

    def _term(self) -> Expression:
        token = self._peek()
        if token.kind is TokenKind.SYMBOL:
            return self._symbol_term(token)
        if token.kind is TokenKind.VARIABLE:
            self._take()
            return Variable(token.at, token.text)
        if token.kind is TokenKind.NAME and token.text in {"true", "false"}:
            self._take()
            return Literal(token.at, LiteralKind.BOOLEAN, token.text == "true")
        if token.kind is TokenKind.NUMBER:
            return self._number()
        if token.kind in _TEXT_LITERALS:
            self._take()
            # `@2014T` is a dateTime to the year.
            return Literal(token.at, _TEXT_LITERALS[token.kind], token.text.removesuffix("T"))
        return self._invocation(None)

    def _symbol_term(self, token: Token) -> Expression:
        if token.text == "(":
            self._take()
            found = self._expression(0)
            self._expect(")")
            return found
        if token.text == "{":
            self._take()
            self._expect("}")
            return Literal(token.at, LiteralKind.EMPTY, None)
        raise self._unexpected(token)

    def _number(self) -> Literal:
        token = self._take()
        after = self._peek()
        is_word = after.kind is TokenKind.NAME and after.text in _UNITS
        if is_word or after.kind is TokenKind.STRING:
            self._take()
            return Literal(token.at, LiteralKind.QUANTITY, Decimal(token.text), after.text)
        if "." in token.text:
            return Literal(token.at, LiteralKind.DECIMAL, Decimal(token.text))
        return Literal(token.at, LiteralKind.INTEGER, int(token.text))

    def _invocation(self, source: Expression | None) -> Expression:
        token = self._peek()
        if token.kind is TokenKind.SPECIAL:
            if source is not None:
                raise self._unexpected(token)
            self._take()
            return Special(token.at, token.text)
        name = self._name()
        if not self._is_symbol("("):
            return Member(token.at, source, name)
        self._take()
        arguments = []
        if not self._is_symbol(")"):
            arguments.append(self._expression(0))
            while self._is_symbol(","):
                self._take()
                arguments.append(self._expression(0))
        self._expect(")")
        return Call(token.at, source, name, tuple(arguments))

    def _name(self) -> str:
        token = self._peek()
        reserved = token.text in _WORD_OPERATORS and token.text not in _NAMES_TOO
        if token.kind is TokenKind.DELIMITED_NAME or (token.kind is TokenKind.NAME and not reserved):
            return self._take().text
        if token.kind is TokenKind.END:
            raise self._error("The expression ends too early.", "Complete it.", token.at)
        raise self._unexpected(token)

    def _type_name(self) -> str:
        name = self._name()
        while self._is_symbol("."):
            self._take()
            name = f"{name}.{self._name()}"
        return name


_TEXT_LITERALS = {
    TokenKind.STRING: LiteralKind.STRING,
    TokenKind.DATE: LiteralKind.DATE,
    TokenKind.DATETIME: LiteralKind.DATETIME,
    TokenKind.TIME: LiteralKind.TIME,
}


def _show(token: Token) -> str:
    return "the end" if token.kind is TokenKind.END else f"'{token.text}'"
