"""The codes are well-formed: their check digits, which each code system defines, are right."""

from __future__ import annotations

import re

import pytest

from cohortflow.synthetic import CODES, CONDITIONS
from cohortflow.synthetic.codes import CVX, ICD10CM, LOCAL_LAB, LOINC, RXNORM, SNOMED, Role
from cohortflow.synthetic.staff import npi

_VERHOEFF_TABLE = [
    "0123456789",
    "1234067895",
    "2340178956",
    "3401289567",
    "4012395678",
    "5987604321",
    "6598710432",
    "7659821043",
    "8765932104",
    "9876543210",
]
_VERHOEFF_PERMUTATION = [
    "0123456789",
    "1576283094",
    "5803796142",
    "8916043527",
    "9453126870",
    "4286573901",
    "2793806415",
    "7046913258",
]


def verhoeff_is_valid(number: str) -> bool:
    check = 0
    for place, digit in enumerate(reversed(number)):
        check = int(_VERHOEFF_TABLE[check][int(_VERHOEFF_PERMUTATION[place % 8][int(digit)])])
    return check == 0


def luhn_is_valid(number: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


@pytest.mark.parametrize("code", [c for c in CODES if c.system == SNOMED], ids=lambda c: c.name)
def test_snomed_concept_ids_carry_a_valid_check_digit(code):
    assert verhoeff_is_valid(code.code)
    assert code.code[-3] == "0", "not a concept id of the international edition"


@pytest.mark.parametrize("code", [c for c in CODES if c.system == LOINC], ids=lambda c: c.name)
def test_loinc_codes_carry_a_valid_check_digit(code):
    assert luhn_is_valid(code.code.replace("-", ""))


@pytest.mark.parametrize(
    ("system", "pattern"),
    [
        (ICD10CM, r"[A-Z]\d[0-9A-Z](\.[0-9A-Z]{1,4})?"),
        (RXNORM, r"\d{3,7}"),
        (CVX, r"\d{2,3}"),
        (LOCAL_LAB, r"[A-Z]+"),
    ],
)
def test_codes_of_other_systems_have_the_form_of_their_system(system, pattern):
    codes = [code.code for code in CODES if code.system == system]
    assert codes
    assert [code for code in codes if not re.fullmatch(pattern, code)] == []


def test_no_code_stands_twice_for_different_things():
    keys = [(code.system, code.code, code.role) for code in CODES]
    assert len(set(keys)) == len(keys)


def test_each_condition_has_both_codings_in_the_table():
    pairs = {(code.system, code.code) for code in CODES if code.role is Role.CONDITION}
    assert pairs == {(SNOMED, c.snomed) for c in CONDITIONS} | {(ICD10CM, c.icd10cm) for c in CONDITIONS}


def test_provider_identifiers_pass_the_check_and_are_never_issued():
    numbers = [npi(number) for number in range(1, 200)]
    assert all(luhn_is_valid("80840" + number) for number in numbers)
    assert all(len(number) == 10 and number[0] not in "12" for number in numbers)
    # The example of the standard: 123456789 takes the check digit 3.
    assert luhn_is_valid("80840" + "1234567893")
