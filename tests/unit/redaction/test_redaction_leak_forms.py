"""Forms of names, numbers, phones and dates that the leak gate knows, and what it lets pass."""

import dataclasses

import polars as pl
import pytest

from cohortflow.model import Catalog, Column, ColumnType, PhiClass
from cohortflow.patterns import load_patterns
from cohortflow.redaction import Action, ProjectKey, Treatment, load_policy, plan_redaction
from cohortflow.redaction.leaks import FACTS, LeakScan, load_common_words

CATALOG = Catalog.default()
KEY = ProjectKey.from_text("8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083")
POLICY = load_policy(CATALOG, "expert")
SUBJECT = Column("patient_id", ColumnType.STRING, ("Patient.id",), target="Patient")
FACTS_OF_JO = [
    ("id", "jo", "Patient"),
    ("name", "O'Brien-Smith", "Jo"),
    ("identifier", "0012345678", None),
    ("identifier", "MRN987654", None),
    ("contact", "+44 20 7946 0958", None),
    ("contact", "617-555-0199", None),
    ("birth_date", "1965-01-03", None),
]


def look(text, column, *, keep=True):
    """Return the rules that a text breaks in a column that the plan lets out."""
    plan = plan_redaction("t", [SUBJECT, column], POLICY)
    if keep:
        entry = dataclasses.replace(
            plan.columns[1], treatment=Treatment(action=Action.KEEP), output=plan.columns[1].column
        )
        plan = dataclasses.replace(plan, columns=(plan.columns[0], entry))
    facts = pl.DataFrame(
        [(kind, value, second, None, "jo") for kind, value, second in FACTS_OF_JO], schema=FACTS, orient="row"
    )
    scan = LeakScan(
        facts,
        common=load_common_words(CATALOG),
        patterns=load_patterns(CATALOG),
        as_of_year=2026,
        pseudonymize=lambda ids: pl.Series([KEY.pseudonym("Patient", one) for one in ids], dtype=pl.String),
    )
    scan.add_table("t", pl.LazyFrame({"patient_id": [KEY.pseudonym("Patient", "jo")], "x": [text]}), plan)
    return {leak.rule for leak in scan.finish().leaks}


NOTE = Column("x", ColumnType.STRING, ("Observation.valueString",))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("seen by Jo Smith", "full name"),
        ("Smith, Jo", "full name"),
        ("Jo OBrien Smith", "name"),
        ("12345678", "identifier"),
        ("0012345678", "identifier"),
        ("chart 987654", "identifier"),
        ("MRN 987654", "identifier"),
        ("call 020 7946 0958", "phone, e-mail or web address"),
        ("02079460958", "phone, e-mail or web address"),
        ("(617)5550199", "phone, e-mail or web address"),
        ("555-0199", "phone, e-mail or web address"),
        ("born 03JAN1965", "date of birth"),
        ("1965/1/3", "date of birth"),
        ("born 01-03-65", "date of birth"),
        ("19650103000000", "date of birth"),
        ("Jan 3 '65", "date of birth"),
    ],
)
def test_other_ways_to_write_what_identifies(text, rule):
    assert rule in look(text, NOTE)


@pytest.mark.parametrize("text", ["Smith fracture", "Jo block", "200 mg", "1965", "January"])
def test_words_and_numbers_of_their_own_are_no_leak(text):
    assert look(text, NOTE) == set()


@pytest.mark.parametrize(
    "text", ["terminology:icd10cm|2026-04-01", "LOINC 2.81 (2025-08-04)", "1965-01-03", "19650103"]
)
def test_dates_of_maps_are_nobodys(text):
    """The version of a map is often a date, and may be the day when somebody was born."""
    assert look(text, Column("x", ColumnType.STRING, phi=PhiClass.SAFE_CODE), keep=False) == set()


@pytest.mark.parametrize("text", ["Brien", "born 1965-01-03", "seen 2020-03-04"])
def test_a_column_of_a_query_without_a_path_is_not_taken_for_a_map(text):
    assert look(text, Column("x", ColumnType.STRING)) != set()
