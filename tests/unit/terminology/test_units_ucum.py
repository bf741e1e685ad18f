"""What UCUM units mean, against the definitions of the units and against pint."""

import csv
from fractions import Fraction
from pathlib import Path

import pytest
import ucumvert

from cohortflow.errors import InputError
from cohortflow.terminology.ucum import Conversion, convert, parse_unit


def conversion(source, target, **known):
    return convert(parse_unit(source), parse_unit(target), **known)


@pytest.mark.parametrize(
    ("source", "target", "factor"),
    [
        ("[lb_av]", "kg", "0.45359237"),  # international avoirdupois pound
        ("[in_i]", "cm", "2.54"),
        ("g/L", "mg/dL", "100"),
        ("10*9/L", "10*3/uL", "1"),
        ("10^9/L", "10*3/uL", "1"),
        ("g%", "g/dL", "1"),
        ("kg/m2", "g/cm2", "0.1"),
        ("U/L", "nkat/L", "50/3"),  # one micromole a minute
        ("m[iU]/L", "u[IU]/mL", "1"),
        ("1", "%", "100"),
        ("mL/min", "mL/min/{1.73_m2}", "1"),  # an annotation has no meaning
        ("/min", "Hz", "1/60"),
        ("mm[Hg]", "kPa", "0.1333220"),  # as UCUM defines it
    ],
)
def test_units_of_one_dimension_convert(source, target, factor):
    assert conversion(source, target) == Conversion(Fraction(factor))
    assert conversion(target, source) == Conversion(1 / Fraction(factor))


def test_temperatures_convert_with_their_zero():
    assert conversion("[degF]", "Cel") == Conversion(Fraction(5, 9), Fraction(-160, 9))
    assert conversion("Cel", "[degF]") == Conversion(Fraction(9, 5), Fraction(32))
    assert conversion("Cel", "K") == Conversion(Fraction(1), Fraction("273.15"))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("mg/dL", "mmol/L"),  # needs the substance
        ("meq/L", "mmol/L"),  # needs the valence
        ("mosm/kg", "mmol/kg"),
        ("[iU]/L", "U/L"),  # an arbitrary unit is none of enzymes
        ("[iU]/L", "[arb'U]/L"),
        ("mmol/mol", "%"),  # glycated haemoglobin: neither 10 nor 0.1
        ("mg/g", "%"),
        ("mg/g", "umol/mmol"),
        ("/[HPF]", "/[LPF]"),
        ("[pH]", "1"),
        ("mL/min/m2", "mL/min"),
        ("kg", "cm"),
        ("K/uL", "10*3/uL"),  # kelvin
    ],
)
def test_what_differs_in_kind_does_not_convert(source, target):
    assert conversion(source, target) is None
    assert conversion(target, source) is None


@pytest.mark.parametrize(
    ("source", "target", "molar_mass", "valence", "expected"),
    [
        ("mg/dL", "mmol/L", "180.156", None, 1 / 18.0156),  # glucose
        ("mmol/L", "mg/dL", "180.156", None, 18.0156),
        ("mg/dL", "umol/L", "113.120", None, 88.402),  # creatinine
        ("mg/dL", "mmol/L", "40.078", 2, 0.249513),  # calcium
        ("meq/L", "mmol/L", "40.078", 2, 0.5),
        ("meq/L", "mg/dL", "40.078", 2, 2.0039),
        ("mg/dL", "meq/L", "24.305", 2, 0.82288),  # magnesium
    ],
)
def test_substances_convert_by_molar_mass_and_valence(source, target, molar_mass, valence, expected):
    found = conversion(source, target, molar_mass=Fraction(molar_mass), valence=valence)
    assert float(found.factor) == pytest.approx(expected, rel=1e-5)
    assert found.offset == 0


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        ("mg dL", "blanks"),
        ("µg/L", "beyond ASCII"),
        ("m" * 61, "longer"),
        ("mm[Hg", "column 3"),
        ("MG/DL", "column 4"),
        ("mg/", "end"),
        ("Cel/min", "part of no other unit"),
        ("Cel2", "no powers"),
        ("mCel", "no prefix"),
    ],
)
def test_what_is_no_unit_is_refused_without_its_text(text, fault):
    with pytest.raises(InputError, match=fault) as caught:
        parse_unit(text)
    assert caught.value.remedy
    assert text == "" or text not in caught.value.message


def examples():
    path = Path(ucumvert.__file__).parent / "vendor" / "ucum_examples.tsv"
    with path.open(encoding="utf-8") as file:
        return [row[1] for row in list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]]


def test_examples_of_ucum_mean_what_pint_says():
    """The examples that the UCUM organization publishes, by another implementation of their values."""
    registry = ucumvert.PintUcumRegistry()
    differing, compared = set(), 0
    for text in examples():
        try:
            meaning = parse_unit(text)
        except InputError:
            differing.add(text)
            continue
        try:
            base = registry.from_ucum(text).to_base_units()
        except Exception:  # noqa: BLE001 - what pint cannot do: annotations alone, pH
            continue
        grams = 1000 ** base.dimensionality.get("[mass]", 0)
        compared += 1
        if float(meaning.factor) != pytest.approx(base.magnitude * grams, rel=1e-6):
            differing.add(text)
    assert compared > 770
    assert differing == {
        "Torr",  # among the examples, but no unit of UCUM
        "Cel",  # compared without their zero
        "[degF]",
        "dB",  # pint gives the ratio itself
        "mm[Hg]",  # UCUM: 133.322 Pa; pint: 133.322387415
        "cm[Hg]",
        "[in_i'H2O]",  # UCUM: water of 9.80665 kPa a metre; pint: water at 4 degrees Celsius
    }
