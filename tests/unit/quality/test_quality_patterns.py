"""Expectations that name a pattern of the catalog."""

import json

import polars as pl
import pytest

from cohortflow.errors import CatalogError
from cohortflow.model import Catalog
from cohortflow.quality import Outcome, load_suite, render_validation_page, validate_dataset

FRAME = pl.DataFrame(
    {
        "code": ["4548-4", "4548-5", None, "2345-7"],
        "npi": [1234567893, 1234567890, 1234567890, 1245319599],
        "kind": ["lab", "note", "lab", "lab"],
    }
)


def load(tmp_path, *expectations):
    folder = tmp_path / "expectations"
    folder.mkdir(exist_ok=True)
    (folder / "demo.json").write_text(json.dumps({"name": "demo", "expectations": expectations}))
    return load_suite(Catalog(tmp_path), "demo")


def expect(column, pattern, **kwargs):
    return {
        "type": "expect_column_values_to_match_pattern",
        "kwargs": {"column": column, "pattern": pattern, **kwargs},
        "severity": "warning",
    }


LABS = {"type": "comparison", "column": {"name": "kind"}, "operator": "==", "parameter": "lab"}


def test_check_digits_are_verified_and_nulls_left_out(tmp_path):
    suite = load(
        tmp_path,
        expect("code", "loinc"),
        expect("code", "loinc", mostly=0.6),
        expect("code", "loinc", row_condition=LABS),
        expect("npi", "npi"),
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "code"}, "severity": "warning"},
    )
    report = validate_dataset(FRAME, suite, "labs", catalog=Catalog(tmp_path))
    assert [(item.outcome, item.unexpected_count, item.evaluated_rows) for item in report.results] == [
        (Outcome.FAILED, 1, 4),
        (Outcome.PASSED, 1, 4),
        (Outcome.PASSED, 0, 3),
        (Outcome.FAILED, 2, 4),
        (Outcome.FAILED, 1, 4),
    ]
    assert report.results[0].columns == ("code",)
    assert report.results[0].type == "expect_column_values_to_match_pattern"
    assert report.results[0].description == "is a loinc"
    assert "4548-5" not in render_validation_page(report)


def test_patterns_of_the_catalog_are_known(tmp_path):
    (tmp_path / "patterns").mkdir()
    (tmp_path / "patterns/own.yaml").write_text(
        "patterns:\n  - name: four\n    title: Four\n    kind: code\n    phi: SAFE_CODE\n    source: ours\n"
        "    regex: '45[0-9]{2}-[0-9]'\n    examples:\n      valid: [4500-1]\n      invalid: ['1']\n"
        "      in_text: [{text: a 4500-1, finds: [4500-1]}]\n"
    )
    suite = load(tmp_path, expect("code", "four"))
    report = validate_dataset(FRAME, suite, "labs", catalog=Catalog(tmp_path))
    assert report.results[0].unexpected_count == 1


def test_an_unknown_pattern_is_refused_before_any_data_are_read(tmp_path):
    with pytest.raises(CatalogError, match="Did you mean 'loinc'") as caught:
        load(tmp_path, expect("code", "loinc"), expect("code", "lionc"))
    assert caught.value.place.endswith("demo.json, expectations.1")
    with pytest.raises(CatalogError, match="needs pattern"):
        load(tmp_path, {"type": "expect_column_values_to_match_pattern", "kwargs": {"column": "code"}})
