"""Redaction and validation of the catalog's own views."""

import pytest

from cohortflow.fhir.views import analyze_view
from cohortflow.model import Catalog, PhiClass
from cohortflow.quality import bind_suite, load_suite
from cohortflow.redaction import load_policy, plan_redaction
from shipped_views import WITHOUT_PATIENT

CATALOG = Catalog.default()
VIEWS, POLICIES = CATALOG.names("views"), CATALOG.names("redaction")
NEVER = {PhiClass.UNKNOWN, PhiClass.DIRECT_IDENTIFIER, PhiClass.FREE_TEXT}


def plan(view, policy):
    return plan_redaction(
        view, analyze_view(CATALOG.load("views", view)).columns, load_policy(CATALOG, policy)
    )


@pytest.mark.parametrize("view", VIEWS)
def test_every_column_of_the_views_is_known(view):
    unknown = [
        entry.column.name
        for entry in plan(view, "safe_harbor").columns
        if entry.column.phi is PhiClass.UNKNOWN
    ]
    assert unknown == []


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("view", VIEWS)
def test_nothing_that_identifies_by_itself_is_left(view, policy):
    planned = plan(view, policy)
    assert planned.subject == ("" if view in WITHOUT_PATIENT else "patient_id")
    left = {entry.column.name for entry in planned.columns if entry.output and entry.column.phi in NEVER}
    assert left == set()
    hashed = {
        entry.column.name
        for entry in planned.columns
        if entry.column.phi is PhiClass.REFERENCE and entry.kind
    }
    assert {name for name in hashed if name.endswith("_id")} == hashed
    assert ("patient_id" in hashed) == (view not in WITHOUT_PATIENT)


@pytest.mark.parametrize("view", VIEWS)
def test_ids_of_patients_and_encounters_are_of_one_kind_in_all_views(view):
    kinds = {entry.column.name: entry.kind for entry in plan(view, "safe_harbor").columns}
    assert kinds.get("patient_id", "") == ("" if view in WITHOUT_PATIENT else "Patient")
    assert kinds.get("encounter_id", "Encounter") == "Encounter"


def test_no_column_is_lost_for_want_of_a_type():
    lost = [
        (view, entry.column.name)
        for policy in POLICIES
        for view in VIEWS
        for entry in plan(view, policy).columns
        if " needs type " in entry.reason or "different treatments" in entry.reason
    ]
    assert lost == []


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "dicom_basic"])
@pytest.mark.parametrize("view", VIEWS)
def test_the_suite_of_a_view_fits_its_dataset_under_every_policy(view, policy):
    planned = plan(view, policy)
    columns = [column.name for column in planned.output_columns]
    bound = bind_suite(load_suite(CATALOG, view), columns, known=planned.known_columns)
    applicable = sum(not missing for missing in bound.missing)
    assert applicable > len(bound.missing) / 2


COMPUTED = [
    ("'20' & birthDate.toString().substring(5, 2)", "a month written as a year"),
    ("address.first().postalCode.substring(2, 3)", "the last digits of a ZIP code written as the first"),
    ("birthDate = @1970-05-17", "a yes or no that tells the day"),
    ("birthDate < @1970-06-01", "a yes or no that tells the half of a year"),
    ("iif(birthDate = @1970-05-17, '2017', '2000')", "a literal chosen by the day"),
    ("'2017'.where(%resource.birthDate = @1970-05-17)", "a literal that is there by the day"),
    ("gender.where(%resource.birthDate < @1970-06-01)", "a code that is there by the day"),
]


@pytest.mark.parametrize("policy", ["safe_harbor", "shifted_dates", "expert"])
@pytest.mark.parametrize("path", [path for path, _ in COMPUTED], ids=[why for _, why in COMPUTED])
def test_what_is_computed_from_a_date_or_a_zip_code_does_not_pass_for_one(path, policy):
    view = analyze_view(one_column("Patient", path))
    entry = plan_redaction("demo", view.columns, load_policy(CATALOG, policy)).columns[1]
    assert entry.output is None, entry.reason


@pytest.mark.parametrize("path", ["onset.ofType(Age).value - 10", "onset.ofType(Age).value > 95"])
def test_what_is_computed_from_an_age_does_not_pass_the_cap(path):
    view = analyze_view(one_column("Condition", path))
    entry = plan_redaction("demo", view.columns, load_policy(CATALOG, "safe_harbor")).columns[1]
    assert entry.output is None, entry.reason


@pytest.mark.parametrize(
    "path",
    [
        "birthDate",
        "birthDate.lowBoundary()",
        "birthDate.toString()",
        "address.where(use = 'home').postalCode.first()",
        "deceased.ofType(dateTime).exists()",
        "gender.where(%resource.birthDate.exists())",
    ],
)
def test_what_stands_as_it_is_written_is_redacted_and_published(path):
    view = analyze_view(one_column("Patient", path))
    entry = plan_redaction("demo", view.columns, load_policy(CATALOG, "safe_harbor")).columns[1]
    assert entry.output is not None, entry.reason


def one_column(resource, path):
    key = "getResourceKey()" if resource == "Patient" else "subject.getReferenceKey(Patient)"
    subject = {"name": "patient_id", "path": key, "tag": [{"name": "cohortflow/role", "value": "subject"}]}
    columns = [subject, {"name": "x", "path": path}]
    return {"resource": resource, "name": "demo", "status": "active", "select": [{"column": columns}]}
