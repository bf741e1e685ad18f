"""How each unit that a source writes becomes the canonical unit of a code.

A text is read as UCUM, and as a spelling that the catalog lists, in any case. Which reading is meant, the
code decides: ``PG`` is petagauss in UCUM, but a mean corpuscular haemoglobin has no magnetic flux, so
picograms are meant. Where two readings convert to different numbers (``Mmol/L``: megamoles, or millimoles in
capitals), none is taken.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from cohortflow.errors import CatalogError, InputError
from cohortflow.terminology.ucum import Conversion, UnitMeaning, convert, parse_unit
from cohortflow.terminology.unit_catalog import CanonicalUnit, UnitCatalog, UnitRule
from cohortflow.terminology.unit_mapping import UnitStatus

__all__ = ["UnitReading", "UnitTable", "clean_unit"]

_SUPERSCRIPTS: Final = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_POWER_OF_TEN: Final = re.compile(f"10([{_SUPERSCRIPTS}]+)")
_WRITTEN_POWER: Final = re.compile(r"^[xX*\u00d7]?10(?:\*\*?|\^|[eE]\+?|\()0*(\d+)\)?")
_LONGEST: Final = 60
_NUMBER: Final = re.compile(r"[\d./]+")
"""UCUM reads ``5.4`` as 5 times 4; in a column of units it is a slip."""
_ANNOTATION: Final = re.compile(r"\{[^}]*\}")
_FACTOR: Final = re.compile(r"(?<![A-Za-z\]\)'*^+\-\d])\d+(?:[+\-]\d+)?")
_PLAIN_FACTOR: Final = re.compile(r"10*|24")
"""Numbers that stand in units on purpose: powers of ten, and hours of a day. What UCUM reads as 103 per
microlitre is 10\N{SUPERSCRIPT THREE}/uL, whose raised digit was lost, and ``1.73`` is no 1 times 73."""


@dataclass(frozen=True, slots=True)
class UnitReading:
    """What a unit is for a code.

    Attributes:
        status: Whether, and how, a value converts.
        conversion: To the canonical unit; ``None`` where the value does not convert.
    """

    status: UnitStatus
    conversion: Conversion | None = None


@dataclass(frozen=True, slots=True)
class _Target:
    entry: CanonicalUnit
    meaning: UnitMeaning
    rules: tuple[tuple[UnitMeaning, UnitRule], ...]


@dataclass(frozen=True)
class UnitTable:
    """The catalog's units, understood.

    Attributes:
        catalog: The units.

    Raises:
        CatalogError: A unit is not UCUM, a rule is about the canonical unit or about a unit that has one
            already, or a spelling means two units that convert into each other.
    """

    catalog: UnitCatalog
    _targets: dict[tuple[str, str], _Target] = field(init=False, repr=False, compare=False)
    _spellings: dict[str, dict[UnitMeaning, str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        targets = {key: _understand(entry) for key, entry in self.catalog.codes.items()}
        object.__setattr__(self, "_targets", targets)
        object.__setattr__(self, "_spellings", _list_spellings(self.catalog))

    def read(self, text: str) -> tuple[UnitMeaning, ...]:
        """Return what a text may mean as a unit: as UCUM first, then as a listed spelling."""
        clean = clean_unit(text) if len(text) <= _LONGEST else ""
        if not clean or (_NUMBER.fullmatch(clean) and clean != "1"):
            return ()
        meanings: dict[UnitMeaning, None] = {}
        if all(_PLAIN_FACTOR.fullmatch(number) for number in _FACTOR.findall(_ANNOTATION.sub("", clean))):
            with contextlib.suppress(InputError):  # other spellings are why the list is there
                meanings[parse_unit(clean)] = None
        meanings.update(dict.fromkeys(self._spellings.get(clean.casefold(), ())))
        return tuple(meanings)

    def spelled_as(self, text: str) -> tuple[str, ...]:
        """Return the UCUM units of which a text is a listed spelling."""
        return tuple(self._spellings.get(clean_unit(text).casefold(), {}).values())

    def resolve(self, system: str, code: str, unit: str | None) -> UnitReading:
        """Return how values of a code, in a unit, become canonical.

        Args:
            system: Canonical URI.
            code: Code in canonical spelling.
            unit: What the source writes; ``None`` or blank where it writes none.
        """
        target = self._targets.get((system, code))
        if target is None:
            return UnitReading(UnitStatus.NO_CANONICAL_UNIT)
        entry = target.entry
        if unit == entry.unit:
            return UnitReading(UnitStatus.CANONICAL, Conversion(Fraction(1)))
        if unit is None or not unit.strip():
            if entry.without_unit is None:
                return UnitReading(UnitStatus.MISSING)
            unit = entry.without_unit
        meanings = self.read(unit)
        found = {c for c in (_convert(meaning, target) for meaning in meanings) if c is not None}
        if not found:
            return UnitReading(UnitStatus.INCOMPATIBLE if meanings else UnitStatus.UNKNOWN_UNIT)
        if len(found) > 1:
            return UnitReading(UnitStatus.UNKNOWN_UNIT)
        conversion = found.pop()
        status = UnitStatus.SYNONYM if conversion.changes_nothing else UnitStatus.CONVERTED
        return UnitReading(status, conversion)


def clean_unit(text: str) -> str:
    """Return a unit without blanks, in ASCII where it has a micro sign or raised digits.

    Powers of ten are written as UCUM does: ``x10^3/µL``, ``10³/µL`` and ``10e3/uL`` become ``10*3/uL``.
    """
    text = _POWER_OF_TEN.sub(r"10*\1", "".join(text.split()))
    text = text.replace("\N{MASCULINE ORDINAL INDICATOR}", "\N{DEGREE SIGN}")  # on keyboards they are close
    text = unicodedata.normalize("NFKC", text).replace("\N{GREEK SMALL LETTER MU}", "u")
    text = text.replace("\N{DEGREE SIGN}", "").replace("\N{MIDDLE DOT}", ".")
    return _WRITTEN_POWER.sub(r"10*\1", text)


def _convert(meaning: UnitMeaning, target: _Target) -> Conversion | None:
    for ruled, rule in target.rules:
        if meaning == ruled:
            return Conversion(rule.factor, rule.offset)
    entry = target.entry
    found = convert(meaning, target.meaning, molar_mass=entry.molar_mass, valence=entry.valence)
    if found is not None and not found.changes_nothing and not _ANNOTATION.sub("", entry.unit):
        return None  # 70 % of a normal prothrombin time is no INR of 0.7, and 7 of 10 points are not 0.7
    return found


def _understand(entry: CanonicalUnit) -> _Target:
    meaning = _parse(entry.unit, entry.place)
    target = _Target(entry, meaning, ())
    rules: list[tuple[UnitMeaning, UnitRule]] = []
    for rule in entry.rules:
        ruled = _parse(rule.unit, entry.place)
        if _convert(ruled, target) is not None or any(ruled == other for other, _ in rules):
            raise CatalogError(
                f"The rule for '{rule.unit}' of the code {entry.code} contradicts another conversion of it.",
                place=entry.place,
                remedy="Remove the rule: the unit converts without it, or by an earlier one.",
            )
        rules.append((ruled, rule))
    target = _Target(entry, meaning, tuple(rules))
    if entry.without_unit is not None and _convert(_parse(entry.without_unit, entry.place), target) is None:
        raise CatalogError(
            f"'{entry.without_unit}', for values of {entry.code} without a unit, does not convert to "
            f"'{entry.unit}'.",
            place=entry.place,
            remedy="Correct 'without_unit', or leave it out.",
        )
    return target


def _list_spellings(catalog: UnitCatalog) -> dict[str, dict[UnitMeaning, str]]:
    found: dict[str, dict[UnitMeaning, str]] = {}
    for unit, texts in catalog.spellings.items():
        meaning = _parse(unit, texts[unit])
        for text, place in texts.items():
            listed = found.setdefault(clean_unit(text).casefold(), {})
            for other, name in listed.items():
                conversion = convert(other, meaning)
                if conversion is not None and not conversion.changes_nothing:
                    raise CatalogError(
                        f"'{text}' is a spelling of '{name}' and of '{unit}', which differ in size.",
                        place=place,
                        remedy="Remove it from one of them.",
                    )
            listed.setdefault(meaning, unit)
    return found


def _parse(unit: str, place: str) -> UnitMeaning:
    try:
        return parse_unit(unit)
    except InputError as error:
        raise CatalogError(f"'{unit}': {error.message}", place=place, remedy=error.remedy) from None
