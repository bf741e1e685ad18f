"""The SQL-on-FHIR v2 conformance tests (https://github.com/FHIR/sql-on-fhir-v2), and cases of our own.

A case that must be refused is listed here with its reason; it fails the run once it is accepted.
"""

import json
import os
from pathlib import Path

import pytest

from cohortflow.errors import ViewError
from cohortflow.fhir.views import compile_view

OWN = Path(__file__).parent / "cases"
DECIMAL = "the digits of a decimal are not kept when JSON is read"
REFUSED = {
    ("fn_boundary", "decimal lowBoundary"): DECIMAL,
    ("fn_boundary", "decimal highBoundary"): DECIMAL,
}


def load(folder):
    for path in sorted(folder.glob("*.json")):
        suite = json.loads(path.read_text(encoding="utf-8"))
        for case in suite["tests"]:
            yield pytest.param(path.stem, suite["resources"], case, id=f"{path.stem}: {case['title']}")


def official():
    shared = os.environ.get("COHORTFLOW_SHARED")
    folder = Path(shared) / "conformance" / "sql-on-fhir" if shared else None
    if folder is None or not folder.is_dir():
        return [pytest.param("", [], {}, marks=pytest.mark.skip(reason="COHORTFLOW_SHARED is not set"))]
    return list(load(folder))


def check(resources, case):
    if case.get("expectError"):
        with pytest.raises(ViewError):
            compile_view(case["view"]).collect(resources)
        return
    view = compile_view(case["view"])
    found = view.collect(resources)
    assert found.schema == view.schema
    if "expectColumns" in case:
        assert found.columns == case["expectColumns"]
    # The specification gives rows no order.
    assert sorted(map(as_text, found.to_dicts())) == sorted(map(as_text, case["expect"]))


def as_text(row):
    # JSON has one kind of number: 5 and 5.0 are the same.
    return json.dumps(json.loads(json.dumps(row), parse_int=float), sort_keys=True)


@pytest.mark.parametrize(("suite", "resources", "case"), official())
def test_official_case(suite, resources, case):
    if (suite, case["title"]) in REFUSED:
        with pytest.raises(ViewError, match="not supported"):
            compile_view(case["view"])
        return
    check(resources, case)


@pytest.mark.parametrize(("suite", "resources", "case"), list(load(OWN)))
def test_own_case(suite, resources, case):
    check(resources, case)
