"""What a UCUM unit means: its size, its dimension, and into what it converts.

The grammar is the one of the package ``ucumvert``; what the atoms mean is read from the table of the UCUM
organization (``ucum-essence.xml``), which it carries. Sizes are exact fractions, so that a conversion there
and back is lossless until the last multiplication.

Physics alone converts too much. These are kept apart here, though UCUM counts all of them as numbers:

- amount of substance, equivalents and osmoles: 2 meq of calcium are 1 mmol;
- arbitrary units such as ``[iU]``: an international unit of one substance is none of another;
- fractions of different quantities: 1 mmol/mol of glycated haemoglobin is not 0.1 %.

Source: The Unified Code for Units of Measure 2.2, https://ucum.org/ucum, sections 2 to 4.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from cohortflow.errors import ConfigurationError, InputError

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

__all__ = ["Conversion", "UnitMeaning", "convert", "parse_unit"]

MASS: Final = "g"
SUBSTANCE: Final = "mol"
EQUIVALENT: Final = "eq"
_OWN_BASES: Final = (SUBSTANCE, EQUIVALENT, "osm")
_NUMBERS: Final = frozenset({"10*", "10^", "[pi]", "%", "[ppth]", "[ppm]", "[ppb]", "[pptr]"})
_ZERO_CELSIUS: Final = Fraction("273.15")
_OFFSETS: Final[Mapping[str, tuple[Fraction, Fraction]]] = {
    # Kelvin of one degree, and Kelvin at zero degrees (UCUM, table 27: Cel(x) = x - 273.15 and so on).
    "Cel": (Fraction(1), _ZERO_CELSIUS),
    "[degF]": (Fraction(5, 9), Fraction("459.67") * Fraction(5, 9)),
    "[degRe]": (Fraction(5, 4), _ZERO_CELSIUS),
}
_NAMESPACE: Final = "{http://unitsofmeasure.org/ucum-essence}"
_LONGEST: Final = 60
"""Characters; the parser's time grows with the cube of the length, and a text is no unit."""
_SHAPE: Final = re.compile(r"[!-~]+")
_FRACTION_KINDS: Final[Mapping[tuple[tuple[str, int], ...], str]] = {
    ((MASS, 1),): "mass",
    ((SUBSTANCE, 1),): "substance",
    ((EQUIVALENT, 1),): "equivalents",
    (("osm", 1),): "osmoles",
    (("m", 3),): "volume",
}


@dataclass(frozen=True, slots=True)
class UnitMeaning:
    """What a unit means: ``value * factor + offset`` is the quantity in base units.

    Attributes:
        factor: Base units of one unit.
        offset: Base units at zero; of temperature scales.
        dimensions: Powers of base units, sorted.
        fraction_of: What stands above and below the line and cancels, such as ``mass`` in ``mg/g``.
    """

    factor: Fraction
    offset: Fraction = Fraction(0)
    dimensions: tuple[tuple[str, int], ...] = ()
    fraction_of: frozenset[str] = frozenset()

    def power(self, base: str) -> int:
        """Return the power of a base unit."""
        return dict(self.dimensions).get(base, 0)


@dataclass(frozen=True, slots=True)
class Conversion:
    """``value * factor + offset`` is the value in the other unit; both are exact."""

    factor: Fraction
    offset: Fraction = Fraction(0)

    @property
    def changes_nothing(self) -> bool:
        """Whether the two units are spellings of one."""
        return self.factor == 1 and self.offset == 0


def convert(
    source: UnitMeaning,
    target: UnitMeaning,
    *,
    molar_mass: Fraction | None = None,
    valence: int | None = None,
) -> Conversion | None:
    """Return the conversion from one unit to another; ``None`` where there is none.

    Args:
        source: Meaning of the unit that a value has.
        target: Meaning of the unit that it shall have.
        molar_mass: Of the substance, g/mol; lets mass become amount of substance and the reverse.
        valence: Charges of the ion; lets equivalents become amount of substance.
    """
    if source.fraction_of != target.fraction_of:
        return None
    if source.dimensions == target.dimensions:
        factor = source.factor / target.factor
        return Conversion(factor, (source.offset - target.offset) / target.factor)
    if valence is not None:
        source, target = _in_moles(source, valence), _in_moles(target, valence)
    difference = Counter(dict(source.dimensions))
    difference.subtract(dict(target.dimensions))
    left = {base: power for base, power in difference.items() if power}
    if not left:
        return Conversion(source.factor / target.factor)
    mass = left.get(MASS, 0)
    if molar_mass is None or left != {MASS: mass, SUBSTANCE: -mass} or abs(mass) != 1:
        return None
    return Conversion(source.factor / target.factor * molar_mass ** (-mass))


def _in_moles(meaning: UnitMeaning, valence: int) -> UnitMeaning:
    power = meaning.power(EQUIVALENT)
    if not power:
        return meaning
    dimensions = Counter(dict(meaning.dimensions))
    del dimensions[EQUIVALENT]
    dimensions[SUBSTANCE] += power
    return UnitMeaning(
        meaning.factor / Fraction(valence) ** power, dimensions=_sorted(dimensions), fraction_of=frozenset()
    )


@lru_cache(maxsize=8192)
def parse_unit(text: str) -> UnitMeaning:
    """Return what a unit means.

    Args:
        text: A UCUM expression in the case-sensitive spelling, such as ``10*3/uL``.

    Raises:
        InputError: It is none. The message names the column, not the text.
    """
    if len(text) > _LONGEST or not _SHAPE.fullmatch(text):
        raise InputError(
            f"No UCUM unit: it is empty, longer than {_LONGEST} characters, or has blanks or characters "
            "beyond ASCII.",
            remedy=_REMEDY,
        )
    from lark.exceptions import LarkError, UnexpectedInput

    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        column = getattr(error, "column", -1)
        where = f"column {column}" if isinstance(column, int) and column > 0 else "its end"
        raise InputError(f"No UCUM unit: unexpected at {where}.", remedy=_REMEDY) from None
    except LarkError:
        raise InputError("No UCUM unit.", remedy=_REMEDY) from None
    return _evaluate(tree).meaning()


_REMEDY: Final = "Write it as UCUM does, case-sensitively: mg/dL, 10*3/uL, mm[Hg]. See https://ucum.org/ucum."


@dataclass(frozen=True, slots=True)
class _Product:
    """A part of an expression.

    Attributes:
        factor: Base units of one.
        offset: Base units at zero.
        dimensions: Powers of base units.
        above: Kinds of quantities above the line, for what cancels.
        below: Kinds below it.
        scale: Whether it is a temperature scale, which must stand alone.
    """

    factor: Fraction
    dimensions: Counter[str]
    above: frozenset[str] = frozenset()
    below: frozenset[str] = frozenset()
    offset: Fraction = Fraction(0)
    scale: bool = False

    def meaning(self) -> UnitMeaning:
        return UnitMeaning(self.factor, self.offset, _sorted(self.dimensions), self.above & self.below)

    def times(self, other: _Product) -> _Product:
        if self.scale or other.scale:
            raise InputError("A temperature scale is part of no other unit.", remedy="Use K for differences.")
        dimensions = Counter(self.dimensions)
        dimensions.update(other.dimensions)
        return _Product(
            self.factor * other.factor, dimensions, self.above | other.above, self.below | other.below
        )

    def to_the(self, power: int) -> _Product:
        if self.scale:
            raise InputError("A temperature scale has no powers.", remedy="Use K for differences.")
        dimensions = Counter({base: exponent * power for base, exponent in self.dimensions.items()})
        above, below = (self.above, self.below) if power > 0 else (self.below, self.above)
        kind = _kind(dimensions)
        inverse = _kind(Counter({base: -exponent for base, exponent in dimensions.items()}))
        return _Product(self.factor**power, dimensions, above | kind, below | inverse)


def _kind(dimensions: Counter[str]) -> frozenset[str]:
    kind = _FRACTION_KINDS.get(_sorted(dimensions))
    return frozenset() if kind is None else frozenset({kind})


def _sorted(dimensions: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((base, power) for base, power in dimensions.items() if power))


def _evaluate(node: Tree[Token] | Token) -> _Product:
    if isinstance(node, str):  # an annotation: it says what is counted, and has no meaning of its own
        return _number(1)
    parts = node.children
    match str(node.data):
        case "main_term" if len(parts) > 1:
            return _evaluate(parts[1]).to_the(-1)
        case "term":
            left, sign, right = (*parts,)
            second = _evaluate(right)
            return _evaluate(left).times(second if str(sign) == "." else second.to_the(-1))
        case "annotatable" if len(parts) > 1 and getattr(parts[1], "type", "") == "EXPONENT":
            return _evaluate(parts[0]).to_the(int(str(parts[1])))
        case "simple_unit":
            return _evaluate_atom(*(str(part) for part in parts))
        case _:  # a unit, perhaps with an annotation after it
            return _evaluate(parts[0])


def _evaluate_atom(*words: str) -> _Product:
    *prefix, code = words
    if code.isdigit():
        return _number(int(code))
    atom = _atom(code)
    if not prefix:
        return atom
    if atom.scale:
        raise InputError("A temperature scale has no prefix.", remedy="Leave the prefix out.")
    return _number(_prefixes()[prefix[0]]).times(atom)


@lru_cache(maxsize=1024)
def _atom(code: str) -> _Product:
    """Return what an atom means, by its definition down to base units."""
    if code in _OFFSETS:
        factor, offset = _OFFSETS[code]
        return _Product(factor, Counter({"K": 1}), offset=offset, scale=True)
    element = _elements()[code]
    value = element.find(f"{_NAMESPACE}value")
    special = value is not None and value.find(f"{_NAMESPACE}function") is not None
    if value is None or code in _OWN_BASES or special:
        base = Counter({code: 1})
        return _Product(Fraction(1), base, _kind(base))
    defined = _evaluate(_parser().parse(value.get("Unit", "")))
    product = _number(Fraction(value.get("value", ""))).times(defined)
    if product.dimensions or product.above or code in _NUMBERS:
        return product
    # Arbitrary units, and what UCUM only counts, such as the field of view of a microscope.
    return _Product(Fraction(1), Counter({code: 1}))


def _number(value: int | Fraction) -> _Product:
    return _Product(Fraction(value), Counter())


@lru_cache(maxsize=1)
def _parser() -> Lark:
    # The file alone: the package imports pint, which takes longer than all that is done here.
    from lark import Lark

    grammar = (_find_package() / "ucum_grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, start="main_term", strict=True)


@lru_cache(maxsize=1)
def _elements() -> Mapping[str, ET.Element]:
    root = _essence()
    return {
        element.get("Code", ""): element
        for tag in ("base-unit", "unit")
        for element in root.iterfind(f"{_NAMESPACE}{tag}")
    }


@lru_cache(maxsize=1)
def _prefixes() -> Mapping[str, Fraction]:
    values = {}
    for element in _essence().iterfind(f"{_NAMESPACE}prefix"):
        value = element.find(f"{_NAMESPACE}value")
        values[element.get("Code", "")] = Fraction(value.get("value", "1") if value is not None else 1)
    return values


@lru_cache(maxsize=1)
def _essence() -> ET.Element:
    path = _find_package() / "vendor" / "ucum-essence.xml"
    return ET.parse(path).getroot()  # noqa: S314  # a file of an installed package


def _find_package() -> Path:
    spec = find_spec("ucumvert")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            "The package 'ucumvert', which has grammar and table of the units, is not installed.",
            remedy="Install Cohortflow with its requirements.",
        )
    return Path(spec.submodule_search_locations[0])
