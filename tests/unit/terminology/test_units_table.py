"""How units as sources write them become the canonical unit of a LOINC code."""

import pytest

from cohortflow.model import Catalog
from cohortflow.terminology.systems import LOINC
from cohortflow.terminology.unit_catalog import load_unit_catalog
from cohortflow.terminology.unit_mapping import UnitStatus
from cohortflow.terminology.unit_table import UnitTable


@pytest.fixture(scope="module")
def table():
    return UnitTable(load_unit_catalog(Catalog.default()))


@pytest.fixture(scope="module")
def resolve(table):
    return lambda code, unit: table.resolve(LOINC.uri, code, unit)


@pytest.mark.parametrize(
    ("code", "value", "unit", "expected"),
    [
        # Facts that textbooks and laboratories publish; the last digits are theirs.
        pytest.param("2345-7", 5.0, "mmol/L", 90.08, id="glucose"),
        pytest.param("14749-6", 100, "mg/dL", 5.551, id="glucose, SI"),
        pytest.param("2160-0", 88.4, "umol/L", 1.0, id="creatinine"),
        pytest.param("14682-9", 1.0, "mg/dL", 88.4, id="creatinine, SI"),
        pytest.param("3094-0", 10, "mmol/L", 28.0, id="urea as its nitrogen"),
        pytest.param("2093-3", 5.0, "mmol/L", 193.3, id="cholesterol"),
        pytest.param("2571-8", 1.0, "mmol/L", 88.5, id="triglycerides"),
        pytest.param("1975-2", 17.1, "umol/L", 1.0, id="bilirubin"),
        pytest.param("3084-1", 357, "umol/L", 6.0, id="urate"),
        pytest.param("17861-6", 2.5, "mmol/L", 10.02, id="calcium"),
        pytest.param("17861-6", 5.0, "meq/L", 10.02, id="calcium, equivalents"),
        pytest.param("2601-3", 2.0, "meq/L", 1.0, id="magnesium, equivalents"),
        pytest.param("718-7", 8.69, "mmol/L", 14.0, id="haemoglobin"),
        pytest.param("718-7", 140, "g/L", 14.0, id="haemoglobin, SI"),
        pytest.param("4548-4", 48, "mmol/mol", 6.54, id="HbA1c, IFCC to NGSP"),
        pytest.param("785-6", 1.86, "fmol", 29.97, id="haemoglobin of a cell"),
        pytest.param("9318-7", 3.4, "mg/mmol", 30.06, id="albumin/creatinine"),
        pytest.param("8310-5", 98.6, "[degF]", 37.0, id="temperature"),
        pytest.param("8310-5", 310.15, "K", 37.0, id="temperature, kelvin"),
        pytest.param("29463-7", 150, "[lb_av]", 68.04, id="weight"),
        pytest.param("8302-2", 70, "[in_i]", 177.8, id="height"),
        pytest.param("8480-6", 16.0, "kPa", 120.0, id="blood pressure"),
        pytest.param("3024-7", 15.0, "pmol/L", 1.165, id="free thyroxine"),
        pytest.param("2132-9", 221, "pmol/L", 299.5, id="vitamin B12"),
        pytest.param("6690-2", 5600, "/uL", 5.6, id="leucocytes"),
        pytest.param("4544-3", 0.45, "L/L", 45, id="haematocrit"),
    ],
)
def test_values_convert_as_published(resolve, code, value, unit, expected):
    found = resolve(code, unit)
    assert found.status is UnitStatus.CONVERTED
    result = float(found.conversion.factor) * value + float(found.conversion.offset)
    assert result == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        ("2345-7", ["mg/dl", "MG/DL", " mg / dL ", "mgs/dL", "mg%", "mg/dL{fasting}"]),
        (
            "6690-2",
            ["10^3/uL", "x10^3/µL", "10³/µL", "10e3/uL", "K/uL", "10*9/L", "G/L", "thou/mcL", "X10E3/UL"],
        ),
        ("6690-2", ["103/uL", "10 3/uL", "109/L", "10E+03/uL", "x10E03/uL"]),  # raised digits that were lost
        ("789-8", ["M/uL", "10*12/L", "10^6/mm3", "106/mcL", "1012/L"]),
        ("8480-6", ["mmHg", "mm Hg", "MMHG", "mm(Hg)"]),
        ("8310-5", ["C", "°C", "\N{MASCULINE ORDINAL INDICATOR}C", "degC", "deg C", "℃"]),
        ("785-6", ["PG"]),  # petagauss in UCUM
        ("33914-3", ["mL/min/1.73m2", "mL/min/1.73.m2", "ML/MIN/1.73 M2", "mL/min/1.73m²", "mL/min"]),
        ("3016-3", ["mIU/L", "uIU/mL", "µIU/mL", "mU/L", "m[IU]/L"]),
        ("1742-6", ["IU/L", "units/L", "u/l", "[iU]/L"]),
        ("2951-2", ["mEq/L", "meq/L", "MMOL/L"]),
        ("8867-4", ["bpm", "beats/min", "{beats}/min"]),
        ("39156-5", ["kg/m^2", "kg/m²", "KG/M2"]),
        ("6301-6", [None, "", " ", "ratio", "1", "inr"]),
        ("2744-1", [None, "pH", "1", "[pH]{}"]),
    ],
)
def test_spellings_of_the_canonical_unit_leave_the_number(resolve, code, texts):
    for text in texts:
        found = resolve(code, text)
        assert (found.status, found.conversion.changes_nothing) == (UnitStatus.SYNONYM, True), text


@pytest.mark.parametrize(
    ("code", "unit", "status"),
    [
        ("2345-7", None, UnitStatus.MISSING),
        ("2345-7", "  ", UnitStatus.MISSING),
        ("2345-7", "see comment", UnitStatus.UNKNOWN_UNIT),
        ("4544-3", "5.4", UnitStatus.UNKNOWN_UNIT),  # in UCUM 5 times 4
        ("4544-3", "100", UnitStatus.UNKNOWN_UNIT),
        ("2345-7", "x" * 10_000, UnitStatus.UNKNOWN_UNIT),
        ("2345-7", "Mg/dL", UnitStatus.UNKNOWN_UNIT),  # megagrams, or milligrams in odd case
        ("6690-2", "104/uL", UnitStatus.UNKNOWN_UNIT),  # in UCUM 104 of something
        ("6690-2", "10-3/uL", UnitStatus.UNKNOWN_UNIT),
        ("2345-7", "mg/dL/2", UnitStatus.UNKNOWN_UNIT),
        ("2345-7", "kg", UnitStatus.INCOMPATIBLE),
        ("59261-8", "%", UnitStatus.INCOMPATIBLE),  # of the NGSP, or a tenth of mmol/mol
        ("6301-6", "%", UnitStatus.INCOMPATIBLE),  # of a normal prothrombin time
        ("72514-3", "/10{score}", UnitStatus.INCOMPATIBLE),  # 7 of 10 points are not 0.7
        ("20448-7", "U/L", UnitStatus.INCOMPATIBLE),
        ("2345-7", "%", UnitStatus.INCOMPATIBLE),
        ("20448-7", "pmol/L", UnitStatus.INCOMPATIBLE),  # an international unit has no molar mass
        ("17856-6", "1", UnitStatus.CONVERTED),
        ("no-code", "mg/dL", UnitStatus.NO_CANONICAL_UNIT),
        ("no-code", "see comment", UnitStatus.NO_CANONICAL_UNIT),
    ],
)
def test_what_is_not_certain_is_not_converted(resolve, code, unit, status):
    found = resolve(code, unit)
    assert found.status is status
    assert (found.conversion is not None) == (status is UnitStatus.CONVERTED)


def test_codes_of_other_systems_are_other_codes(table):
    assert table.resolve("http://snomed.info/sct", "2345-7", "mg/dL").status is UnitStatus.NO_CANONICAL_UNIT
