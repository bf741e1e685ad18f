"""Audit events in the formats that receivers read."""

import hashlib
import hmac
from base64 import b64decode, b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from fhir.resources.R4B.auditevent import AuditEvent as FhirAuditEvent

from cohortflow.audit import Activity, AuditEvent, sign, to_fhir, to_ocsf
from cohortflow.errors import ConfigurationError, InputError

RELEASED = AuditEvent(
    activity=Activity.DATASETS_RELEASED,
    succeeded=True,
    recorded=datetime(2026, 11, 1, 2, 30, 0, 125000, UTC),
    actor="n.example",
    environment="prod",
    study="diabetes_nightly",
    run_id="scheduled__2026-11-01",
    source="epic_prod",
    policy="safe_harbor",
    facts={"rows": {"patient": 812}, "versions": {"patient": 3}, "plan": "0f" * 32},
)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.mark.parametrize("activity", Activity)
def test_every_activity_is_a_valid_fhir_audit_event(activity):
    event = replace(RELEASED, activity=activity, succeeded=activity is not Activity.LEAK_FOUND)
    resource = FhirAuditEvent.model_validate(to_fhir(event))
    assert resource.subtype[0].code == activity
    assert resource.outcome == ("8" if activity is Activity.LEAK_FOUND else "0")
    assert [agent.requestor for agent in resource.agent] == [True, False]
    assert resource.agent[0].who.display == "n.example"


def test_fhir_names_study_source_policy_and_counts():
    entities = to_fhir(RELEASED)["entity"]
    assert [entity["name"] for entity in entities] == ["diabetes_nightly", "epic_prod", "safe_harbor"]
    details = {detail["type"]: detail["valueString"] for detail in entities[0]["detail"]}
    assert details["run"] == "scheduled__2026-11-01"
    assert details["rows"] == '{"patient": 812}'


def test_events_without_study_and_source_are_valid_too():
    event = replace(RELEASED, study="", run_id="", source="", policy="", facts={})
    assert [one.name for one in FhirAuditEvent.model_validate(to_fhir(event)).entity] == ["datasets-released"]


@pytest.mark.parametrize(
    ("activity", "succeeded", "type_uid", "severity"),
    [
        (Activity.SOURCE_EXPORTED, True, 600501, 1),
        (Activity.DATASETS_RELEASED, True, 600505, 1),
        (Activity.ROWS_WITHDRAWN, True, 600507, 1),
        (Activity.STUDY_STARTED, True, 600599, 1),
        (Activity.STEP_FAILED, False, 600599, 3),
        (Activity.LEAK_FOUND, False, 600599, 4),
    ],
)
def test_ocsf_classifies_activities(activity, succeeded, type_uid, severity):
    event = to_ocsf(replace(RELEASED, activity=activity, succeeded=succeeded))
    assert (event["type_uid"], event["severity_id"]) == (type_uid, severity)
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert event["time"] == 1793500200125
    assert event["unmapped"]["rows"] == {"patient": 812}


def test_a_repeated_step_is_the_same_event_and_another_result_is_another():
    later = replace(RELEASED, recorded=datetime(2026, 11, 2, tzinfo=UTC))
    assert later.id == RELEASED.id
    assert replace(RELEASED, facts={"rows": {"patient": 813}}).id != RELEASED.id
    assert replace(RELEASED, run_id="manual").id != RELEASED.id


def test_what_is_of_no_run_is_an_event_each_time():
    event = replace(RELEASED, run_id="")
    assert replace(event, recorded=event.recorded + timedelta(seconds=1)).id != event.id


@pytest.mark.parametrize("value", [[{"name": "x"}], {"a": [1]}, list(range(501)), [["x"]]])
def test_facts_that_could_hold_a_table_are_refused(value):
    with pytest.raises(InputError, match="neither plain nor a short list"):
        replace(RELEASED, facts={"rows": value})


def test_signature_is_that_of_other_implementations():
    # Made with the reference implementation, standardwebhooks 1.0 for Python.
    sent = datetime.fromtimestamp(1614265330, UTC)
    headers = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", sent, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_receiver_verifies_with_the_standard_library():
    body = b"{}"
    headers = sign(SECRET, "id", datetime(2026, 11, 1, tzinfo=UTC), body)
    key = b64decode(SECRET.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


@pytest.mark.parametrize("secret", ["", "hunter2", "whsec_c2hvcnQ=", "whsec_" + "A" * 120])
def test_weak_or_malformed_secrets_are_refused_without_showing_them(secret):
    with pytest.raises(ConfigurationError) as caught:
        sign(secret, "id", datetime(2026, 11, 1, tzinfo=UTC), b"{}")
    assert "openssl rand" in str(caught.value)
    assert not secret or secret not in str(caught.value)
