"""Acceptance case 25: what a map does to the rows of a study.

Unmapped, retired and literal "NA" codes keep their row; one-to-many gives N rows that share one source id;
coverage below the threshold fails; the version of the vocabulary is recorded.
"""

import polars as pl
import pytest

from cohortflow.errors import CoverageError
from cohortflow.terminology import CodeMapping, check_coverage, map_codes, measure_coverage
from cohortflow.terminology.map_lookup import MapContent
from cohortflow.terminology.map_table import MapTable
from cohortflow.terminology.tables import CONCEPTS, MAPS

SNOMED, ICD10CM = "http://snomed.info/sct", "http://hl7.org/fhir/sid/icd-10-cm"
UTI, DIABETES, RETIRED, UNKNOWN = "301011002", "44054006", "190372001", "10000006"
ROWS = [
    ("c1", SNOMED, DIABETES),
    ("c2", SNOMED, UNKNOWN),
    ("c3", SNOMED, RETIRED),
    ("c4", SNOMED, "NA"),
    ("c5", "http://hospital.example.org/codes", "NA"),
    ("c6", SNOMED, UTI),
    ("c7", None, None),
    ("c8", SNOMED, DIABETES),
]
MAP = MapTable(
    "snomed_to_icd10",
    "snomed_to_icd10|20260301",
    pl.DataFrame(
        [
            (SNOMED, DIABETES, "E11.9", "related-to", 1),
            (SNOMED, UTI, "N39.0", "source-is-narrower-than-target", 2),
            (SNOMED, UTI, "B96.20", "source-is-narrower-than-target", 3),
        ],
        schema=["source_system", "source_code", "target_code", "relationship", "order"],
        orient="row",
    )
    .with_columns(
        map=pl.lit("snomed_to_icd10"),
        version=pl.lit("20260301"),
        target_system=pl.lit(ICD10CM),
        target_display=pl.lit(None, pl.String),
        group=pl.lit(1),
        priority=pl.lit(1),
        rule=pl.lit(None, pl.String),
        advice=pl.lit(None, pl.String),
    )
    .select(MAPS.names())
    .cast(dict(MAPS)),
)
CONTENT = MapContent(
    concepts=pl.LazyFrame(
        [
            (SNOMED, "20260301", DIABETES, "Diabetes mellitus type 2", True, None, None),
            (SNOMED, "20260301", RETIRED, "Type II diabetes", False, None, DIABETES),
        ],
        schema=CONCEPTS,
        orient="row",
    )
)
ALL = CodeMapping(
    maps=("snomed_to_icd10",), prefix="icd10cm", cardinality="all", replace_retired=True, min_coverage=0.6
)


def run(mapping=ALL):
    frame = pl.LazyFrame(
        ROWS, schema=dict.fromkeys(("condition_id", "code_system", "code"), pl.String), orient="row"
    )
    return map_codes(frame, mapping, [MAP], content=CONTENT).collect()


def test_25_every_source_row_stays_with_its_values():
    result = run(ALL.model_copy(update={"cardinality": "best"}))
    assert result.select("condition_id", "code_system", "code").rows() == ROWS
    assert result.select("condition_id", "icd10cm_code", "icd10cm_unmapped_reason").rows() == [
        ("c1", "E11.9", None),
        ("c2", None, "code not in map"),
        ("c3", "E11.9", None),
        ("c4", None, "code not in map"),
        ("c5", None, "system not in map"),
        ("c6", "N39.0", None),
        ("c7", None, "no source code"),
        ("c8", "E11.9", None),
    ]


def test_25_literal_na_is_a_code_like_any_other():
    text_na = MapTable("na", "na|1", MAP.entries.with_columns(pl.lit("NA").alias("source_code")).head(1))
    result = map_codes(
        pl.LazyFrame({"code_system": [SNOMED, SNOMED], "code": ["NA", None]}),
        CodeMapping(maps=("na",), prefix="to"),
        [text_na],
    ).collect()
    assert result["to_code"].to_list() == ["E11.9", None]


def test_25_a_retired_code_is_mapped_as_its_successor_and_marked():
    result = run().filter(pl.col("condition_id") == "c3")
    assert result.select("code", "icd10cm_code", "icd10cm_replaced").rows() == [(RETIRED, "E11.9", DIABETES)]


def test_25_one_to_many_gives_rows_that_share_one_source_id():
    result = run()
    assert result["condition_id"].to_list() == ["c1", "c2", "c3", "c4", "c5", "c6", "c6", "c7", "c8"]
    assert result.filter(pl.col("condition_id") == "c6")["icd10cm_code"].to_list() == ["N39.0", "B96.20"]


def test_25_coverage_below_the_threshold_fails():
    coverage = measure_coverage(run().lazy(), ALL)
    assert (coverage.rows, coverage.rows_with_code, coverage.rows_mapped) == (8, 7, 4)
    with pytest.raises(CoverageError, match=r"57\.1%"):
        check_coverage(coverage, ALL.min_coverage)
    check_coverage(coverage, 0.5)


def test_25_the_version_of_the_map_is_recorded_in_each_mapped_row():
    result = run()
    mapped = result.filter(pl.col("icd10cm_code").is_not_null())
    assert set(mapped["icd10cm_map"]) == {"snomed_to_icd10|20260301"}
    assert result.filter(pl.col("icd10cm_code").is_null())["icd10cm_map"].null_count() == 4
