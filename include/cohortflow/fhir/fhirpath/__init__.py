"""FHIRPath: text to syntax tree. What an expression means is decided where it is used."""

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
from cohortflow.fhir.fhirpath.parser import parse

__all__ = [
    "Binary",
    "Call",
    "Expression",
    "Indexer",
    "Literal",
    "LiteralKind",
    "Member",
    "Special",
    "Token",
    "TokenKind",
    "TypeTest",
    "Unary",
    "Variable",
    "locate",
    "parse",
    "tokenize",
]
