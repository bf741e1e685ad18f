import polars as pl
import pytest

from cohortflow.errors import CoverageError, StudyError
from cohortflow.model import PhiClass
from cohortflow.terminology import (
    CodeMapping,
    check_coverage,
    map_codes,
    mapped_columns,
    measure_coverage,
    parse_concept_map,
)

SNOMED = "http://snomed.info/sct"
ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
LOCAL = "https://lab.example.org/codes"
EQUIVALENT, NARROWER, BROADER = (
    "equivalent",
    "source-is-narrower-than-target",
    "source-is-broader-than-target",
)


def make_map(name, source, target, elements, version="1"):
    element = [
        {"code": code, "target": [{"code": c, "display": f"d {c}", "relationship": r} for c, r in targets]}
        if targets
        else {"code": code, "noMap": True}
        for code, targets in elements.items()
    ]
    data = {
        "resourceType": "ConceptMap",
        "version": version,
        "group": [{"source": source, "target": target, "element": element}],
    }
    return parse_concept_map(data, name=name, place=f"{name}.json")


MAP = make_map(
    "icd",
    SNOMED,
    ICD10CM,
    {
        "44054006": [("E11.9", BROADER), ("E11.8", NARROWER), ("E11.69", NARROWER)],
        "301011002": [("N39.0", NARROWER), ("B96.20", NARROWER)],
        "59621000": [("I10", EQUIVALENT)],
        "160903007": [],
    },
)
BEST = CodeMapping(maps=("icd",), prefix="icd10cm")
ALL = CodeMapping(maps=("icd",), prefix="icd10cm", cardinality="all")


def frame(*rows):
    return pl.LazyFrame(rows, schema={"code_system": pl.String, "code": pl.String}, orient="row")


def run(rows, mapping=BEST, maps=(MAP,)):
    return map_codes(frame(*rows), mapping, maps).collect()


def test_each_row_gets_its_target_or_the_reason_why_not():
    result = run(
        [
            ("SNOMED", "59621000"),
            (SNOMED, "44054006"),
            ("ICD10CM", "I10"),
            (ICD10CM, "e1122"),
            (SNOMED, "160903007"),
            (SNOMED, "999999999"),
            (SNOMED, "NA"),
            (LOCAL, "HTN"),
            (None, "59621000"),
            (SNOMED, None),
            (SNOMED, " "),
            (ICD10CM, "JOHN SMITH"),
        ]
    )
    assert result.drop("code_system", "code").rows() == [
        ("I10", ICD10CM, "d I10", EQUIVALENT, "icd|1", None),
        ("E11.8", ICD10CM, "d E11.8", NARROWER, "icd|1", None),
        ("I10", ICD10CM, "d I10", EQUIVALENT, "identity", None),
        ("E11.22", ICD10CM, None, EQUIVALENT, "identity", None),
        (None, None, None, None, None, "no target"),
        (None, None, None, None, None, "code not in map"),
        (None, None, None, None, None, "code not in map"),
        (None, None, None, None, None, "system not in map"),
        (None, None, None, None, None, "system not in map"),
        (None, None, None, None, None, "no source code"),
        (None, None, None, None, None, "no source code"),
        (None, None, None, None, None, "code not in map"),
    ]


def test_source_columns_and_their_values_stay_as_they_were():
    rows = [("SNOMED", "59621000"), (None, " x "), (LOCAL, "HTN")]
    assert run(rows).select("code_system", "code").rows() == rows


def test_all_gives_a_row_for_each_target_best_first_and_keeps_unmapped_rows():
    result = run([(SNOMED, "44054006"), (LOCAL, "x"), (SNOMED, "301011002")], ALL)
    assert result["icd10cm_code"].to_list() == ["E11.8", "E11.69", "E11.9", None, "N39.0", "B96.20"]


def test_the_first_map_with_a_target_is_used():
    site = make_map("site", SNOMED, ICD10CM, {"59621000": [("I15.9", BROADER)], "44054006": []}, version="7")
    mapping = CodeMapping(maps=("site", "icd"), prefix="icd10cm", cardinality="all")
    result = run([(SNOMED, "59621000"), (SNOMED, "160903007"), (SNOMED, "44054006")], mapping, (site, MAP))
    assert result.select("icd10cm_code", "icd10cm_map", "icd10cm_unmapped_reason").rows() == [
        ("I15.9", "site|7", None),
        (None, None, "no target"),
        ("E11.8", "icd|1", None),
        ("E11.69", "icd|1", None),
        ("E11.9", "icd|1", None),
    ]


def test_in_a_map_within_one_system_an_unmapped_product_is_no_ingredient():
    ingredients = make_map("rx", RXNORM, RXNORM, {"861007": [("6809", NARROWER)]})
    mapping = CodeMapping(maps=("rx",), prefix="ingredient")
    result = run([(RXNORM, "861007"), (RXNORM, "6809"), (RXNORM, "314076")], mapping, (ingredients,))
    assert result.select("ingredient_code", "ingredient_map", "ingredient_unmapped_reason").rows() == [
        ("6809", "rx|1", None),
        ("6809", "identity", None),
        (None, None, "code not in map"),
    ]


def test_columns_of_the_view_named_like_those_of_a_map_do_no_harm():
    view = pl.LazyFrame(
        {
            "code": ["59621000"],
            "code_system": [SNOMED],
            "map": ["m"],
            "relationship": ["r"],
            "target_code": ["t"],
            "source_system": ["s"],
        }
    )
    result = map_codes(view, BEST, [MAP]).collect()
    assert result.select("map", "relationship", "target_code", "source_system").row(0) == ("m", "r", "t", "s")
    assert result["icd10cm_code"].to_list() == ["I10"]


def test_the_added_columns_are_those_declared_and_safe():
    columns = mapped_columns(BEST)
    assert run([]).columns == ["code_system", "code", *(column.name for column in columns)]
    assert run([]).schema["icd10cm_code"] == pl.String
    assert {column.phi for column in columns} == {PhiClass.SAFE_CODE}


@pytest.mark.parametrize(
    ("mapping", "maps", "word"),
    [
        (CodeMapping(maps=("icd",), prefix="x", code="cod"), (MAP,), "'cod'"),
        (CodeMapping(maps=("icd",), prefix="x", system="sys"), (MAP,), "'sys'"),
        (CodeMapping(maps=("icd", "other"), prefix="x"), (MAP,), "other"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(mapping, maps, word):
    with pytest.raises(StudyError, match=word):
        run([(SNOMED, "1")], mapping, maps)


def test_a_prefix_that_would_replace_a_column_is_refused():
    with pytest.raises(StudyError, match="x_code"):
        map_codes(
            frame().with_columns(pl.lit("1").alias("x_code")), CodeMapping(maps=("icd",), prefix="x"), [MAP]
        )


COVERAGE_ROWS = [
    *[("SNOMED", "59621000")] * 3,
    *[(SNOMED, "44054006")] * 2,
    (ICD10CM, "I10"),
    *[(SNOMED, "195967001")] * 4,
    (ICD10CM, "JOHN SMITH"),
    *[(LOCAL, "Smith, John 1950-01-01")] * 2,
    ("Smith, John", "17"),
    (None, "17"),
    (SNOMED, None),
]


@pytest.mark.parametrize("mapping", [BEST, ALL])
def test_coverage_counts_source_rows_and_codes(mapping):
    coverage = measure_coverage(map_codes(frame(*COVERAGE_ROWS), mapping, [MAP]), mapping)
    assert (coverage.rows, coverage.rows_with_code, coverage.rows_mapped) == (16, 15, 6)
    assert coverage.share == pytest.approx(0.4)
    assert {(s.system, s.outcome, s.rows, s.codes) for s in coverage.systems} == {
        (SNOMED, "mapped", 5, 2),
        (SNOMED, "code not in map", 4, 1),
        (SNOMED, "no source code", 1, 0),
        (ICD10CM, "identity", 1, 1),
        (ICD10CM, "code not in map", 1, 1),
        (LOCAL, "system not in map", 2, 1),
        ("(not a URI)", "system not in map", 1, 1),
        ("(none)", "system not in map", 1, 1),
    }


def test_coverage_lists_unmapped_codes_of_published_systems_and_no_text():
    coverage = measure_coverage(map_codes(frame(*COVERAGE_ROWS), BEST, [MAP]), BEST)
    assert [(c.system, c.code, c.rows) for c in coverage.top_unmapped] == [(SNOMED, "195967001", 4)]
    assert "Smith" not in str(coverage.to_dict())
    assert "SMITH" not in str(coverage.to_dict())


def test_coverage_below_the_minimum_fails_with_its_reasons():
    coverage = measure_coverage(map_codes(frame(*COVERAGE_ROWS), BEST, [MAP]), BEST)
    check_coverage(coverage, 0.4)
    check_coverage(coverage, None)
    with pytest.raises(CoverageError) as caught:
        check_coverage(coverage, 0.41)
    assert "40.0% of 15 rows" in caught.value.message
    assert "code not in map: 5, system not in map: 4" in caught.value.message
    assert "Smith" not in str(caught.value)


def test_data_without_codes_have_no_coverage_to_miss():
    coverage = measure_coverage(map_codes(frame((SNOMED, None)), BEST, [MAP]), BEST)
    assert coverage.share is None
    check_coverage(coverage, 1.0)
