"""Expectation suites of the catalog."""

import inspect
import json
import subprocess
import sys

import pytest

from cohortflow.errors import CatalogError
from cohortflow.fhir.views import analyze_view
from cohortflow.model import Catalog
from cohortflow.quality import Severity, bind_suite, load_suite
from cohortflow.quality.expectation_types import EXPECTATION_TYPES, MATCH_PATTERN
from cohortflow.quality.suite import Expectation, ExpectationSuite

VIEWS = Catalog.default().names("views")


def write_suite(tmp_path, *expectations, name="demo"):
    folder = tmp_path / "expectations"
    folder.mkdir()
    (folder / "demo.json").write_text(json.dumps({"name": name, "expectations": expectations}))
    return Catalog(tmp_path)


def not_null(column):
    return {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": column}}


def test_the_catalog_has_a_suite_for_every_view():
    assert set(VIEWS) <= set(Catalog.default().names("expectations"))


@pytest.mark.parametrize("name", VIEWS)
def test_shipped_suites_demand_pseudonyms_and_keys(name):
    suite = load_suite(Catalog.default(), name)
    critical = {
        (item.type, item.columns) for item in suite.expectations if item.severity is Severity.CRITICAL
    }
    columns = {column.name: column for column in analyze_view(Catalog.default().load("views", name)).columns}
    key = next(column.name for column in columns.values() if column.tags.get("cohortflow/role") == "key")
    for required in {key, "patient_id"} & set(columns):
        assert ("expect_column_values_to_not_be_null", (required,)) in critical
        assert ("expect_column_values_to_match_regex", (required,)) in critical


def test_the_severity_is_critical_unless_the_suite_says_otherwise(tmp_path):
    catalog = write_suite(tmp_path, not_null("a"))
    assert load_suite(catalog, "demo").expectations[0].severity is Severity.CRITICAL


@pytest.mark.parametrize(
    ("expectation", "message"),
    [
        (
            {"type": "expect_column_values_to_be_uniqe", "kwargs": {"column": "a"}},
            "did you mean 'expect_column_values_to_be_unique'?",
        ),
        (
            {"type": "expect_column_max_to_be_between", "kwargs": {"column": "a"}},
            "unknown expectation type",
        ),
        (
            {"type": "expect_column_values_to_be_between", "kwargs": {"column": "a", "min_vale": 1}},
            "takes no argument 'min_vale'; did you mean 'min_value'?",
        ),
        ({"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "a"}}, "needs value_set"),
        (
            {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "a", "regex": "("}},
            "valid regular expression",
        ),
        (
            {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "a", "mostly": 95}},
            "less than or equal to 1",
        ),
        ({**not_null("a"), "severity": "fatal"}, "'critical', 'warning' or 'info'"),
        ({**not_null("a"), "kwarg": {}}, "Extra inputs are not permitted"),
        (
            {
                "type": "expect_column_values_to_not_be_null",
                "kwargs": {"column": "a", "row_condition": 'col("b") == 1'},
            },
            "row_condition",
        ),
    ],
)
def test_a_malformed_expectation_is_refused_with_its_place(tmp_path, expectation, message):
    catalog = write_suite(tmp_path, not_null("a"), expectation)
    with pytest.raises(CatalogError) as caught:
        load_suite(catalog, "demo")
    assert message in caught.value.message
    assert "expectations.1" in caught.value.message
    assert caught.value.place.endswith("demo.json")


def test_a_suite_is_called_as_its_file(tmp_path):
    catalog = write_suite(tmp_path, name="other")
    with pytest.raises(CatalogError, match="calls itself 'other'"):
        load_suite(catalog, "demo")


def test_a_column_that_no_policy_could_give_is_refused_with_the_nearest_name():
    suite = ExpectationSuite(name="demo", expectations=(Expectation.model_validate(not_null("gendre")),))
    with pytest.raises(CatalogError) as caught:
        bind_suite(suite, ["patient_id", "gender"], known=["birth_date"])
    assert "'gendre'" in caught.value.message
    assert caught.value.remedy == "Did you mean 'gender'?"


def test_expectations_on_columns_that_a_policy_took_away_do_not_apply():
    conditional = Expectation.model_validate(
        {
            "type": "expect_column_values_to_not_be_null",
            "kwargs": {
                "column": "gender",
                "row_condition": {"type": "nullity", "column": {"name": "birth_date"}, "is_null": False},
            },
        }
    )
    suite = ExpectationSuite(
        name="demo",
        expectations=(
            Expectation.model_validate(not_null("gender")),
            Expectation.model_validate(not_null("birth_date")),
            conditional,
        ),
    )
    bound = bind_suite(suite, ["patient_id", "gender"], known=["birth_date"])
    assert bound.missing == ((), ("birth_date",), ("birth_date",))
    assert bound.needed_columns == ("gender",)


@pytest.mark.parametrize(
    ("expectation", "text"),
    [
        ({"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}}, "has at least 1 rows"),
        (
            {
                "type": "expect_column_values_to_be_between",
                "kwargs": {
                    "column": "value",
                    "min_value": 20,
                    "max_value": 280,
                    "mostly": 0.9,
                    "row_condition": {
                        "type": "and",
                        "conditions": [
                            {
                                "type": "comparison",
                                "column": {"name": "code"},
                                "operator": "==",
                                "parameter": "x",
                            },
                            {"type": "nullity", "column": {"name": "unit"}, "is_null": False},
                        ],
                    },
                },
            },
            "is between 20 and 280, in at least 0.9 of rows, where code == x and unit is not null",
        ),
        (
            {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "a", "value_set": ["x", "y"]}},
            "is one of x, y",
        ),
        (
            {
                "type": "expect_column_pair_values_a_to_be_greater_than_b",
                "kwargs": {"column_A": "ended_at", "column_B": "started_at", "or_equal": True},
            },
            "ended_at does not come before started_at",
        ),
    ],
)
def test_expectations_read_as_words(expectation, text):
    assert Expectation.model_validate(expectation).description == text


def test_the_types_and_their_arguments_are_those_of_great_expectations():
    from great_expectations.expectations.registry import get_expectation_impl

    for name, kind in EXPECTATION_TYPES.items():
        if name == MATCH_PATTERN:
            continue  # our own, judged through another
        implementation = get_expectation_impl(name)
        fields = set(inspect.signature(implementation).parameters) | set(implementation.__fields__)
        assert kind.arguments <= fields, name


def test_describing_a_suite_imports_neither_polars_nor_great_expectations():
    code = (
        "import sys; from cohortflow.quality import load_suite, render_validation_page;"
        "from cohortflow.model import Catalog; load_suite(Catalog.default(), 'patient');"
        "print(sorted({'polars', 'pandas', 'great_expectations'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
