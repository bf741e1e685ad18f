import polars as pl
import pytest

from cohortflow.terminology import (
    STANDARD_SYSTEMS,
    canonical_code,
    canonical_system,
    code_expr,
    system_expr,
    well_formed_expr,
)

SNOMED = "http://snomed.info/sct"
ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
CVX = "http://hl7.org/fhir/sid/cvx"

SPELLINGS = [
    ("http://snomed.info/sct", SNOMED),
    ("https://www.snomed.info/sct/", SNOMED),
    ("http://snomed.info/sct|http://snomed.info/sct/731000124108/version/20250901", SNOMED),
    ("http://snomed.info/sct/731000124108", SNOMED),
    ("urn:oid:2.16.840.1.113883.6.96", SNOMED),
    ("2.16.840.1.113883.6.96", SNOMED),
    ("SNOMED CT", SNOMED),
    ("SCT", SNOMED),
    (" snomed-ct ", SNOMED),
    ("http://loinc.org/", "http://loinc.org"),
    ("LN", "http://loinc.org"),
    ("ICD10CM", ICD10CM),
    ("icd-10-cm", ICD10CM),
    ("I10C", ICD10CM),
    ("URN:OID:2.16.840.1.113883.6.90", ICD10CM),
    ("ICD-10", "http://hl7.org/fhir/sid/icd-10"),
    ("RXNORM", "http://www.nlm.nih.gov/research/umls/rxnorm"),
    ("https://www.nlm.nih.gov/research/umls/rxnorm", "http://www.nlm.nih.gov/research/umls/rxnorm"),
    ("urn:oid:2.16.840.1.113883.12.292", CVX),
    ("urn:oid:1.2.840.114350.1.13.0.1.7.2.696580", "urn:oid:1.2.840.114350.1.13.0.1.7.2.696580"),
    ("1.2.840.114350.1.13.0.1.7.2.696580", "urn:oid:1.2.840.114350.1.13.0.1.7.2.696580"),
    ("https://Lab.example.org/codes", "https://Lab.example.org/codes"),
]


@pytest.mark.parametrize(("spelling", "uri"), SPELLINGS)
def test_every_spelling_of_a_system_is_one(spelling, uri):
    assert canonical_system(spelling) == uri


def test_the_expression_agrees_with_the_function():
    frame = pl.DataFrame({"system": [spelling for spelling, _ in SPELLINGS]})
    assert frame.select(system_expr(pl.col("system"))).to_series().to_list() == [uri for _, uri in SPELLINGS]


@pytest.mark.parametrize(
    ("system", "code", "canonical"),
    [
        (ICD10CM, "E1165", "E11.65"),
        (ICD10CM, " e11.65 ", "E11.65"),
        (ICD10CM, "I10", "I10"),
        (ICD10CM, "E11.", "E11"),
        (ICD10CM, "S93409A", "S93.409A"),
        (CVX, "3", "03"),
        (CVX, "140", "140"),
        (SNOMED, " 44054006 ", "44054006"),
        ("http://loinc.org", "lp31755-9", "LP31755-9"),
        ("https://lab.example.org/codes", "cre.1", "cre.1"),
    ],
)
def test_a_code_has_one_spelling(system, code, canonical):
    assert canonical_code(system, code) == canonical
    frame = pl.DataFrame({"system": [system], "code": [code]})
    assert frame.select(code_expr(pl.col("system"), pl.col("code"))).item() == canonical


def test_null_and_blank_are_no_code_and_no_system():
    frame = pl.DataFrame({"system": [None, "  "], "code": [None, " "]}, schema_overrides={"code": pl.String})
    result = frame.select(
        system_expr(pl.col("system")).alias("system"),
        code_expr(pl.col("system"), pl.col("code")).alias("code"),
    )
    assert result.rows() == [(None, None), (None, None)]


def test_text_under_the_name_of_a_published_system_is_not_a_code():
    rows = [
        (SNOMED, "44054006", True),
        (SNOMED, "diabetes, saw Dr Miller", False),
        (SNOMED, "44054006; seen 3 May", False),
        (ICD10CM, "E11.65", True),
        (ICD10CM, "SMITH", False),
        ("http://loinc.org", "4548-4", True),
        ("http://loinc.org", "555-12-1234", False),
        ("https://lab.example.org/codes", "CRE", False),
        (None, "E11", False),
    ]
    frame = pl.DataFrame(rows, schema=["system", "code", "expected"], orient="row")
    result = frame.select(well_formed_expr(pl.col("system"), pl.col("code"))).to_series()
    assert result.to_list() == frame["expected"].to_list()


@pytest.mark.parametrize("system", STANDARD_SYSTEMS.values(), ids=lambda system: system.title)
def test_no_other_system_claims_a_spelling(system):
    for name in (system.uri, system.oid, f"urn:oid:{system.oid}", *system.names):
        assert canonical_system(name) == system.uri
