"""The rest of the catalog: rows of hand-written resources, an independent evaluator, Synthea, redaction."""

import functools
import gzip
import itertools
import json
import os
import re
from pathlib import Path

import pytest
from test_catalog_views import VIEWS as CORE_VIEWS
from test_catalog_views import Oracle, as_json

from cohortflow.fhir.elements import is_resource
from cohortflow.fhir.views import analyze_view, compile_view
from cohortflow.model import Catalog, ColumnType, PhiClass
from cohortflow.redaction import classify_columns, load_policy, plan_redaction

ROOT = Path(__file__).resolve().parents[3]
CATALOG = Catalog(ROOT / "include" / "catalog")
GOLDEN = ROOT / "tests" / "golden" / "views"
VIEWS = [name for name in CATALOG.names("views") if name not in CORE_VIEWS]
WITHOUT_PATIENT = {
    "code_system_hierarchy",
    "location",
    "medication",
    "organization",
    "practitioner",
    "practitioner_role",
}
CHOICE = re.compile(r"(\w+)\.ofType\((\w+)\)")
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


@functools.cache
def load(name):
    return CATALOG.load("views", name)


class FullOracle(Oracle):
    """The independent evaluator, with repeat, unionAll, conditions, constants and row numbers."""

    def rows(self, view, resource):
        self.constants = {
            entry["name"]: next(value for key, value in entry.items() if key != "name")
            for entry in view.get("constant", ())
        }
        self.index = 0
        if not all(
            self.values(where["path"], resource, resource) == [True] for where in view.get("where", ())
        ):
            return []
        return super().rows(view, resource)

    def select(self, select, focus, resource):
        if "repeat" in select:
            inner = {key: value for key, value in select.items() if key != "repeat"}
            items = self.descend(select["repeat"], focus, resource)
            return [row for item in items for row in self.select(inner, item, resource)]
        path = select.get("forEach") or select.get("forEachOrNull")
        if path is None or focus is None:
            return self.branches(select, focus, resource)
        items = self.values(path, focus, resource)
        if not items and "forEachOrNull" in select:
            return self.branches(select, None, resource)
        rows = []
        for index, item in enumerate(items):
            self.index = index
            rows += self.branches(select, item, resource)
        return rows

    def branches(self, select, focus, resource):
        own = {column["name"]: self.column(column, focus, resource) for column in select.get("column", ())}
        parts = [[own], *(self.select(inner, focus, resource) for inner in select.get("select", ()))]
        if "unionAll" in select:
            union = [row for branch in select["unionAll"] for row in self.select(branch, focus, resource)]
            parts.append(union)
        return [self.merge(combination) for combination in itertools.product(*parts)]

    def descend(self, paths, focus, resource):
        found = []
        for path in paths:
            for item in self.values(path, focus, resource):
                found += [item, *self.descend(paths, item, resource)]
        return found

    def values(self, path, focus, resource):
        if path.startswith("getReferenceKey("):  # of a reference that is iterated over
            return super().values(f"reference.{path}", {"reference": focus}, resource)
        if ".getReferenceKey(" in path:
            return super().values(path, focus, resource)
        path = path.replace("%rowIndex", str(self.index)).replace("$this.", "")
        for name, value in self.constants.items():
            path = path.replace(f"%{name}", f"'{value}'")
        if focus is not resource:  # choice elements go by their JSON keys there
            path = CHOICE.sub(lambda found: found[1] + found[2][0].upper() + found[2][1:], path)
        return super().values(path, focus, resource)

    @staticmethod
    def convert(value, ansi):
        if ansi is not None and len(str(value)) < len(
            "YYYY-MM-DD"
        ):  # a partial date begins with its first day
            value = f"{value}-01-01"[: len("YYYY-MM-DD")]
        return Oracle.convert(value, ansi)


def check_with_oracle(name, resources):
    oracle = FullOracle()
    definition = load(name)
    expected = [row for resource in resources for row in oracle.rows(definition, resource)]
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
    rows = [{key: as_json(value) for key, value in row.items()} for row in found.to_dicts()]
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
    assert len(times) <= 1
    assert all(column.type is ColumnType.DATETIME for column in times)


@pytest.mark.parametrize("name", CATALOG.names("views"))
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
