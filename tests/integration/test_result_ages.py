"""Ages that were recorded as results, in a study: capped in every table, and the gate sees to it."""

import dataclasses
import json
from datetime import date

import polars as pl
import pytest
import yaml
from integration_data import write_records

from cohortflow.errors import LeakError
from cohortflow.redaction import NO_AGES
from cohortflow.sandbox import SandboxConfig, running_sandbox
from cohortflow.workflow.steps import redact as redact_step
from cohortflow.workflow.steps.release import read_release

pytestmark = pytest.mark.integration

STUDY = "everybodys_results"
BARE = "bare_values"
VIEWS = ["patient", "observation", "observation_component", BARE]
LOINC = "http://loinc.org"
AGE, PRESSURE = ("http://lab.example", "AGE"), (LOINC, "8480-6")


def concept(*codings):
    return {"coding": [{"system": system, "code": code} for system, code in codings]}


def quantity(value, unit):
    return {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}


def observation(number, patient, *codings, **value):
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "status": "final",
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": "2026-02-03T10:00:00Z",
        "code": concept(*codings),
        **value,
    }


RECORDS = [
    *({"resourceType": "Patient", "id": name, "gender": "male", "birthDate": "1931-05-06"} for name in "ab"),
    observation(1, "a", AGE, (LOINC, "30525-0"), valueQuantity=quantity(94, "a")),
    observation(2, "a", (LOINC, "30525-0"), AGE, valueQuantity=quantity(1136, "mo")),
    observation(3, "b", (LOINC, "29553-5"), valueQuantity=quantity(88, "a")),
    observation(4, "b", PRESSURE, valueQuantity=quantity(194, "mm[Hg]")),
    observation(5, "b", PRESSURE, valueQuantity=quantity(94, "mm[Hg]")),
    observation(6, "a", (LOINC, "39016-1"), valueInteger=96),
    observation(
        7,
        "b",
        (LOINC, "85354-9"),
        component=[
            {"code": concept((LOINC, "35659-2")), "valueQuantity": quantity(94, "a")},
            {"code": concept(PRESSURE), "valueQuantity": quantity(195, "mm[Hg]")},
        ],
    ),
]
BARE_VIEW = {
    "resourceType": "ViewDefinition",
    "name": BARE,
    "title": "Values without their codes",
    "status": "active",
    "resource": "Observation",
    "select": [
        {
            "column": [
                {
                    "name": "observation_id",
                    "path": "getResourceKey()",
                    "tag": [{"name": "cohortflow/role", "value": "key"}],
                },
                {
                    "name": "patient_id",
                    "path": "subject.getReferenceKey(Patient)",
                    "tag": [{"name": "cohortflow/role", "value": "subject"}],
                },
                {"name": "value", "path": "value.ofType(Quantity).value", "type": "decimal"},
                {"name": "old", "path": "value.ofType(integer) > 90", "type": "boolean"},
            ]
        }
    ],
}
TEMPLATE = {
    "template": STUDY,
    "title": "Results",
    "description": "The results of everybody.",
    "parameters": {"policy": {"type": "string", "default": "safe_harbor", "help": "Policy"}},
    "workflow": {
        "source": {"connection": "fhir_default", "level": "system"},
        "views": VIEWS,
        "redaction": {"policy": "${policy}"},
    },
}


@pytest.fixture
def site(project_copy, make_site, tmp_path):
    root = project_copy.root
    catalog = root / "include" / "catalog"
    environment = catalog / "environments" / "dev.yaml"
    strict = "weakest_redaction: safe_harbor"
    assert strict in environment.read_text()
    environment.write_text(environment.read_text().replace(strict, "weakest_redaction: limited_dataset"))
    (catalog / "views" / f"{BARE}.json").write_text(json.dumps(BARE_VIEW))
    (catalog / "expectations" / f"{BARE}.json").write_text(json.dumps({"name": BARE, "expectations": []}))
    (root / "templates" / f"{STUDY}.yaml").write_text(yaml.safe_dump(TEMPLATE))
    study = {"study": STUDY, "title": "Results", "template": STUDY, "start_date": date(2026, 1, 1)}
    (root / "dags/studies" / f"{STUDY}.yaml").write_text(yaml.safe_dump(study))
    data = write_records(tmp_path / "records", *RECORDS)
    with running_sandbox(SandboxConfig(data=data, export_seconds=0.1)) as sandbox:
        made = make_site(sandbox, str(tmp_path / "lake"), tmp_path)
        yield dataclasses.replace(made, project=project_copy)


def numbers(table, column):
    return sorted(table[column].drop_nulls())


@pytest.mark.parametrize("policy", ["safe_harbor", "shifted_dates"])
def test_no_table_tells_an_age_over_89(site, policy):
    run, _ = site.run(STUDY, policy=policy)
    rows = site.all_rows(run)
    # A row for each coding of the two that are ages.
    assert numbers(rows["observation"], "value_quantity") == [88, 90, 90, 94, 194, 1080, 1080]
    assert numbers(rows["observation"], "value_integer") == [90]
    assert numbers(rows["observation_component"], "value_quantity") == [90, 195]
    assert numbers(rows[BARE], "value") == [88, 90, 94, 194, 1080]
    assert rows[BARE]["old"].drop_nulls().to_list() == []
    document = read_release(run.datasets, run.interval.key)
    assert document["capped_ages"][BARE] == ["value", "old"]
    assert "code that is known to mean" in document["guarantee"]
    assert not run.work.list()


def test_policies_that_tell_ages_tell_these(site):
    run, _ = site.run(STUDY, policy="synthetic_only")
    rows = site.all_rows(run)
    assert numbers(rows[BARE], "value") == [88, 94, 94, 194, 1136]
    assert rows[BARE]["old"].drop_nulls().to_list() == [True]


def test_ages_that_redaction_missed_stop_the_study(site, monkeypatch):
    monkeypatch.setattr(redact_step, "read_ages", lambda *_: NO_AGES)
    with pytest.raises(LeakError) as caught:
        site.run(STUDY)
    told = str(caught.value)
    assert "observation.value_quantity: tells an age above the cap (2)" in told
    assert "observation.value_integer: tells an age above the cap (1)" in told
    assert "observation_component.value_quantity: tells an age above the cap (1)" in told


def test_dates_that_an_expert_keeps_pass_the_gate_and_are_told(site):
    why = "Ages to the day are needed; the risk was found to be very small."
    keep = {"patient": {"birth_date": {"action": "keep", "reason": why}}}
    template = {**TEMPLATE, "workflow": {**TEMPLATE["workflow"], "redaction": {"policy": "expert"}}}
    template["parameters"] = {}
    template["workflow"]["redaction"]["overrides"] = keep
    (site.project.root / "templates" / f"{STUDY}.yaml").write_text(yaml.safe_dump(template))
    run, _ = site.run(STUDY)
    assert site.rows(run, "patient")["birth_date"].to_list() == [date(1931, 5, 6)] * 2
    document = read_release(run.datasets, run.interval.key)
    assert document["leak_scan"]["decided"] == {"patient.birth_date": "dates"}
    assert [item["reason"] for item in document["overrides"]["patient"]] == [f"The study asks for it: {why}"]
    # The decision is of this column: others still are looked at.
    times = site.rows(run, "observation")["effective_at"]
    assert pl.Series([True]).equals((times.dt.date() != date(2026, 2, 3)).unique())
