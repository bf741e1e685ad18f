"""Text of a FHIRPath expression to tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from cohortflow.errors import FhirPathError

__all__ = ["Token", "TokenKind", "locate", "tokenize"]


class TokenKind(StrEnum):
    """Kinds of tokens."""

    NAME = "name"
    DELIMITED_NAME = "delimited name"
    STRING = "string"
    NUMBER = "number"
    DATE = "date"
    DATETIME = "date and time"
    TIME = "time"
    VARIABLE = "variable"
    SPECIAL = "special"
    SYMBOL = "symbol"
    END = "end"


@dataclass(frozen=True, slots=True)
class Token:
    """A token: its kind, its value without quotes and marks, and its offset."""

    kind: TokenKind
    text: str
    at: int


_TIME = r"\d{2}(?::\d{2}(?::\d{2}(?:\.\d+)?)?)?"
_DATE = r"\d{4}(?:-\d{2}(?:-\d{2})?)?"
_PATTERN = re.compile(
    rf"""
      (?P<skip>\s+|//[^\n]*|/\*.*?\*/)
    | (?P<datetime>@{_DATE}T(?:{_TIME}(?:Z|[+-]\d{{2}}:\d{{2}})?)?)
    | (?P<date>@{_DATE})
    | (?P<time>@T{_TIME})
    | (?P<number>\d+(?:\.\d+)?)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<delimited>`(?:[^`\\]|\\.)*`)
    | (?P<string>'(?:[^'\\]|\\.)*')
    | (?P<variable>%(?:[A-Za-z_][A-Za-z0-9_-]*|`(?:[^`\\]|\\.)*`|'(?:[^'\\]|\\.)*'))
    | (?P<special>\$(?:this|index|total)\b)
    | (?P<symbol><=|>=|!=|!~|/(?!\*)|[.,()\[\]{{}}+\-*&|<>=~])
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED = {"'": "'", '"': '"', "`": "`", "r": "\r", "n": "\n", "t": "\t", "f": "\f", "\\": "\\", "/": "/"}
_KINDS = {
    "datetime": TokenKind.DATETIME,
    "date": TokenKind.DATE,
    "time": TokenKind.TIME,
    "number": TokenKind.NUMBER,
    "name": TokenKind.NAME,
    "delimited": TokenKind.DELIMITED_NAME,
    "string": TokenKind.STRING,
    "variable": TokenKind.VARIABLE,
    "special": TokenKind.SPECIAL,
    "symbol": TokenKind.SYMBOL,
}


def locate(text: str, at: int) -> str:
    """Return the place of an offset in an expression, for error messages (characters count from 1)."""
    return f"'{text}', character {at + 1}"


def tokenize(text: str) -> list[Token]:
    """Split an expression; the last token is ``END``.

    Raises:
        FhirPathError: A character or an escape that FHIRPath does not know, or an open string.
    """
    tokens = []
    at = 0
    while at < len(text):
        match = _PATTERN.match(text, at)
        if match is None:
            raise _reject(text, at)
        group = match.lastgroup or ""
        if group != "skip":
            tokens.append(Token(_KINDS[group], _value(text, group, match.group(), at), at))
        at = match.end()
    tokens.append(Token(TokenKind.END, "", len(text)))
    return tokens


def _reject(text: str, at: int) -> FhirPathError:
    char = text[at]
    remedy = "FHIRPath does not use this character here."
    message = f"Unexpected character {char!r}."
    if char in "'`":
        message, remedy = "A quoted text has no end.", f"Add the closing {char}."
    elif text.startswith("/*", at):
        message, remedy = "A comment has no end.", "Add the closing */."
    elif char == '"':
        remedy = "Write texts in single quotes."
    elif char == "@":
        message, remedy = "Not a date or time.", "Write @2020-01-31, @2020-01-31T10:00:00Z or @T10:00."
    return FhirPathError(message, remedy=remedy, place=locate(text, at))


def _value(text: str, group: str, found: str, at: int) -> str:
    if group in {"string", "delimited"}:
        return _unescape(text, found[1:-1], at)
    if group == "variable":
        name = found[1:]
        return _unescape(text, name[1:-1], at) if name[0] in "`'" else name
    if group in {"date", "datetime"}:
        return found[1:]
    if group == "time":
        return found[2:]
    return found


def _unescape(text: str, body: str, at: int) -> str:
    def replace(match: re.Match[str]) -> str:
        code = match.group(1)
        if code in _ESCAPED:
            return _ESCAPED[code]
        if len(code) > 1:
            return chr(int(code[1:], 16))
        raise FhirPathError(
            f"Unknown escape '\\{code}'.",
            remedy=r"Known: \' \" \` \r \n \t \f \\ \/ \uXXXX.",
            place=locate(text, at),
        )

    return _ESCAPE.sub(replace, body)
