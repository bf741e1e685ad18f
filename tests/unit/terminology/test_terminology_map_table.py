"""Maps of loaded terminologies, paths, successors of retired codes, and terms."""

import polars as pl
import pytest

from cohortflow.errors import InputError, StudyError
from cohortflow.terminology import CodeMapping, Relationship, map_codes
from cohortflow.terminology.map_lookup import MapContent
from cohortflow.terminology.map_table import MapTable, compose_maps, compose_relationships, select_map
from cohortflow.terminology.tables import CONCEPTS, MAPS, SYNONYMS

SNOMED = "http://snomed.info/sct"
ICD9, ICD10 = "http://hl7.org/fhir/sid/icd-9-cm", "http://hl7.org/fhir/sid/icd-10-cm"
EQUIVALENT, NARROWER, BROADER, RELATED, NOT_RELATED = (r.value for r in Relationship)


def make_map(name, source, target, *rows, version="1"):
    """Build a map from (source code, target code, relationship)."""
    table = [
        (name, version, source, code, target, to, to and f"d {to}", kind, 1, 1, None, None, i)
        for i, (code, to, kind) in enumerate(rows)
    ]
    return MapTable(name, f"{name}|{version}", pl.DataFrame(table, schema=MAPS, orient="row"))


def run(rows, mapping, maps, **content):
    frame = pl.LazyFrame(rows, schema=dict.fromkeys(("code_system", "code", "text"), pl.String), orient="row")
    return map_codes(frame, mapping, maps, content=MapContent(**content)).collect()


GEM = make_map(
    "gem",
    ICD9,
    ICD10,
    ("250.00", "E11.9", EQUIVALENT),
    ("493.90", "J45.909", NARROWER),
    ("V10", None, NOT_RELATED),
)
ONWARD = make_map(
    "onward",
    ICD10,
    SNOMED,
    ("E11.9", "44054006", BROADER),
    ("E11.9", "73211009", NARROWER),
    ("I10", "59621000", EQUIVALENT),
)


def test_a_path_composes_relationships_and_names_both_versions():
    path = compose_maps([GEM, ONWARD])
    mapping = CodeMapping(maps=(path.name,), prefix="sct", cardinality="all")
    result = run(
        [(ICD9, "250.00", None), (ICD9, "493.90", None), (ICD9, "V10", None), (ICD9, "1", None)],
        mapping,
        [path],
    )
    assert result.select("code", "sct_code", "sct_relationship", "sct_map", "sct_unmapped_reason").rows() == [
        ("250.00", "73211009", NARROWER, "gem|1 > onward|1", None),
        ("250.00", "44054006", BROADER, "gem|1 > onward|1", None),
        ("493.90", None, None, None, "no target"),
        ("V10", None, None, None, "no target"),
        ("1", None, None, None, "code not in map"),
    ]


def test_of_several_ways_to_one_target_the_closest_counts():
    first = make_map("a", ICD9, ICD10, ("1", "A00", RELATED), ("1", "A01", EQUIVALENT))
    second = make_map("b", ICD10, SNOMED, ("A00", "100001", EQUIVALENT), ("A01", "100001", EQUIVALENT))
    entries = compose_maps([first, second]).entries
    assert entries.select("target_code", "relationship").rows() == [("100001", EQUIVALENT)]


@pytest.mark.parametrize(
    ("first", "second", "composed"),
    [
        (EQUIVALENT, NARROWER, NARROWER),
        (BROADER, EQUIVALENT, BROADER),
        (NARROWER, NARROWER, NARROWER),
        (NARROWER, BROADER, RELATED),
        (BROADER, NARROWER, RELATED),
        (RELATED, EQUIVALENT, RELATED),
        (RELATED, NARROWER, RELATED),
        (NOT_RELATED, EQUIVALENT, NOT_RELATED),
    ],
)
def test_relationships_compose_as_documented(first, second, composed):
    assert compose_relationships(Relationship(first), Relationship(second)).value == composed


def test_maps_that_do_not_meet_are_no_path():
    with pytest.raises(StudyError, match="source system"):
        compose_maps([ONWARD, GEM])


def test_a_map_with_rules_can_only_end_a_path():
    ruled = MapTable(
        "gem", "gem|1", GEM.entries.with_columns(pl.lit("IFA 248152002 | Female |").alias("rule"))
    )
    with pytest.raises(StudyError, match="rules"):
        compose_maps([ruled, ONWARD])


CONCEPT_ROWS = [
    (SNOMED, "1", "44054006", "Diabetes mellitus type 2", True, None, None),
    (SNOMED, "1", "190372001", "Type II diabetes (retired)", False, None, "9999991"),
    (SNOMED, "1", "9999991", "Retired between", False, None, "44054006"),
    (SNOMED, "1", "111110001", "Ring a", False, None, "111110002"),
    (SNOMED, "1", "111110002", "Ring b", False, None, "111110001"),
    (ICD10, "1", "E11.9", "Type 2 diabetes mellitus", True, None, None),
    (ICD10, "1", "E11.99", "An older code", False, None, "E11.9"),
]
CONTENT = pl.LazyFrame(CONCEPT_ROWS, schema=CONCEPTS, orient="row")
TO_ICD = make_map("icd", SNOMED, ICD10, ("44054006", "E11.9", BROADER), ("59621000", "I10", EQUIVALENT))
REPLACING = CodeMapping(maps=("icd",), prefix="to", replace_retired=True)


def test_a_retired_code_is_mapped_as_its_last_successor_and_marked():
    rows = [(SNOMED, "190372001", None), ("SCT", " 190372001", None), (SNOMED, "44054006", None)]
    rows += [(ICD10, "E1199", None), (SNOMED, "111110001", None), (SNOMED, "NA", None)]
    result = run(rows, REPLACING, [TO_ICD], concepts=CONTENT)
    assert result.select("to_code", "to_map", "to_replaced", "to_unmapped_reason").rows() == [
        ("E11.9", "icd|1", "44054006", None),
        ("E11.9", "icd|1", "44054006", None),
        ("E11.9", "icd|1", None, None),
        ("E11.9", "identity", "E11.9", None),
        (None, None, None, "code not in map"),
        (None, None, None, "code not in map"),
    ]


def test_without_being_asked_nothing_is_replaced():
    result = run([(SNOMED, "190372001", None)], CodeMapping(maps=("icd",), prefix="to"), [TO_ICD])
    assert result["to_unmapped_reason"].to_list() == ["code not in map"]
    assert "to_replaced" not in result.columns


SYNONYM_ROWS = [
    (SNOMED, "1", "44054006", "Type II diabetes mellitus", "synonym"),
    (SNOMED, "1", "59621000", "Essential hypertension", "preferred"),
    (SNOMED, "1", "73211009", "Sugar", "synonym"),
    (SNOMED, "1", "44054006", "Sugar", "synonym"),
    (ICD10, "1", "J45.909", "Unspecified asthma, uncomplicated", "preferred"),
]
TERMS = pl.LazyFrame(SYNONYM_ROWS, schema=SYNONYMS, orient="row")


def test_a_text_that_is_a_term_of_one_concept_stands_in_for_the_code():
    mapping = CodeMapping(maps=("icd",), prefix="to", text="text")
    rows = [
        (None, None, "TYPE-II  diabetes mellitus"),
        ("local", "X1", "unspecified asthma (uncomplicated)"),
        (None, None, "sugar"),
        (SNOMED, "59621000", "Type II diabetes mellitus"),
        (None, None, "JOHN SMITH"),
        (None, None, None),
    ]
    result = run(rows, mapping, [TO_ICD], synonyms=TERMS)
    assert result.select("to_code", "to_map", "to_unmapped_reason").rows() == [
        ("E11.9", f"term of {SNOMED}|1 > icd|1", None),
        ("J45.909", f"term of {ICD10}|1", None),
        (None, None, "no source code"),
        ("I10", "icd|1", None),
        (None, None, "no source code"),
        (None, None, "no source code"),
    ]


@pytest.mark.parametrize("setting", [{"replace_retired": True}, {"text": "text"}])
def test_what_needs_a_terminology_says_so(setting):
    with pytest.raises(StudyError, match="terminology"):
        run([(SNOMED, "1", None)], CodeMapping(maps=("icd",), prefix="to", **setting), [TO_ICD])


def test_a_map_is_taken_from_a_release_by_name():
    tables = {"maps": pl.concat([GEM.entries, ONWARD.entries]).lazy()}
    chosen = select_map("onward", tables, called="terminology:onward")
    assert (chosen.name, chosen.label, chosen.entries.height) == ("terminology:onward", "onward|1", 3)
    with pytest.raises(InputError, match="no map"):
        select_map("other", tables)
    mixed = {"maps": pl.concat([GEM.entries, GEM.entries.with_columns(pl.lit("2").alias("version"))]).lazy()}
    with pytest.raises(InputError, match="several versions"):
        select_map("gem", mixed)


def test_ndc_is_one_code_with_and_without_hyphens():
    ndc = "http://hl7.org/fhir/sid/ndc"
    products = make_map(
        "ndc", ndc, "http://www.nlm.nih.gov/research/umls/rxnorm", ("00002751001", "261551", EQUIVALENT)
    )
    spellings = ["00002751001", "0002-7510-01", "00002-7510-01", "0002751001"]
    result = run(
        [("NDC", code, None) for code in spellings], CodeMapping(maps=("ndc",), prefix="to"), [products]
    )
    # Ten digits without hyphens do not tell where the zero is missing.
    assert result["to_code"].to_list() == ["261551", "261551", "261551", None]
