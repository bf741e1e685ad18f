"""What happens to each column, before any data are read."""

import dataclasses
import json
import subprocess
import sys

import pytest

from cohortflow.errors import PolicyError
from cohortflow.model import Catalog, Column, ColumnType, PhiClass
from cohortflow.redaction import Override, Rule, load_policy, plan_redaction

STRING, DATE, DATETIME = ColumnType.STRING, ColumnType.DATE, ColumnType.DATETIME
PATIENT = (
    Column("patient_id", STRING, ("Patient.id",), tags={"cohortflow/role": "key"}, target="Patient"),
    Column("gender", STRING, ("Patient.gender",)),
    Column(
        "birth_date", DATE, ("Patient.birthDate",), tags={"ansi/type": "DATE"}, description="Day of birth"
    ),
    Column("deceased_at", DATETIME, ("Patient.deceasedDateTime",)),
    Column("city", STRING, ("Patient.address.city",)),
    Column("postal_code", STRING, ("Patient.address.postalCode",)),
    Column("mrn", STRING, ("Patient.identifier.value",)),
    Column("family_name", STRING, ("Patient.name.family",)),
    Column("vip", STRING, ("Patient.extension(http://hospital.example/vip).valueCode",)),
)
NOTE = Column("note", STRING, ("Observation.note.text",))


def policy(name, **changes):
    return load_policy(Catalog.default(), name).model_copy(update=changes)


def actions(plan):
    return {entry.column.name: str(entry.treatment) for entry in plan.columns}


def test_safe_harbor_of_a_patient():
    plan = plan_redaction("patient", PATIENT, policy("safe_harbor"))
    assert actions(plan) == {
        "patient_id": "hash",
        "gender": "keep",
        "birth_date": "generalize to year",
        "deceased_at": "generalize to year",
        "city": "drop",
        "postal_code": "generalize to zip3",
        "mrn": "drop",
        "family_name": "drop",
        "vip": "drop",
    }
    assert [(column.name, column.type) for column in plan.output_columns] == [
        ("patient_id", STRING),
        ("gender", STRING),
        ("birth_year", ColumnType.INTEGER),
        ("deceased_year", ColumnType.INTEGER),
        ("postal_code", STRING),
    ]
    assert plan.dropped == ("city", "mrn", "family_name", "vip")
    assert plan.renamed == {"birth_date": "birth_year", "deceased_at": "deceased_year"}
    assert plan.subject == "patient_id"


def test_shifted_dates_keep_their_names_and_types():
    plan = plan_redaction("patient", PATIENT, policy("shifted_dates"))
    assert actions(plan)["birth_date"] == "shift"
    types = {column.name: column.type for column in plan.output_columns}
    assert (types["birth_date"], types["deceased_at"]) == (DATE, DATETIME)


def test_a_limited_data_set_keeps_dates_city_and_zip_but_no_direct_identifier():
    found = actions(plan_redaction("patient", PATIENT, policy("limited_dataset")))
    kept = {name for name, action in found.items() if action == "keep"}
    assert kept == {"gender", "birth_date", "deceased_at", "city", "postal_code"}
    assert found["patient_id"] == "hash"


def test_output_columns_say_what_was_done_and_how_sensitive_they_still_are():
    plan = plan_redaction("patient", PATIENT, policy("safe_harbor"))
    birth = next(column for column in plan.output_columns if column.name == "birth_year")
    assert birth.phi is PhiClass.QUASI_IDENTIFIER
    assert birth.description == "Day of birth (year only)"
    assert birth.paths == ("Patient.birthDate",)
    assert "ansi/type" not in birth.tags


def test_the_plan_explains_every_column():
    rows = plan_redaction("patient", PATIENT, policy("safe_harbor")).explain()
    assert [row["column"] for row in rows] == [column.name for column in PATIENT]
    explained = {row["column"]: row for row in rows}
    assert explained["vip"]["class"] == "UNKNOWN"
    assert explained["vip"]["reason"] == "No rule knows its path."
    assert "first three digits" in explained["postal_code"]["reason"]
    assert all(row["reason"] for row in rows)


def test_a_plan_is_json_ready_and_names_the_departures():
    plan = plan_redaction(
        "observation",
        [PATIENT[0], NOTE],
        policy("shifted_dates"),
        {"note": Override(action="keep", reason="Approved by the ethics board.")},
    )
    document = json.loads(json.dumps(plan.to_dict()))
    assert document["overridden"] == ["note"]
    assert document["standard"] == "expert_determination"


def test_planning_twice_gives_the_same_plan():
    first = plan_redaction("patient", PATIENT, policy("safe_harbor"))
    classified = [entry.column for entry in first.columns]
    assert plan_redaction("patient", classified, policy("safe_harbor")) == first


def test_a_class_claimed_by_a_view_does_not_hide_the_path():
    claimed = dataclasses.replace(NOTE, phi=PhiClass.SAFE_CODE)
    assert actions(plan_redaction("v", [claimed], policy("limited_dataset"))) == {"note": "drop"}


def test_a_derived_column_follows_the_class_that_its_step_stated():
    derived = Column("target_code", STRING, phi=PhiClass.SAFE_CODE)
    unstated = Column("mystery", STRING)
    plan = plan_redaction("v", [derived, unstated], policy("limited_dataset"))
    assert actions(plan) == {"target_code": "keep", "mystery": "drop"}


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (
            Column("when", ColumnType.INTEGER, ("Patient.birthDate",)),
            "needs type date, datetime, string, not integer",
        ),
        (Column("when", DATE, ("Patient.birthDate",), collection=True), "does not work on lists"),
        (
            Column("zip", ColumnType.INTEGER, ("Patient.address.postalCode",)),
            "needs type string, not integer",
        ),
        (
            Column("zip", STRING, ("Patient.address.postalCode", "Patient.address.city")),
            "call for different treatments",
        ),
    ],
)
def test_what_cannot_be_redacted_is_dropped_with_the_reason(column, reason):
    plan = plan_redaction("patient", [PATIENT[0], column], policy("shifted_dates"))
    assert plan.dropped == (column.name,)
    assert reason in plan.columns[1].reason


def test_dates_without_a_patient_are_dropped_where_dates_are_shifted():
    plan = plan_redaction("location", [PATIENT[2]], policy("shifted_dates"))
    assert plan.dropped == ("birth_date",)
    assert "no column holds the patient's id" in plan.columns[0].reason


def test_the_most_specific_rule_wins_then_the_role_then_the_class():
    rules = (
        Rule(role="key", action="drop", reason="role"),
        Rule(path="Patient.**", action="mask", reason="wide"),
        Rule(path="Patient.gender", action="drop", reason="exact"),
    )
    plan = plan_redaction("patient", PATIENT[:2], policy("safe_harbor", rules=rules))
    assert [entry.reason for entry in plan.columns] == ["wide", "exact"]
    plan = plan_redaction("patient", PATIENT[:2], policy("safe_harbor", rules=rules[:1]))
    assert [entry.reason for entry in plan.columns] == ["role", "Default of QUASI_IDENTIFIER."]


def test_a_rule_that_breaks_the_standard_is_refused_at_the_column():
    rules = (Rule(path="**.birthDate", action="keep", reason="curious"),)
    with pytest.raises(PolicyError) as caught:
        plan_redaction("patient", PATIENT, policy("safe_harbor", rules=rules))
    assert caught.value.place == "patient.birth_date"
    assert "does not permit" in caught.value.message


def override(name, **fields):
    columns = (*PATIENT, NOTE)
    return plan_redaction("patient", columns, policy("shifted_dates"), {name: Override(**fields)})


def test_an_override_with_a_reason_is_carried_out_and_recorded():
    plan = override("note", action="keep", reason="Codes only, checked by hand.")
    entry = plan.columns[-1]
    assert entry.overridden
    assert entry.reason == "The study asks for it: Codes only, checked by hand."
    assert entry.output is not None


def test_dropping_more_needs_no_reason():
    assert "gender" in override("gender", action="drop").dropped


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("note", {"action": "keep"}, "gives no reason"),
        ("note", {"action": "keep", "reason": "  "}, "gives no reason"),
        ("family_name", {"action": "keep", "reason": "please"}, "does not let a study keep"),
        ("family_name", {"action": "hash", "reason": "please"}, "does not let a study hash"),
        ("birth_date", {"action": "keep", "reason": "please"}, "does not let a study keep"),
        ("patient_id", {"action": "keep", "reason": "please"}, "does not let a study keep"),
        ("note", {"action": "shift", "reason": "please"}, "Cannot shift"),
        ("notes", {"action": "drop"}, "does not have"),
    ],
)
def test_overrides_that_are_refused(name, fields, message):
    with pytest.raises(PolicyError) as caught:
        override(name, **fields)
    assert message in caught.value.message
    assert caught.value.place == f"patient.{name}"
    assert caught.value.remedy


def test_safe_harbor_permits_no_override():
    with pytest.raises(PolicyError, match="does not let a study keep"):
        plan_redaction("v", [NOTE], policy("safe_harbor"), {"note": Override(action="keep", reason="x")})


def test_two_columns_must_not_get_one_name():
    columns = (PATIENT[2], Column("birth_year", ColumnType.INTEGER, phi=PhiClass.NUMBER))
    with pytest.raises(PolicyError, match="'birth_year'"):
        plan_redaction("patient", columns, policy("safe_harbor"))


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (Column("a", STRING, ("Observation.subject.reference",), target="Patient"), "Patient"),
        (Column("a", STRING, ("Patient.id",)), "Patient"),
        (Column("a", STRING, ("Condition.recorder.reference",)), "Condition.recorder.reference"),
    ],
)
def test_ids_of_one_resource_type_are_of_one_kind(column, kind):
    assert plan_redaction("v", [column], policy("safe_harbor")).columns[0].kind == kind


def test_known_columns_hold_every_name_that_a_policy_could_give():
    plan = plan_redaction("patient", PATIENT, policy("limited_dataset"))
    assert {"birth_date", "birth_year", "birth_month", "deceased_year", "mrn"} <= set(plan.known_columns)


def test_planning_does_not_import_polars():
    code = "import sys, cohortflow.redaction; print('polars' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
