"""cohortflow terminology units."""

import json

import pytest


@pytest.fixture
def units(terminology):
    return lambda *arguments: terminology("units", *arguments)


def test_the_catalogs_units_are_sound(units):
    code, text, _ = units("check", "--json")
    assert code == 0
    size = json.loads(text)
    assert size["codes"] > 150
    assert size["spellings"] > 300


def test_units_are_told_from_spellings_and_from_what_is_neither(units):
    code, text, _ = units("check", "mg/dL", "MG/DL", "x10^3/µL", "foo", "--json")
    assert code == 1
    found = {entry["unit"]: (entry["ucum"], entry["spelling_of"]) for entry in json.loads(text)}
    assert found == {
        "mg/dL": (True, []),
        "MG/DL": (False, ["mg/dL"]),
        "x10^3/µL": (False, ["10*3/uL"]),
        "foo": (False, []),
    }
    code, text, _ = units("check", "mg/dL", "MG/DL")
    assert code == 0
    assert "spelling of" in text


def test_a_code_decides_what_a_unit_is(units):
    code, text, _ = units("check", "mmol/L", "--code", "2345-7")
    assert code == 0
    assert "x 18.0156 mg/dL" in text
    code, text, _ = units("check", "F", "kg", "--code", "8310-5", "--json")
    assert code == 1
    fahrenheit, kilogram = json.loads(text)
    assert fahrenheit["in_canonical_unit"] == "x 0.555556 - 17.7778 Cel"
    assert (kilogram["status"], kilogram["in_canonical_unit"]) == ("incompatible", "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("5.5", "mmol/L", "--code", "2345-7"), "99.0858 mg/dL (converted)"),
        (("98.6", "F", "--to", "Cel"), "37 Cel (converted)"),
        (("7", "%", "--code", "4548-4"), "7 % (canonical)"),
    ],
)
def test_values_convert(units, arguments, expected):
    code, text, _ = units("convert", *arguments)
    assert (code, text.strip()) == (0, expected)
    result = json.loads(units("convert", *arguments, "--json")[1])
    assert f"{result['value']:.10g} {result['unit']} ({result['status']})" == expected


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("5", "kg", "--code", "2345-7"), "'kg' does not convert to 'mg/dL': incompatible"),
        (("5", "mmol/L", "--to", "mg/dL"), "'mmol/L' does not convert to 'mg/dL': incompatible"),
        (("5", "foo", "--to", "mg/dL"), "unknown_unit"),
        (("5", "mg/dL", "--to", "foo"), "No UCUM unit"),
        (("5", "mg/dL"), "Name what to convert to"),
        (("5", "mg/dL", "--to", "g/L", "--code", "2345-7"), "Name what to convert to"),
        (("5", "mg/dL", "--code", "1-8"), "no unit for '1-8'"),
    ],
)
def test_what_does_not_convert_is_explained(units, arguments, fault):
    code, text, error = units("convert", *arguments)
    assert (code, text) == (2, "")
    assert fault in error


def test_a_number_is_converted_without_loss(units):
    assert json.loads(units("convert", "5.5", "mmol/L", "--code", "2345-7", "--json")[1])["value"] == 99.0858
    code, _, error = units("convert", "nan", "mmol/L", "--code", "2345-7")
    assert (code, "is no number" in error) == (2, True)


def test_what_ucum_reads_and_a_result_does_not_mean_is_unknown(units):
    code, text, _ = units("check", "104/uL", "--json")
    (found,) = json.loads(text)
    assert (code, found["ucum"], found["spelling_of"]) == (1, True, [])
    assert "power of ten" in found["fault"]


def test_codes_are_found_by_name(units):
    code, text, _ = units("list", "glucose")
    assert code == 0
    assert "2345-7" in text
    assert "1 to 5000" in text
    rows = json.loads(units("list", "2345-7", "--json")[1])
    assert [(row["unit"], row["plausible"]) for row in rows] == [("mg/dL", [1.0, 5000.0])]
