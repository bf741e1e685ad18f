"""The catalog's units: the canonical unit of each code, how it converts, what is plausible.

All files of ``units/`` count together, so that a site adds its own beside those that are shipped. This module
reads and checks what needs no parser of units, as studies are compiled where DAG files are parsed; what the
units mean is checked by ``cohortflow.terminology.unit_table``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cohortflow.errors import CatalogError
from cohortflow.model import Catalog
from cohortflow.model.located_yaml import LocatedYaml, read_located
from cohortflow.patterns import luhn_digit
from cohortflow.terminology.systems import LOINC, canonical_code, canonical_system

__all__ = ["CanonicalUnit", "UnitCatalog", "UnitRule", "load_unit_catalog"]

_LOINC_CODE: Final = re.compile(r"([0-9]+)-([0-9])")
_REMEDY: Final = "See docs/units.md for what such a file holds."


def _read_fraction(value: object) -> object:
    """Return a number, or the quotient of two (``1000/113.12``), as an exact fraction."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a number is needed, or the quotient of two: 1000/113.12")  # noqa: TRY004 - pydantic's
    above, _, below = str(value).partition("/")
    try:
        return Fraction(above.strip()) / Fraction(below.strip() or "1")
    except (ValueError, ZeroDivisionError):
        raise ValueError("a number is needed, or the quotient of two: 1000/113.12") from None


Exact = Annotated[Fraction, BeforeValidator(_read_fraction)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class UnitRule(_Strict):
    """A conversion that no physics tells: ``value * factor + offset`` in the canonical unit.

    Attributes:
        unit: The unit that it converts from.
        factor: A number, or the quotient of two: ``1000/113.12``.
        offset: In the canonical unit.
        source: Who says so.
    """

    unit: str
    factor: Exact
    offset: Exact = Fraction(0)
    source: Annotated[str, Field(min_length=3)]

    @model_validator(mode="after")
    def _check_factor(self) -> Self:
        if self.factor == 0:
            raise ValueError("a factor of 0 would make all values equal")
        return self


class _Code(_Strict):
    name: Annotated[str, Field(min_length=1)]
    unit: Annotated[str, Field(min_length=1)]
    substance: str | None = None
    without_unit: str | None = None
    plausible: Annotated[tuple[float, float], Field(description="lowest and highest")] | None = None
    rules: tuple[UnitRule, ...] = ()

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.plausible is not None and not self.plausible[0] < self.plausible[1]:
            raise ValueError("the limits of 'plausible' are the lowest and the highest value, in this order")
        return self


class _Substance(_Strict):
    molar_mass: Exact | None = None
    valence: Annotated[int, Field(ge=1, le=10)] | None = None
    source: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _check_mass(self) -> Self:
        if self.molar_mass is not None and self.molar_mass <= 0:
            raise ValueError("a molar mass is positive, in g/mol")
        return self


class _File(_Strict):
    title: str
    copyright: str = ""
    limits: str = ""
    system: str = LOINC.uri
    codes: dict[str, _Code] = Field(default_factory=dict)
    substances: dict[str, _Substance] = Field(default_factory=dict)
    spellings: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if not self.limits and any(code.plausible for code in self.codes.values()):
            raise ValueError("'limits' is missing: it says where the limits of 'plausible' come from")
        return self


@dataclass(frozen=True, slots=True)
class CanonicalUnit:
    """The unit of a code.

    Attributes:
        system: Canonical URI.
        code: Code in canonical spelling.
        name: Name of the concept.
        unit: UCUM unit.
        molar_mass: Of what is measured, g/mol; ``None`` where mass and amount do not convert.
        valence: Charges of the ion; ``None`` where equivalents do not convert.
        without_unit: What a value without a unit has; ``None`` where that is not known.
        plausible: Lowest and highest value that a body allows, in the canonical unit.
        rules: Conversions beside those that follow from the units.
        place: File and line.
    """

    system: str
    code: str
    name: str
    unit: str
    molar_mass: Fraction | None
    valence: int | None
    without_unit: str | None
    plausible: tuple[float, float] | None
    rules: tuple[UnitRule, ...]
    place: str


@dataclass(frozen=True, slots=True)
class UnitCatalog:
    """All files of a catalog's ``units``.

    Attributes:
        codes: By system and code.
        spellings: By unit, the other spellings of it in any case, each with its place.
        files: Their content, for digests.
    """

    codes: Mapping[tuple[str, str], CanonicalUnit]
    spellings: Mapping[str, Mapping[str, str]]
    files: Mapping[str, Any]


def load_unit_catalog(catalog: Catalog) -> UnitCatalog:
    """Read all files of the catalog's ``units``.

    Raises:
        CatalogError: A file is malformed, a code is none of its system, a substance is not declared, or two
            files contradict each other. The message names file and line.
    """
    files = {name: _read(catalog.path("units", name)) for name in catalog.names("units")}
    substances: dict[str, tuple[_Substance, str]] = {}
    for file in files.values():
        for name, substance in file.model.substances.items():
            place = file.yaml.place(("substances", name))
            if name in substances:
                raise _twice(f"The substance '{name}'", place, substances[name][1])
            substances[name] = substance, place
    codes: dict[tuple[str, str], CanonicalUnit] = {}
    spellings: dict[str, dict[str, str]] = {}
    for file in files.values():
        for key, entry in file.model.codes.items():
            place = file.yaml.place(("codes", key))
            found = _resolve(file.model.system, key, entry, substances, place)
            if (found.system, found.code) in codes:
                raise _twice(f"The code '{found.code}'", place, codes[found.system, found.code].place)
            codes[found.system, found.code] = found
        for unit, others in file.model.spellings.items():
            listed = spellings.setdefault(unit, {unit: file.yaml.place(("spellings", unit))})
            listed.update(
                {text: file.yaml.place(("spellings", unit, index)) for index, text in enumerate(others)}
            )
    return UnitCatalog(codes, spellings, {name: file.yaml.data for name, file in files.items()})


def _resolve(
    system: str, key: str, entry: _Code, substances: Mapping[str, tuple[_Substance, str]], place: str
) -> CanonicalUnit:
    uri = canonical_system(system) or system
    code = canonical_code(uri, key)
    if uri == LOINC.uri and not _is_loinc(code):
        raise CatalogError(
            f"'{key}' is no LOINC code: its check digit is wrong.", place=place, remedy="Correct the code."
        )
    substance = None
    if entry.substance is not None:
        if entry.substance not in substances:
            raise CatalogError(
                f"The substance '{entry.substance}' is not declared.",
                place=place,
                remedy="Declare it under 'substances', with its molar mass or its valence.",
            )
        substance = substances[entry.substance][0]
    return CanonicalUnit(
        system=uri,
        code=code,
        name=entry.name,
        unit=entry.unit,
        molar_mass=substance.molar_mass if substance else None,
        valence=substance.valence if substance else None,
        without_unit=entry.without_unit,
        plausible=entry.plausible,
        rules=entry.rules,
        place=place,
    )


def _is_loinc(code: str) -> bool:
    """Whether the check digit holds (LOINC Users' Guide, appendix C)."""
    parts = _LOINC_CODE.fullmatch(code)
    return parts is not None and luhn_digit(parts[1]) == int(parts[2])


def _twice(what: str, place: str, first: str) -> CatalogError:
    return CatalogError(f"{what} stands twice.", place=place, remedy=f"Remove one; the first is at {first}.")


@dataclass(frozen=True, slots=True)
class _LoadedFile:
    model: _File
    yaml: LocatedYaml


def _read(path: Path) -> _LoadedFile:
    located = read_located(path, CatalogError, remedy=_REMEDY)
    try:
        return _LoadedFile(_File.model_validate(located.data), located)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ").rstrip(".")
        raise CatalogError(
            f"'{name}': {message}." if name else f"{message[:1].upper()}{message[1:]}.",
            place=located.place(fault["loc"]),
            remedy=_REMEDY,
        ) from None
