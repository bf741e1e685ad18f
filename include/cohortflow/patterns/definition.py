"""What a pattern file says of one pattern, checked as far as no regular expression has to run.

This module describes; it imports no data library.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from cohortflow.model import PhiClass

__all__ = ["Algorithm", "Boundary", "Examples", "InText", "PatternDefinition", "PatternKind"]

PatternKind = Literal["identifier", "code", "contact", "date"]


class Algorithm(StrEnum):
    """How the check digit of a value is computed."""

    LUHN = "luhn"
    """ISO/IEC 7812-1 annex B: every second digit from the right doubled, modulo 10."""
    NPI = "npi"
    """Luhn, with the prefix 80840 of the card issuer standard in front."""
    VERHOEFF = "verhoeff"
    """Verhoeff 1969: the dihedral group D5 with a permutation per position."""
    SCTID = "sctid"
    """Verhoeff, and a partition identifier that fits the length (SNOMED CT TIG, section 5.5)."""
    LOINC = "loinc"
    """Luhn of a LOINC number; LA, LG, LL and LP count as letters (LOINC Users' Guide, annex C)."""
    DEA = "dea"
    """21 CFR 1301 numbers: odd digits plus twice the even digits, modulo 10."""
    GS1 = "gs1"
    """GS1 General Specifications, section 7.9: weights 3 and 1 from the right, modulo 10."""
    VIN = "vin"
    """49 CFR 565.15(c): transliterated letters, weights, modulo 11 in the ninth place."""


class Boundary(StrEnum):
    """At which ends of an occurrence a word must end too."""

    BOTH = "both"
    START = "start"
    END = "end"
    NONE = "none"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _to_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _to_class(value: object) -> object:
    if isinstance(value, str):
        if value not in PhiClass.__members__:
            msg = f"unknown PHI class; known: {', '.join(PhiClass.__members__)}"
            raise ValueError(msg)
        return PhiClass[value]
    return value


_Forms = Annotated[tuple[str, ...], BeforeValidator(_to_list)]


class InText(_Frozen):
    """A text and what must be found in it."""

    text: str = Field(min_length=1)
    finds: tuple[str, ...]


class Examples(_Frozen):
    """Values that prove the pattern; they are tried whenever it is loaded.

    Attributes:
        valid: Whole values that are one.
        invalid: Whole values that are none, such as one with a wrong check digit.
        in_text: Texts with what is found in them; nothing, for a text that must not alarm.
    """

    valid: tuple[str, ...] = Field(min_length=1)
    invalid: tuple[str, ...] = Field(min_length=1)
    in_text: tuple[InText, ...] = Field(min_length=1)


class PatternDefinition(_Frozen):
    """One entry of a pattern file.

    Attributes:
        name: Snake case; unique in the catalog.
        title: Name for people.
        kind: What its values are.
        system: Canonical URI of the code system or naming system, where FHIR or HL7 gives one.
        hipaa: Letter of the identifier in 45 CFR 164.514(b)(2)(i) that it is, ``A`` to ``R``.
        phi: How much a value can identify.
        source: Standard and section that the form comes from.
        regex: Forms of a whole value, in Rust's syntax: no look-around, no back references.
        ignore_case: Whether letters match in either case.
        remove: Characters that carry no meaning; they are removed before the check digit is computed.
        uppercase: Whether values are brought into upper case before the check digit is computed.
        check: Algorithm of the check digit.
        check_part: Regular expression with one group: the part of the value that carries the check digit.
        exceptions: Values that were issued with a wrong check digit and count all the same.
        never: Values of the right form that were never issued, such as those of advertisements.
        in_text: Forms that are telling enough to be found in a text on their own; all of ``regex`` where
            nothing is said, none where the list is empty.
        context: Words after which every form of ``regex`` is found in a text. A column whose name has one
            of them is taken to hold the pattern more readily.
        boundary: At which ends of an occurrence a word must end too.
        token: Longest run of characters that an occurrence must fill entirely, such as digits and dots for an
            IP address, which is not found within a longer dotted number.
        examples: Values that prove it.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str = Field(min_length=1)
    kind: PatternKind
    system: str | None = None
    hipaa: str | None = Field(default=None, pattern=r"^[A-R]$")
    phi: Annotated[PhiClass, BeforeValidator(_to_class)]
    source: str = Field(min_length=1)
    regex: Annotated[_Forms, Field(min_length=1)]
    ignore_case: bool = False
    remove: str = ""
    uppercase: bool = False
    check: Algorithm | None = None
    check_part: str | None = None
    exceptions: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    in_text: _Forms | None = None
    context: tuple[str, ...] = ()
    boundary: Boundary = Boundary.BOTH
    token: str | None = None
    examples: Examples

    @field_validator("context")
    @classmethod
    def _check_context(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not word.strip() for word in value):
            msg = "a context word is blank"
            raise ValueError(msg)
        return value

    @property
    def telling(self) -> bool:
        """Whether at least one form is found in a text without context."""
        return self.in_text is None or bool(self.in_text)
