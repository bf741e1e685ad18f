"""The views of the catalog: hand-written resources, an independent evaluator, Synthea, redaction."""

import functools
import gzip
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from view_oracle import Oracle

from cohortflow.fhir.elements import is_resource
from cohortflow.fhir.views import analyze_view, compile_view
from cohortflow.model import Catalog, ColumnType, PhiClass
from cohortflow.redaction import classify_columns, load_policy, plan_redaction
from shipped_views import WITHOUT_PATIENT

ROOT = Path(__file__).resolve().parents[3]
CATALOG = Catalog(ROOT / "include" / "catalog")
GOLDEN = ROOT / "tests" / "golden" / "views"
VIEWS = CATALOG.names("views")
# What has no date of its own that places it in time.
WITHOUT_TIME = {
    "code_system_hierarchy",
    "device",
    "goal",
    "location",
    "medication",
    "organization",
    "patient",
    "patient_addresses",
    "patient_and_contact_addresses",
    "patient_demographics",
    "patient_identifier",
    "patient_names_with_index",
    "practitioner",
    "practitioner_role",
    "related_person",
    "shareable_patient_demographics",
}
# The names of the examples that the SQL-on-FHIR guide publishes; its two views of patient
# demographics share a name, so the shareable one goes by its id.
PUBLISHED_EXAMPLES = {
    "code_system_hierarchy",
    "condition_flat",
    "encounter_flat",
    "patient_addresses",
    "patient_and_contact_addresses",
    "patient_demographics",
    "patient_names_with_index",
    "questionnaire_response_items",
    "shareable_patient_demographics",
    "us_core_blood_pressures",
}
# Resources that US Core 6.1 profiles and research reads, and those of Synthea.
RESEARCH_RESOURCES = {
    "AllergyIntolerance",
    "CarePlan",
    "CareTeam",
    "Claim",
    "Condition",
    "Coverage",
    "Device",
    "DiagnosticReport",
    "DocumentReference",
    "Encounter",
    "ExplanationOfBenefit",
    "FamilyMemberHistory",
    "Goal",
    "ImagingStudy",
    "Immunization",
    "Location",
    "Medication",
    "MedicationAdministration",
    "MedicationDispense",
    "MedicationRequest",
    "MedicationStatement",
    "Observation",
    "Organization",
    "Patient",
    "Practitioner",
    "PractitionerRole",
    "Procedure",
    "Provenance",
    "QuestionnaireResponse",
    "RelatedPerson",
    "ServiceRequest",
    "Specimen",
}


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def show(value):
    return value.isoformat() if isinstance(value, date) else value


@functools.cache
def load(name):
    return CATALOG.load("views", name)


def check_with_oracle(name, resources):
    definition = load(name)
    oracle = Oracle(definition)
    expected = [row for resource in resources for row in oracle.rows(resource)]
    found = compile_view(definition).collect(resources).to_dicts()
    assert len(found) == len(expected)
    for row, wanted in zip(found, expected, strict=True):
        assert row == wanted
    return found


def test_the_catalog_covers_what_research_uses():
    assert len(CATALOG.names("views")) >= 25
    assert {load(name)["resource"] for name in CATALOG.names("views")} >= RESEARCH_RESOURCES
    assert all(is_resource(resource) for resource in RESEARCH_RESOURCES)
    assert set(CATALOG.names("views")) >= PUBLISHED_EXAMPLES


@pytest.mark.parametrize("name", VIEWS)
def test_rows_of_hand_written_resources_of_each_view(name):
    expected = golden(name)
    view = compile_view(load(name))
    found = view.collect(expected["resources"])
    assert found.schema == view.schema
    rows = [{key: show(value) for key, value in row.items()} for row in found.to_dicts()]
    assert rows == expected["rows"]


@pytest.mark.parametrize("name", VIEWS)
def test_hand_written_resources_reach_every_column(name):
    rows = golden(name)["rows"]
    assert rows
    assert [column for column in rows[0] if all(row[column] is None for row in rows)] == []


@pytest.mark.parametrize("name", VIEWS)
def test_hand_written_resources_agree_with_an_independent_evaluator(name):
    assert check_with_oracle(name, golden(name)["resources"])


@pytest.mark.parametrize("name", VIEWS)
def test_synthea_agrees_with_an_independent_evaluator(name):
    shared = os.environ.get("COHORTFLOW_SHARED")
    if not shared:
        pytest.skip("COHORTFLOW_SHARED is not set")
    path = Path(shared) / "data" / "synthea-100" / f"{load(name)['resource']}.ndjson.gz"
    if not path.exists():
        pytest.skip("Synthea makes no such resource")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        every = list(lines)
    resources = [json.loads(line) for line in every[:: max(1, len(every) // 20)]]
    check_with_oracle(name, resources)


@pytest.mark.parametrize("name", VIEWS)
def test_every_column_of_each_view_is_described_traced_and_classified(name):
    definition = load(name)
    view = analyze_view(definition)
    assert view.name == name
    assert definition["description"].startswith("One row per ")
    assert definition["title"]
    assert definition["purpose"]
    for column in classify_columns(view.columns):
        assert column.description.endswith("."), column.name
        assert column.paths, column.name
        assert column.phi is not PhiClass.UNKNOWN, column.name
    roles = [column.tags.get("cohortflow/role") for column in view.columns]
    times = [column for column in view.columns if column.tags.get("cohortflow/role") == "time"]
    assert roles.count("key") == 1
    assert roles.count("subject") == (name not in WITHOUT_PATIENT and definition["resource"] != "Patient")
    assert len(times) == (name not in WITHOUT_TIME)
    assert all(column.type is ColumnType.DATETIME for column in times)


@pytest.mark.parametrize("name", VIEWS)
def test_an_element_with_parts_yields_at_most_a_count_or_whether_it_is_there(name):
    # The table of PHI classes relies on it: `Patient.address` by itself is a number, its parts are not.
    parts = {path.rpartition(".")[0] for view in CATALOG.names("views") for path in all_paths(view)}
    for column in analyze_view(load(name)).columns:
        if parts.intersection(column.paths):
            assert column.type in {ColumnType.INTEGER, ColumnType.BOOLEAN}, column.name


@functools.cache
def all_paths(name):
    return [path for column in analyze_view(load(name)).columns for path in column.paths]


@pytest.mark.parametrize("policy", [name for name in CATALOG.names("redaction") if name != "dicom_basic"])
@pytest.mark.parametrize("name", VIEWS)
def test_each_policy_leaves_something_of_each_view(name, policy):
    plan = plan_redaction(name, analyze_view(load(name)).columns, load_policy(CATALOG, policy))
    assert plan.subject == ("" if name in WITHOUT_PATIENT else "patient_id")
    assert len(plan.output_columns) >= 2
    assert all(entry.reason for entry in plan.columns)


def test_paths_name_choice_types_and_extensions():
    patient = {column.name: column for column in analyze_view(CATALOG.load("views", "patient")).columns}
    observation = {
        column.name: column for column in analyze_view(CATALOG.load("views", "observation")).columns
    }
    race = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"
    assert patient["patient_id"].paths == ("Patient.id",)
    assert patient["patient_id"].target == "Patient"
    assert patient["race_code"].paths == (
        f"Patient.extension({race}).extension(ombCategory).valueCoding.code",
    )
    assert patient["mrn"].paths == ("Patient.identifier.value",)
    assert observation["patient_id"].paths == ("Observation.subject.reference",)
    assert observation["patient_id"].target == "Patient"
    assert observation["value_quantity"].paths == ("Observation.valueQuantity.value",)
    assert observation["code"].paths == ("Observation.code.coding.code",)
    assert observation["effective_at"].paths == (
        "Observation.effectiveDateTime",
        "Observation.effectiveInstant",
        "Observation.effectivePeriod.start",
    )


def test_analysis_does_not_load_polars():
    code = (
        "import sys, json, pathlib; from cohortflow.fhir.views import analyze_view; "
        "[analyze_view(json.loads(p.read_text())) for p in pathlib.Path(sys.argv[1]).glob('*.json')]; "
        "assert 'polars' not in sys.modules, 'polars was loaded'"
    )
    subprocess.run([sys.executable, "-c", code, str(CATALOG.root / "views")], check=True)
