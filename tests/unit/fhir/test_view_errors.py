"""What is refused before any data are read, and what the message says."""

import json
from pathlib import Path

import pytest

from cohortflow.errors import ViewError
from cohortflow.fhir.views import analyze_view

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "view_errors.json"
CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))


def column(path, **more):
    return {"resource": "Patient", "select": [{"column": [{"name": "c", "path": path, **more}]}]}


def view_of(case):
    if "view" in case:
        return case["view"]
    view = column(case["path"], **case.get("column", {}))
    view["resource"] = case.get("resource", "Patient")
    return view


@pytest.mark.parametrize("case", CASES, ids=[case["title"] for case in CASES])
def test_message(case):
    with pytest.raises(ViewError) as caught:
        analyze_view(view_of(case))
    assert str(caught.value).splitlines() == case["error"]


def test_deep_nesting_is_an_error_not_a_crash():
    with pytest.raises(ViewError):
        analyze_view(column("(" * 5000 + "id" + ")" * 5000))


def test_the_same_error_survives_a_process_boundary():
    import pickle

    with pytest.raises(ViewError) as caught:
        analyze_view(column("nam"))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
