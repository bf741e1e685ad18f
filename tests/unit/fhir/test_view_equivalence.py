"""``~`` and ``!~``, and the functions of the clock."""

import re
from datetime import UTC, datetime

import pytest

from cohortflow.errors import FhirPathError
from cohortflow.fhir.views import compile_view

PATIENT = {
    "resourceType": "Patient",
    "id": "p",
    "active": True,
    "gender": "female",
    "birthDate": "1970-06",
    "multipleBirthInteger": 2,
    "name": [{"text": "Ada\tLovelace"}],
}


def evaluate(*paths):
    columns = [{"name": f"c{n}", "path": path} for n, path in enumerate(paths)]
    return compile_view({"resource": "Patient", "select": [{"column": columns}]}).collect([PATIENT]).row(0)


@pytest.mark.parametrize(
    ("left", "right", "equivalent"),
    [
        ("gender", "'FEMALE'", True),
        ("gender", "'male'", False),
        ("name.text.first()", "'ada lovelace'", True),
        ("language", "'en'", False),
        ("'en'", "language", False),
        ("language", "implicitRules", True),
        ("language", "{}", True),
        ("gender", "{}", False),
        ("active", "true", True),
        ("multipleBirth.ofType(integer)", "2", True),
        ("multipleBirth.ofType(integer)", "3", False),
        ("birthDate", "@1970-06", True),
        ("birthDate", "@1970-06-15", False),
        ("1.5", "1.50", True),
        ("1.25", "1.3", True),
        ("1.25", "1.2", False),
        ("1", "1.2", True),
        ("-1.25", "-1.3", True),
        ("0.00001", "0.00002", False),
        ("('a' | 'B  ')", "('b  ' | 'A')", True),
        ("('a' | 'b')", "'a'", False),
        ("(1 | 2)", "(2 | 1.0)", True),
        ("(@2020 | @2021)", "(@2021 | @2020)", True),
        ("(@2020 | @2021)", "(@2021 | @2020-01)", False),
        ("name.given", "contact.name.given", True),
        ("name.given", "'a'", False),
        ("4 'mg'", "4.0 'mg'", True),
        ("4 'mg'", "4 'g'", False),
        ("4 'mg'", "{}", False),
        ("language.toQuantity()", "{}", True),
    ],
)
def test_equivalence_is_never_empty(left, right, equivalent):
    assert evaluate(f"{left} ~ {right}", f"{left} !~ {right}") == (equivalent, not equivalent)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gender ~ 1", "cannot be compared"),
        ("name.first() ~ name.first()", "as a whole"),
    ],
)
def test_what_has_no_equivalence_is_refused(path, message):
    with pytest.raises(FhirPathError, match=message):
        evaluate(path)


def test_the_clock_stands_still_while_a_view_runs():
    before = datetime.now(UTC)
    now, again, today, time, later = evaluate(
        "now()", "now()", "today()", "timeOfDay()", "birthDate < today() and now() > @2020-01-01T00:00:00Z"
    )
    assert now == again == f"{today}T{time}Z"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", now)
    assert datetime.fromisoformat(now) >= before.replace(microsecond=before.microsecond // 1000 * 1000)
    assert later is True
