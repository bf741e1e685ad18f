"""Maps that choose by age and sex, as SNOMED CT's extended map to ICD-10 does."""

from datetime import date

import polars as pl
import pytest
from pydantic import ValidationError

from cohortflow.terminology import CodeMapping, map_codes, measure_coverage
from cohortflow.terminology.map_rules import AgeCondition, SexCondition, parse_rule
from cohortflow.terminology.map_table import MapTable
from cohortflow.terminology.mapping import PatientContext
from cohortflow.terminology.tables import MAPS

SNOMED = "http://snomed.info/sct"
ICD10 = "http://hl7.org/fhir/sid/icd-10"
FEMALE = "IFA 248152002 | Female (finding) |"
MALE = "IFA 248153007 | Male (finding) |"
AGE = "IFA 445518008 | Age at onset of clinical finding (observable entity) |"
INFERTILE, BRONCHITIS, NEWBORN, ANAEMIA, ULCER = "8619003", "32398004", "28520004", "271737000", "230000005"


def make_map(*rows):
    """Build a map from (source, group, priority, rule, target)."""
    return MapTable(
        "extended",
        "extended|20260101",
        pl.DataFrame(
            [
                (
                    "extended",
                    "20260101",
                    SNOMED,
                    source,
                    ICD10,
                    target,
                    None,
                    "related-to",
                    group,
                    priority,
                    rule,
                    None,
                    i,
                )
                for i, (source, group, priority, rule, target) in enumerate(rows)
            ],
            schema=MAPS,
            orient="row",
        ),
    )


EXTENDED = make_map(
    (INFERTILE, 1, 1, FEMALE, "N97.9"),
    (INFERTILE, 1, 2, MALE, "N46"),
    (INFERTILE, 1, 3, "OTHERWISE TRUE", None),
    (BRONCHITIS, 1, 1, f"{AGE} < 15.0 years", "J20.9"),
    (BRONCHITIS, 1, 2, "OTHERWISE TRUE", "J40"),
    (NEWBORN, 1, 1, f"{AGE} < 28.0 days", "P59.9"),
    (NEWBORN, 1, 2, f"{AGE} >= 28.0 days AND {AGE} < 18.0 years", "R17"),
    (NEWBORN, 1, 3, "OTHERWISE TRUE", "K76.9"),
    (ANAEMIA, 1, 1, "IFA 77386006 | Pregnant (finding) |", "O99.0"),
    (ANAEMIA, 1, 2, "OTHERWISE TRUE", "D64.9"),
    (ULCER, 1, 1, "TRUE", "E11.6"),
    (ULCER, 2, 1, "TRUE", "L97"),
    ("233604007", 1, 1, FEMALE, "A00"),
    ("233604007", 1, 2, "OTHERWISE TRUE", "A01"),
    ("233604007", 2, 1, "TRUE", "B95"),
)
CONTEXT = PatientContext(sex="gender", birth_date="birth_date", at="onset_at")
BY_DATES = CodeMapping(maps=("extended",), prefix="to", context=CONTEXT)


def run(rows, mapping=BY_DATES):
    """Map (code, gender, birth date, onset)."""
    frame = pl.LazyFrame(
        [(SNOMED, *row) for row in rows],
        schema={
            "code_system": pl.String,
            "code": pl.String,
            "gender": pl.String,
            "birth_date": pl.Date,
            "onset_at": pl.Date,
        },
        orient="row",
    )
    return map_codes(frame, mapping, [EXTENDED]).collect()


def test_sex_decides_and_its_absence_is_said():
    result = run(
        [(INFERTILE, sex, None, None) for sex in ("female", "M", "248152002", "other", "unknown", None)]
    )
    assert result.select("to_code", "to_unmapped_reason").rows() == [
        ("N97.9", None),
        ("N46", None),
        ("N97.9", None),
        *[(None, "rule not decidable")] * 3,
    ]


def test_the_age_is_that_of_the_calendar():
    born = date(2000, 2, 29)
    result = run(
        [
            (BRONCHITIS, None, born, date(2015, 2, 27)),
            (BRONCHITIS, None, born, date(2015, 3, 1)),
            (NEWBORN, None, born, date(2000, 3, 27)),
            (NEWBORN, None, born, date(2000, 3, 28)),
            (NEWBORN, None, born, date(2018, 3, 1)),
            (NEWBORN, None, born, date(1999, 1, 1)),
        ]
    )
    assert result["to_code"].to_list() == ["J20.9", "J40", "P59.9", "R17", "K76.9", None]


def test_the_age_may_be_a_column_of_years():
    mapping = CodeMapping(maps=("extended",), prefix="to", context=PatientContext(age="age"))
    frame = pl.LazyFrame(
        {
            "code_system": [SNOMED] * 5,
            "code": [BRONCHITIS, BRONCHITIS, NEWBORN, BRONCHITIS, BRONCHITIS],
            "age": ["14.9", "15", "0.05", "90+", None],
        }
    )
    result = map_codes(frame, mapping, [EXTENDED]).collect()
    assert result["to_code"].to_list() == ["J20.9", "J40", "P59.9", None, None]
    assert result["to_unmapped_reason"].to_list()[3:] == ["rule not decidable"] * 2


def test_the_default_is_taken_where_it_is_asked_for_and_marked():
    mapping = BY_DATES.model_copy(update={"undecided": "default"})
    result = run(
        [
            (BRONCHITIS, None, None, None),
            (ANAEMIA, "female", None, None),
            (INFERTILE, None, None, None),
            (INFERTILE, "male", None, None),
            (ULCER, None, None, None),
        ],
        mapping,
    )
    assert result.select("to_code", "to_rule", "to_unmapped_reason").rows() == [
        ("J40", "default after an undecidable rule", None),
        ("D64.9", "default after an undecidable rule", None),
        (None, None, "rule not decidable"),
        ("N46", "decided", None),
        ("E11.6", None, None),
    ]


def test_a_finding_beside_the_code_is_never_guessed():
    assert run([(ANAEMIA, "male", date(1990, 1, 1), date(2020, 1, 1))])["to_unmapped_reason"].to_list() == [
        "rule not decidable"
    ]


def test_each_group_gives_one_target():
    mapping = BY_DATES.model_copy(update={"cardinality": "all"})
    result = run(
        [(ULCER, None, None, None), ("233604007", "female", None, None), ("233604007", None, None, None)],
        mapping,
    )
    assert result.select("code", "to_code").rows() == [
        (ULCER, "E11.6"),
        (ULCER, "L97"),
        ("233604007", "A00"),
        ("233604007", "B95"),
        ("233604007", "B95"),
    ]
    assert run([(ULCER, None, None, None)])["to_code"].to_list() == ["E11.6"]


def test_a_later_group_is_no_stand_in_for_an_undecided_one():
    # Group 2 has the causative organism; it is no code for the disease.
    for undecided, code, reason in (("unmapped", None, "rule not decidable"), ("default", "A01", None)):
        mapping = BY_DATES.model_copy(update={"undecided": undecided})
        result = run([("233604007", None, None, None), ("233604007", "female", None, None)], mapping)
        assert result["to_code"].to_list() == [code, "A00"]
        assert result["to_unmapped_reason"].to_list() == [reason, None]


def test_other_spellings_are_decided_too():
    frame = pl.LazyFrame({"code_system": ["SNOMED-CT"], "code": [f" {INFERTILE} "], "gender": ["female"]})
    mapping = CodeMapping(maps=("extended",), prefix="to", context=PatientContext(sex="gender"))
    assert map_codes(frame, mapping, [EXTENDED]).collect()["to_code"].to_list() == ["N97.9"]


def test_coverage_counts_source_rows_whatever_the_context():
    rows = [(INFERTILE, "female", None, None)] * 3 + [(INFERTILE, "male", None, None)] * 2
    rows += [(INFERTILE, None, None, None), (ULCER, None, None, None)]
    for cardinality in ("best", "all"):
        mapping = BY_DATES.model_copy(update={"cardinality": cardinality})
        coverage = measure_coverage(run(rows, mapping).lazy(), mapping)
        assert (coverage.rows, coverage.rows_mapped) == (7, 6)


@pytest.mark.parametrize(
    ("rule", "conditions"),
    [
        ("TRUE", ()),
        ("OTHERWISE TRUE", ()),
        (FEMALE, (SexCondition("female"),)),
        (f"{AGE} < 28.0 days", (AgeCondition("<", 28.0, "day"),)),
        (f"{FEMALE} AND {AGE} >= 12.0 years", (SexCondition("female"), AgeCondition(">=", 12.0, "year"))),
        ("IFA 77386006 | Pregnant (finding) |", (None,)),
        (f"{FEMALE} OR {MALE}", (None,)),
        (f"{AGE} < many years", (None,)),
        ("whatever", (None,)),
    ],
)
def test_rules_are_read_as_published_and_never_guessed(rule, conditions):
    assert parse_rule(rule) == conditions


@pytest.mark.parametrize(
    "context", [{"birth_date": "b"}, {"at": "a"}, {"age": "x", "birth_date": "b", "at": "a"}]
)
def test_half_an_age_is_refused(context):
    with pytest.raises(ValidationError):
        PatientContext(**context)
