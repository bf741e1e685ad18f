"""Validation with Great Expectations, and the page of its results."""

import datetime as dt
import gc
import json
import logging
import socket
import subprocess
import sys
import weakref
from pathlib import Path

import polars as pl
import pytest

from cohortflow.errors import CatalogError, ValidationFailedError
from cohortflow.model import Catalog
from cohortflow.quality import (
    Outcome,
    Severity,
    ValidationReport,
    bind_suite,
    check,
    load_suite,
    render_validation_page,
    validate_dataset,
)
from cohortflow.quality.suite import ExpectationSuite
from html_outline import Outline, assert_self_contained

GOLDEN = Path(__file__).parents[2] / "golden" / "validation_page.html"
SECRETS = ("SECRET-NAME", "SECRET-CITY", "1911-11-11", "987654", "SECRET-TEXT")


def suite(*expectations):
    return ExpectationSuite.model_validate({"name": "demo", "expectations": expectations})


def expect(kind, severity="critical", reason=None, **kwargs):
    meta = {"reason": reason} if reason else {}
    return {"type": f"expect_{kind}", "kwargs": kwargs, "severity": severity, "meta": meta}


FRAME = pl.DataFrame(
    {
        "patient_id": ["a", "a", "b", None, "SECRET-NAME"],
        "gender": ["male", "female", "SECRET-CITY", "other", None],
        "birth_date": [
            dt.date(1990, 1, 1),
            dt.date(1911, 11, 11),
            None,
            dt.date(2001, 2, 3),
            dt.date(2001, 2, 3),
        ],
        "seen_at": [dt.datetime(2020, 1, day, tzinfo=dt.UTC) for day in range(1, 6)],
        "left_at": [dt.datetime(2020, 1, 3, tzinfo=dt.UTC)] * 4 + [None],
        "value": [1.0, 2.0, 987654.0, None, 4.0],
        "code": ["height", "height", "weight", "weight", "weight"],
        "note": ["SECRET-TEXT"] * 5,
    }
)

FAILING = suite(
    expect("table_row_count_to_be_between", "warning", min_value=10),
    expect("column_values_to_not_be_null", column="patient_id", reason="Rows need a patient."),
    expect("column_values_to_be_unique", column="patient_id"),
    expect("column_values_to_be_in_set", "warning", column="gender", value_set=["male", "female", "other"]),
    expect("column_values_to_be_between", "info", column="birth_date", min_value="1920-01-01"),
    expect("column_values_to_be_between", "warning", column="value", min_value=0, max_value=300),
    expect(
        "column_pair_values_a_to_be_greater_than_b",
        "warning",
        column_A="left_at",
        column_B="seen_at",
        or_equal=True,
    ),
    expect("compound_columns_to_be_unique", column_list=["patient_id", "code"]),
    expect("column_values_to_be_null", "warning", column="note"),
    expect("column_values_to_match_regex", "warning", column="note", regex="^[a-z]+"),
)


@pytest.fixture(scope="module")
def report():
    return validate_dataset(FRAME, FAILING, "demo_dataset")


def by_type(report):
    return {(item.type.removeprefix("expect_"), item.columns): item for item in report.results}


def test_verdicts_and_counts(report):
    found = {
        key: (item.outcome, item.unexpected_count, item.evaluated_rows)
        for key, item in by_type(report).items()
    }
    assert found == {
        ("table_row_count_to_be_between", ()): (Outcome.FAILED, None, None),
        ("column_values_to_not_be_null", ("patient_id",)): (Outcome.FAILED, 1, 5),
        ("column_values_to_be_unique", ("patient_id",)): (Outcome.FAILED, 2, 5),
        ("column_values_to_be_in_set", ("gender",)): (Outcome.FAILED, 1, 5),
        ("column_values_to_be_between", ("birth_date",)): (Outcome.FAILED, 1, 5),
        ("column_values_to_be_between", ("value",)): (Outcome.FAILED, 1, 5),
        ("column_pair_values_a_to_be_greater_than_b", ("left_at", "seen_at")): (Outcome.FAILED, 1, 5),
        ("compound_columns_to_be_unique", ("patient_id", "code")): (Outcome.FAILED, 2, 5),
        ("column_values_to_be_null", ("note",)): (Outcome.FAILED, 5, 5),
        ("column_values_to_match_regex", ("note",)): (Outcome.FAILED, 5, 5),
    }
    assert report.rows == 5
    assert report.results[0].observed_count == 5
    assert not report.success


def test_a_critical_failure_stops_the_release_and_names_expectations_and_columns(report):
    with pytest.raises(ValidationFailedError) as caught:
        check(report)
    text = str(caught.value)
    assert text.startswith("demo_dataset: 3 critical expectations of suite 'demo' failed:")
    assert "expect_column_values_to_be_unique on patient_id (2 of 5 rows)" in text
    assert "expect_compound_columns_to_be_unique on patient_id, code" in text
    assert "gender" not in text


def test_no_value_of_the_data_leaves_the_validation(report, caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        again = validate_dataset(FRAME, FAILING, "demo_dataset")
    with pytest.raises(ValidationFailedError) as caught:
        check(again)
    printed = capfd.readouterr()
    texts = [
        report.model_dump_json(),
        repr(report),
        render_validation_page(report),
        str(caught.value),
        caplog.text,
        printed.out,
        printed.err,
    ]
    for secret in SECRETS:
        assert not any(secret in text for text in texts)
    assert "Calculating Metrics" not in printed.err


def test_the_report_survives_json(report):
    document = json.loads(json.dumps(report.to_dict()))
    assert document["success"] is False
    assert ValidationReport.from_dict(document) == report


def test_warnings_do_not_stop_a_release():
    warned = validate_dataset(
        FRAME, suite(expect("column_values_to_be_unique", "warning", column="patient_id")), "demo"
    )
    check(warned)
    assert warned.success
    assert len(warned.broken(Severity.WARNING)) == 1


def test_a_row_condition_limits_the_rows_that_are_looked_at():
    condition = {"type": "comparison", "column": {"name": "code"}, "operator": "IN", "parameter": ["height"]}
    ranged = expect(
        "column_values_to_be_between", column="value", min_value=0, max_value=300, row_condition=condition
    )
    item = validate_dataset(FRAME, suite(ranged), "demo").results[0]
    assert (item.outcome, item.evaluated_rows, item.unexpected_count) == (Outcome.PASSED, 2, 0)


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ({"type": "comparison", "column": {"name": "value"}, "operator": ">=", "parameter": 2}, 3),
        ({"type": "comparison", "column": {"name": "code"}, "operator": "!=", "parameter": "height"}, 3),
        (
            {"type": "comparison", "column": {"name": "code"}, "operator": "NOT_IN", "parameter": ["weight"]},
            2,
        ),
        ({"type": "nullity", "column": {"name": "value"}, "is_null": True}, 1),
        (
            {
                "type": "or",
                "conditions": [
                    {"type": "nullity", "column": {"name": "value"}, "is_null": True},
                    {
                        "type": "comparison",
                        "column": {"name": "code"},
                        "operator": "==",
                        "parameter": "height",
                    },
                ],
            },
            3,
        ),
    ],
)
def test_every_kind_of_row_condition(condition, rows):
    conditional = expect("column_values_to_not_be_null", column="note", row_condition=condition)
    assert validate_dataset(FRAME, suite(conditional), "demo").results[0].evaluated_rows == rows


def test_what_cannot_be_evaluated_is_a_failure_without_details():
    wrong = suite(expect("column_values_to_be_between", column="note", min_value=1, max_value=3))
    report = validate_dataset(FRAME, wrong, "demo")
    assert report.results[0].outcome is Outcome.ERROR
    assert not any(secret in report.model_dump_json() for secret in SECRETS)
    with pytest.raises(ValidationFailedError, match=r"on note \(could not be evaluated\)"):
        check(report)


def test_a_bound_that_is_no_date_is_refused():
    wrong = suite(expect("column_values_to_be_between", column="birth_date", min_value="last year"))
    with pytest.raises(CatalogError, match="'last year' is no date"):
        validate_dataset(FRAME, wrong, "demo")


def test_datetimes_compare_to_dates_of_the_suite():
    ranged = suite(expect("column_values_to_be_between", column="seen_at", min_value="2020-01-02"))
    assert validate_dataset(FRAME, ranged, "demo").results[0].unexpected_count == 1


def test_what_a_policy_took_away_is_not_applicable_and_shown():
    demo = suite(
        expect("column_values_to_not_be_null", column="gender", mostly=0.5),
        expect("column_values_to_not_be_null", column="birth_date"),
    )
    frame = FRAME.drop("birth_date")
    report = validate_dataset(frame, bind_suite(demo, frame.columns, known=["birth_date"]), "demo")
    assert [item.outcome for item in report.results] == [Outcome.PASSED, Outcome.NOT_APPLICABLE]
    assert report.results[1].reason == "The dataset was made without birth_date."
    assert report.success
    assert "not applicable" in render_validation_page(report)


@pytest.mark.parametrize("name", Catalog.default().names("views"))
def test_shipped_suites_accept_an_empty_dataset(name):
    loaded = load_suite(Catalog.default(), name)
    columns = sorted({column for item in loaded.expectations for column in item.needed_columns})
    schema = {column: column_type(column) for column in columns}
    report = validate_dataset(pl.DataFrame(schema=schema), loaded, name)
    assert report.rows == 0
    assert report.success
    assert [item.type for item in report.results if item.broken] == ["expect_table_row_count_to_be_between"]


def column_type(name):
    if name.endswith("_at"):
        return pl.Datetime("us", "UTC")
    if name.endswith("_year"):
        return pl.Int64
    return {"birth_date": pl.Date, "value_quantity": pl.Float64}.get(name, pl.String)


def test_a_parquet_file_is_read_by_its_path(tmp_path):
    path = tmp_path / "part.parquet"
    FRAME.write_parquet(path)
    assert validate_dataset(path, FAILING, "demo_dataset") == validate_dataset(FRAME, FAILING, "demo_dataset")


def test_only_named_columns_are_read():
    def explode(_):
        raise AssertionError

    frame = FRAME.lazy().with_columns(pl.col("note").map_batches(explode, return_dtype=pl.String))
    demo = suite(expect("column_values_to_not_be_null", column="code"))
    assert validate_dataset(frame, demo, "demo").success


def test_nothing_is_sent_anywhere(monkeypatch):
    def refuse(*_args, **_kwargs):
        pytest.fail("a network connection was attempted")

    monkeypatch.delenv("GX_ANALYTICS_ENABLED", raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert validate_dataset(FRAME, FAILING, "demo").rows == 5


def test_the_warnings_of_the_process_stay_where_they_were():
    code = (
        "import warnings, polars as pl; before = warnings.showwarning;"
        "from cohortflow.quality import ExpectationSuite, validate_dataset;"
        "suite = ExpectationSuite(name='s', expectations=());"
        "validate_dataset(pl.DataFrame({'a': [1]}), suite, 's');"
        "print(warnings.showwarning is before)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "True"
    assert ran.stderr == ""


def test_the_data_are_not_kept_after_the_validation(monkeypatch):
    from cohortflow.quality import validate

    kept = []
    load = validate._load

    def remember(*args):
        frame = load(*args)
        kept.append(weakref.ref(frame))
        return frame

    monkeypatch.setattr(validate, "_load", remember)
    validate_dataset(FRAME, FAILING, "demo")
    gc.collect()
    assert [reference() for reference in kept] == [None]


def test_the_page_is_accessible_and_self_contained(report):
    page = render_validation_page(report)
    assert_self_contained(page)
    assert len([item for item in Outline(page).find("th") if "scope" in item]) >= 6 + 5


def test_the_page_says_the_verdict_first(report):
    body = render_validation_page(report).split("<body>")[1]
    assert body.index("Not fit to publish") < body.index("<table>")
    assert "3 critical expectations failed." in body


def test_the_page_escapes_what_the_suite_says():
    named = suite(expect("column_values_to_match_regex", column="code", regex="<b>&", reason="<script>"))
    page = render_validation_page(validate_dataset(FRAME, named, "<demo>"))
    assert "<script>" not in page
    assert "&lt;b&gt;&amp;" in page
    assert "<demo>" not in page


def test_the_page_stays_as_agreed(report):
    page = render_validation_page(report.model_copy(update={"engine": "great_expectations"}))
    assert page == GOLDEN.read_text(encoding="utf-8"), "see tests/golden/validation_page.html"
