"""What an expression may look at: the row around a list, and what a literal depends on."""

import pytest

from cohortflow.errors import ViewError
from cohortflow.fhir.views import analyze_view, compile_view
from cohortflow.model import PhiClass
from cohortflow.redaction.phi import classify_columns

PATIENT = {
    "resourceType": "Patient",
    "id": "p",
    "active": True,
    "gender": "female",
    "name": [
        {"use": "official", "family": "A", "given": ["X", "Y"]},
        {"use": "usual", "given": ["Z", "X"]},
        {"family": "female"},
    ],
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("name.where(family = %resource.gender).family", ["female"]),
        ("name.select(%resource.gender & '-' & family)", ["female-A", "female-", "female-female"]),
        ("name.where(given contains %context.name.given.first()).use", ["official", "usual"]),
        (
            "name.where(given.where($this = %resource.name[1].given.last()).exists()).use",
            ["official", "usual"],
        ),
        ("name.where(%resource.active).use", ["official", "usual"]),
        ("name.all(%resource.active)", [True]),
        ("name.select(%resource.name.family)", ["A", "female"] * 3),
        ("name.where(family and %resource.gender).use", ["official"]),
        ("name.where(family).exists() and gender", [True]),
        ("iif(true, iif(true, active))", [True]),
        ("iif(active, {}, 'a')", []),
        ("iif({}, 1)", []),
        ("1 + {}", []),
        ("{} & 'a'", ["a"]),
        ("contact.name.given.join(' ')", [""]),
        ("name.select('x')", ["x", "x", "x"]),
        ("contact.first().select('x')", []),
        ("contact.first().select(%resource.name.given)", []),
        ("name.last().select(%resource.gender & family)", ["femalefemale"]),
    ],
)
def test_values(path, found):
    column = {"name": "c", "path": path, "collection": True}
    view = compile_view({"resource": "Patient", "select": [{"column": [column]}]})
    assert view.collect([PATIENT, {"resourceType": "Patient", "id": "q"}])["c"].to_list()[0] == found


def test_the_row_number_within_a_criterion():
    columns = [{"name": "c", "path": "given.where(%rowIndex = 1)", "collection": True}]
    view = compile_view({"resource": "Patient", "select": [{"forEach": "name", "column": columns}]})
    assert view.collect([PATIENT])["c"].to_list() == [[], ["Z", "X"], []]


ACTIVE, IDLE = PATIENT, {"resourceType": "Patient", "id": "q", "active": False}
KEY = {"column": [{"name": "c", "path": "id"}]}
NAMES = {"forEach": "name.where(family)", "column": [{"name": "c", "path": "%resource.id & family"}]}


@pytest.mark.parametrize(
    ("select", "found"),
    [
        pytest.param({"forEach": "where(active)", **KEY}, ["p"], id="a condition"),
        pytest.param({"forEachOrNull": "where(active)", **KEY}, ["p", None], id="or null"),
        pytest.param({"forEach": "$this", **KEY}, ["p", "q"], id="itself"),
        pytest.param({"forEach": "%resource.where(active).first()", **KEY}, ["p"], id="picked"),
        pytest.param({"forEach": "where(active)", "select": [NAMES]}, ["pA", "pfemale"], id="around a list"),
        pytest.param(
            {"unionAll": [{"forEach": "where(active.not())", **KEY}, {"forEach": "where(active)", **KEY}]},
            ["p", "q"],
            id="in branches",
        ),
        pytest.param(
            {"forEach": "where(active)", "select": [{"forEach": "$this", **KEY}]}, ["p"], id="twice"
        ),
    ],
)
def test_an_iteration_may_stand_on_the_resource(select, found):
    view = compile_view({"resource": "Patient", "select": [select]})
    assert view.collect([ACTIVE, IDLE])["c"].to_list() == found


def test_an_iteration_does_not_lead_back_to_the_resource():
    with pytest.raises(ViewError, match="inside of an iteration") as caught:
        compile_view(
            {
                "resource": "Patient",
                "select": [{"forEach": "name", "select": [{"forEach": "%resource", **KEY}]}],
            }
        )
    assert caught.value.place.endswith("select[0].select[0].forEach")


def test_periods_have_boundaries():
    columns = [
        {"name": "low", "path": "effective.ofType(Period).lowBoundary()"},
        {"name": "high", "path": "effective.ofType(Period).highBoundary(8)"},
    ]
    view = compile_view({"resource": "Observation", "select": [{"column": columns}]})
    periods = [{"start": "2020-02", "end": "2020-02"}, {"start": "2020"}, {}]
    resources = [{"resourceType": "Observation", "id": "o", "effectivePeriod": period} for period in periods]
    assert view.collect(resources).rows() == [
        ("2020-02-01T00:00:00.000+14:00", "2020-02-29"),
        ("2020-01-01T00:00:00.000+14:00", None),
        (None, None),
    ]


@pytest.mark.parametrize(
    ("path", "paths", "phi"),
    [
        ("'a'", (), PhiClass.SAFE_CODE),
        ("%rowIndex + 1", (), PhiClass.SAFE_CODE),
        ("%fixed", (), PhiClass.SAFE_CODE),
        ("iif(%rowIndex = 0, 'first', 'other')", (), PhiClass.SAFE_CODE),
        ("iif(gender = 'male', 'm', 'f')", ("Patient.gender",), PhiClass.QUASI_IDENTIFIER),
        ("'a'.where(%resource.gender = 'male')", ("Patient.gender",), PhiClass.QUASI_IDENTIFIER),
        ("name.family.select('x').first()", ("Patient.name.family",), PhiClass.DIRECT_IDENTIFIER),
        (
            "gender & name.family.select('x').first()",
            ("Patient.gender", "Patient.name.family"),
            PhiClass.DIRECT_IDENTIFIER,
        ),
    ],
)
def test_a_literal_is_safe_and_what_decides_over_one_is_not(path, paths, phi):
    column = {"name": "c", "path": path}
    view = {
        "resource": "Patient",
        "constant": [{"name": "fixed", "valueString": "v"}],
        "select": [{"column": [column]}],
    }
    (found,) = classify_columns(analyze_view(view).columns)
    assert (found.paths, found.phi) == (paths, phi)


def test_a_literal_beside_an_element_in_a_union_is_as_the_element():
    branches = [{"column": [{"name": "c", "path": path}]} for path in ("'a'", "gender")]
    view = analyze_view({"resource": "Patient", "select": [{"unionAll": branches}]})
    (found,) = classify_columns(view.columns)
    assert (found.paths, found.phi) == (("Patient.gender",), PhiClass.QUASI_IDENTIFIER)
