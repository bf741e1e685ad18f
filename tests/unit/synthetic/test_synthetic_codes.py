"""The codes are well-formed: their check digits, which each code system defines, are right."""

from __future__ import annotations

import re

import polars as pl
import pytest

from cohortflow.patterns import Algorithm, check_digit_holds
from cohortflow.synthetic import CODES, CONDITIONS
from cohortflow.synthetic.codes import CVX, ICD10CM, LOCAL_LAB, LOINC, RXNORM, SNOMED, Role
from cohortflow.synthetic.staff import npi


def holds(algorithm, *values):
    return pl.select(check_digit_holds(algorithm, pl.lit(pl.Series(values)))).to_series().all()


@pytest.mark.parametrize("code", [c for c in CODES if c.system == SNOMED], ids=lambda c: c.name)
def test_snomed_concept_ids_carry_a_valid_check_digit(code):
    assert holds(Algorithm.SCTID, code.code)
    assert code.code[-3] == "0", "not a concept id of the international edition"


@pytest.mark.parametrize("code", [c for c in CODES if c.system == LOINC], ids=lambda c: c.name)
def test_loinc_codes_carry_a_valid_check_digit(code):
    assert holds(Algorithm.LOINC, code.code)


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
    assert holds(Algorithm.NPI, *numbers)
    assert all(len(number) == 10 and number[0] not in "12" for number in numbers)
