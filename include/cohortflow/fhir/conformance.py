"""The SQL-on-FHIR v2 test suite: run its files, and write the report that implementations publish.

Source: https://github.com/FHIR/sql-on-fhir-v2, ``tests/`` and the schema of its test report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from cohortflow.errors import CohortflowError, InputError
from cohortflow.fhir.views import compile_view

__all__ = ["run_case", "run_suite", "run_suites"]


def run_suites(folder: Path) -> dict[str, Any]:
    """Run all test files of a folder.

    Args:
        folder: Holds test files, ``*.json``.

    Returns:
        The report: ``{file: {"tests": [...]}}``, by file name.

    Raises:
        InputError: There are no test files, or one is not as the suite defines.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise InputError(
            "There are no test files.", remedy="Name the folder that holds basic.json.", place=str(folder)
        )
    return {file.name: run_suite(file) for file in files}


def run_suite(file: Path) -> dict[str, Any]:
    """Run a test file.

    Returns:
        ``{"tests": [{"name", "result": {"passed", "reason"}, "actual"}]}``; ``reason`` where a test failed,
        ``actual`` the rows that the view yielded, or ``{"error": ...}``.

    Raises:
        InputError: The file is not as the suite defines.
    """
    try:
        # A float would lose digits that boundaries depend on.
        suite = json.loads(file.read_text(encoding="utf-8"), parse_float=Decimal)
        cases = [(str(case["title"]), case, case["view"]) for case in suite["tests"]]
        resources = list(suite["resources"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"Not a file of the test suite ({type(error).__name__}).",
            remedy="It holds 'resources' and 'tests', each with 'title' and 'view'.",
            place=str(file),
        ) from None
    return {"tests": [{"name": title, **run_case(case, resources)} for title, case, _ in cases]}


def run_case(case: Mapping[str, Any], resources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Run one test.

    Args:
        case: ``view``, and what to expect of it: ``expect`` (rows), ``expectColumns`` (names in order),
            ``expectCount`` (number of rows) or ``expectError``.
        resources: What the view is run on.

    Returns:
        ``result`` and ``actual``.
    """
    actual: Any
    try:
        found = compile_view(case["view"]).collect(resources)
    except CohortflowError as error:
        actual = {"error": str(error)}
        reason = "" if case.get("expectError") else f"The view is refused: {error}"
    except Exception as error:  # noqa: BLE001 - one fault must not hide the results of the other tests
        # Its text might hold values.
        actual = {"error": type(error).__name__}
        reason = f"Failed with {type(error).__name__}."
    else:
        actual = json.loads(json.dumps(found.to_dicts(), default=str))
        reason = _compare(case, actual, found.columns)
    result = {"passed": False, "reason": reason} if reason else {"passed": True}
    return {"result": result, "actual": actual}


def _compare(case: Mapping[str, Any], rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Return how a result differs from what is expected, or an empty text."""
    if case.get("expectError"):
        return "An error was expected."
    wanted = case.get("expectColumns")
    if wanted is not None and columns != wanted:
        return f"Expected the columns {', '.join(wanted)}; found {', '.join(columns)}."
    count = case.get("expectCount")
    if count is not None and len(rows) != count:
        return f"Expected {count} rows, found {len(rows)}."
    expected = case.get("expect")
    if expected is None:
        return ""
    if len(rows) != len(expected):
        return f"Expected {len(expected)} rows, found {len(rows)}."
    # The specification gives rows no order.
    left, right = sorted(map(_canonical, rows)), sorted(map(_canonical, expected))
    differing = sum(one != other for one, other in zip(left, right, strict=True))
    return f"{differing} of {len(rows)} rows differ." if differing else ""


def _canonical(row: Mapping[str, Any]) -> str:
    """Return a row as text: a missing key is a null, and JSON has one kind of number (5 is 5.0)."""
    text = json.dumps({key: value for key, value in row.items() if value is not None}, default=float)
    return json.dumps(json.loads(text, parse_int=float), sort_keys=True)
