"""The SQL-on-FHIR v2 conformance tests (https://github.com/FHIR/sql-on-fhir-v2), and cases of our own."""

import json
import os
from decimal import Decimal
from pathlib import Path

import pytest

from cohortflow.errors import InputError
from cohortflow.fhir.conformance import run_case, run_suite, run_suites

OWN = Path(__file__).parent / "cases"


def load(folder):
    for path in sorted(folder.glob("*.json")):
        suite = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
        for case in suite["tests"]:
            yield pytest.param(suite["resources"], case, id=f"{path.stem}: {case['title']}")


def official():
    shared = os.environ.get("COHORTFLOW_SHARED")
    folder = Path(shared) / "conformance" / "sql-on-fhir" if shared else None
    if folder is None or not folder.is_dir():
        return [pytest.param([], {}, marks=pytest.mark.skip(reason="COHORTFLOW_SHARED is not set"))]
    return list(load(folder))


@pytest.mark.parametrize(("resources", "case"), [*official(), *load(OWN)])
def test_case(resources, case):
    assert run_case(case, resources)["result"] == {"passed": True}


RESOURCES = [
    {"resourceType": "Patient", "id": "a", "active": True, "multipleBirthInteger": 5},
    {"resourceType": "Patient", "id": "b"},
]
VIEW = {
    "resource": "Patient",
    "select": [
        {
            "column": [
                {"name": "id", "path": "id"},
                {"name": "active", "path": "active"},
                {"name": "birth", "path": "multipleBirth.ofType(integer)"},
            ]
        }
    ],
}
ROWS = [{"id": "a", "active": True, "birth": 5}, {"id": "b", "active": None, "birth": None}]
WRONG_VIEW = {"resource": "Patient", "select": [{"column": [{"name": "id", "path": "idd"}]}]}


@pytest.mark.parametrize(
    "expected",
    [
        {"expect": ROWS},
        {"expect": ROWS[::-1]},
        {"expect": [{"id": "b"}, {"id": "a", "active": True, "birth": 5.0}]},
        {"expectColumns": ["id", "active", "birth"]},
        {"expectCount": 2},
        {"view": WRONG_VIEW, "expectError": True},
    ],
)
def test_what_passes(expected):
    assert run_case({"view": VIEW, **expected}, RESOURCES)["result"] == {"passed": True}


@pytest.mark.parametrize(
    ("expected", "reason"),
    [
        ({"expect": ROWS[:1]}, "Expected 1 rows, found 2."),
        ({"expect": [ROWS[0], ROWS[0]]}, "1 of 2 rows differ."),
        ({"expect": [{**ROWS[0], "active": 1}, ROWS[1]]}, "1 of 2 rows differ."),
        ({"expect": [{**ROWS[0], "birth": "5"}, ROWS[1]]}, "1 of 2 rows differ."),
        ({"expectColumns": ["id", "birth", "active"]}, "found id, active, birth"),
        ({"expectCount": 3}, "Expected 3 rows, found 2."),
        ({"expectError": True}, "An error was expected."),
        ({"view": WRONG_VIEW, "expect": ROWS}, "Patient has no element 'idd'"),
    ],
)
def test_what_fails(expected, reason):
    result = run_case({"view": VIEW, **expected}, RESOURCES)["result"]
    assert result["passed"] is False
    assert reason in result["reason"]


def test_the_report_shows_the_rows_or_the_error(tmp_path):
    cases = [
        {"title": "rows", "view": VIEW, "expect": ROWS},
        {"title": "refused", "view": WRONG_VIEW, "expectError": True},
    ]
    suite = {"resources": RESOURCES, "tests": cases}
    (tmp_path / "own.json").write_text(json.dumps(suite), encoding="utf-8")
    rows, refused = run_suites(tmp_path)["own.json"]["tests"]
    assert rows == {"name": "rows", "result": {"passed": True}, "actual": ROWS}
    assert refused["result"] == {"passed": True}
    assert "no element 'idd'" in refused["actual"]["error"]


def test_numbers_of_a_suite_keep_their_digits(tmp_path):
    column = {"name": "low", "path": "value.ofType(Quantity).value.lowBoundary()"}
    view = {"resource": "Observation", "select": [{"column": [column]}]}
    text = """{"resources": [{"resourceType": "Observation", "id": "o", "valueQuantity": {"value": 1.50}}],
      "tests": [{"title": "t", "expect": [{"low": 1.495}], "view": %s}]}"""
    (tmp_path / "own.json").write_text(text % json.dumps(view), encoding="utf-8")
    assert run_suite(tmp_path / "own.json")["tests"][0]["result"] == {"passed": True}


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"resources": []}', '{"resources": [], "tests": [{"title": "t"}]}']
)
def test_a_file_that_is_no_suite(tmp_path, text):
    (tmp_path / "own.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="Not a file of the test suite") as caught:
        run_suites(tmp_path)
    assert caught.value.place.endswith("own.json")


def test_a_folder_without_tests(tmp_path):
    with pytest.raises(InputError, match="no test files"):
        run_suites(tmp_path)
