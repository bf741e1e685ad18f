"""The resources are valid FHIR, refer to each other, and carry the codes and units of the public table."""

from __future__ import annotations

import datetime as dt
import re
from functools import cache

import pytest
from fhir.resources.R4B import get_fhir_model_class

from cohortflow.synthetic import CODES
from cohortflow.synthetic.codes import LOCAL_LAB, UCUM

AS_OF = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


def walk(value):
    """Yield every JSON object within a value."""
    if isinstance(value, dict):
        yield value
        for member in value.values():
            yield from walk(member)
    elif isinstance(value, list):
        for member in value:
            yield from walk(member)


def find_dates(value):
    """Yield every date or time in a resource as a point in time, the earliest that it can mean."""
    for node in walk(value):
        for name, text in node.items():
            is_date = isinstance(text, str) and re.fullmatch(r"\d{4}(-\d\d(-\d\d(T.*)?)?)?", text)
            if is_date and name not in {"code", "value"}:
                yield name, parse(text)


@cache
def parse(text: str) -> dt.datetime:
    if "T" in text:
        return dt.datetime.fromisoformat(text)
    parts = [int(part) for part in text.split("-")] + [1, 1]
    return dt.datetime(*parts[:3], tzinfo=dt.timezone(dt.timedelta(hours=14)))


def test_resources_validate_against_the_fhir_models(population):
    for name, resources in population.resources.items():
        model = get_fhir_model_class(name)
        step = max(1, len(resources) // 60)
        for resource in resources[::step]:
            model.model_validate(resource)


def test_an_observation_of_each_code_and_value_type_validates(population):
    model = get_fhir_model_class("Observation")
    kinds = {}
    for resource in population.resources["Observation"]:
        value = tuple(name for name in resource if name.startswith(("value", "component", "dataAbsent")))
        flag = resource.get("interpretation", [{}])[0].get("coding", [{}])[0].get("code")
        kinds[tuple(c["code"] for c in resource["code"]["coding"]), value, flag] = resource
    for resource in kinds.values():
        model.model_validate(resource)
    assert {value for _, (value,), _ in kinds} == {
        "valueQuantity", "valueCodeableConcept", "valueInteger", "valueBoolean", "valueString",
        "valueDateTime", "component", "dataAbsentReason",
    }  # fmt: skip


def test_ids_are_unique_and_within_the_limit_of_fhir(population):
    for name, resources in population.resources.items():
        ids = [resource["id"] for resource in resources]
        assert len(set(ids)) == len(ids), name
        assert all(re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", id_) for id_ in ids)


def test_every_reference_leads_to_a_resource(population):
    lost = {
        node["reference"].partition("/")[0]
        for resources in population.resources.values()
        for resource in resources
        for node in walk(resource)
        if isinstance(node.get("reference"), str) and node["reference"] not in population.by_id
    }
    assert lost == set()


def test_what_a_resource_refers_to_belongs_to_the_same_patient(population):
    for _, resource, patient in population.of_patients():
        for node in walk(resource):
            kind = str(node.get("reference", "")).partition("/")[0]
            if kind in {"Encounter", "Condition", "Observation"}:
                other = population.by_id[node["reference"]]
                assert other["subject"]["reference"] == f"Patient/{patient['id']}"


def test_panels_consist_of_results_of_the_same_visit(population):
    for report in population.resources["DiagnosticReport"]:
        for result in report["result"]:
            observation = population.by_id[result["reference"]]
            assert observation["encounter"] == report["encounter"]
            assert observation["effectiveDateTime"] == report["effectiveDateTime"]


def test_nothing_happens_before_birth_after_death_or_after_the_end(population):
    for name, resource, patient in population.of_patients():
        birth = parse(patient["birthDate"])
        death = population.truth[patient["id"]]["death_date"]
        last = min(AS_OF, parse(death) + dt.timedelta(days=1)) if death else AS_OF
        for element, moment in find_dates({key: value for key, value in resource.items() if key != "meta"}):
            assert birth <= moment, (name, element)
            assert moment < last, (name, element)
    for resource in population.by_id.values():
        assert parse(resource["meta"]["lastUpdated"]) < AS_OF


def test_a_resource_reaches_the_database_after_what_it_reports(population):
    for name, resource, _ in population.of_patients():
        updated = parse(resource["meta"]["lastUpdated"])
        for element, moment in find_dates({key: value for key, value in resource.items() if key != "meta"}):
            assert moment <= updated, (name, element)


def test_periods_and_conditions_end_after_they_begin(population):
    for _, resource, _ in population.of_patients():
        for node in walk(resource):
            if "start" in node and "end" in node:
                assert parse(node["start"]) < parse(node["end"])
    for condition in population.resources["Condition"]:
        onset = parse(condition["onsetDateTime"])
        assert onset <= parse(condition["recordedDate"])
        if "abatementDateTime" in condition:
            assert onset <= parse(condition["abatementDateTime"])
            assert condition["clinicalStatus"]["coding"][0]["code"] != "active"


def test_what_happens_in_a_visit_lies_within_its_day(population):
    elements = ("effectiveDateTime", "authoredOn", "performedDateTime", "occurrenceDateTime", "recordedDate")
    for name, resource, _ in population.of_patients():
        for element in elements:
            if element in resource:
                start = population.by_id[resource["encounter"]["reference"]]["period"]["start"]
                assert resource[element][:10] == start[:10], (name, element)


def test_all_codes_stand_in_the_public_table_and_all_of_the_table_occurs(population):
    table = {(code.system, code.code): code.display for code in CODES}
    systems = {system for system, _ in table}
    seen = set()
    for resource in population.by_id.values():
        for node in walk(resource):
            if node.get("system") in systems and "code" in node:
                assert node["display"] == table[node["system"], node["code"]]
                seen.add((node["system"], node["code"]))
    assert set(table) - seen == set()


def test_quantities_carry_the_ucum_unit_of_their_code(population):
    units = {code.code: code.unit for code in CODES if code.unit}
    quantities = 0
    for observation in population.resources["Observation"]:
        for node in [observation, *observation.get("component", [])]:
            if "valueQuantity" in node:
                quantity = node["valueQuantity"]
                assert quantity["system"] == UCUM
                assert quantity["code"] == units[node["code"]["coding"][0]["code"]] == quantity["unit"]
                quantities += 1
    assert quantities > 1000


def test_some_results_carry_a_code_of_the_laboratory_beside_or_instead_of_loinc(population):
    systems = {
        tuple(coding["system"] for coding in observation["code"]["coding"])
        for observation in population.resources["Observation"]
    }
    assert {(LOCAL_LAB,), (LOCAL_LAB, "http://loinc.org")} <= systems


def test_the_group_of_all_patients_holds_them_once_and_clinics_divide_them(population):
    groups = {group["id"]: group for group in population.resources["Group"]}
    everyone = [f"Patient/{patient['id']}" for patient in population.resources["Patient"]]
    members = {
        name: [member["entity"]["reference"] for member in group["member"]] for name, group in groups.items()
    }
    assert members.pop("all-patients") == everyone
    assert sorted(reference for part in members.values() for reference in part) == sorted(everyone)
    assert all(group["quantity"] == len(group["member"]) for group in groups.values())


@pytest.mark.parametrize(
    ("what", "found"),
    [
        (
            "withheld ZIP areas",
            lambda p: any(a["postalCode"][:3] in {"036", "059", "556"} for a in p["address"]),
        ),
        ("a known day of death", lambda p: "deceasedDateTime" in p),
        ("a death without a day", lambda p: p.get("deceasedBoolean") is True),
        ("a life without a word of death", lambda p: not any(name.startswith("deceased") for name in p)),
        ("names beyond ASCII", lambda p: not str(p["name"]).isascii()),
        ("names with an apostrophe", lambda p: "'" in p["name"][0]["family"]),
    ],
)
def test_patients_include(population, what, found):
    assert any(found(patient) for patient in population.resources["Patient"]), what


def test_identifiers_are_unique_and_from_ranges_that_are_never_issued(population):
    patients = population.resources["Patient"]
    mrns, ssns = ([patient["identifier"][place]["value"] for patient in patients] for place in (0, 1))
    assert len(set(mrns)) == len(set(ssns)) == len(patients)
    assert all(re.fullmatch(r"9\d\d-[1-4]\d-\d{4}", ssn) for ssn in ssns)
    assert all(
        re.fullmatch(r"\(\d{3}\) 555-01\d\d", patient["telecom"][0]["value"])
        and patient["telecom"][1]["value"].endswith("@example.org")
        and patient["telecom"][1]["value"].isascii()
        for patient in patients
    )
