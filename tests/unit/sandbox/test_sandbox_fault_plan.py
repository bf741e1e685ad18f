"""Planned faults, path classes and the request log."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from pydantic import ValidationError

from cohortflow.errors import ConfigurationError
from cohortflow.sandbox import Fault, FaultPlan, SandboxConfig
from cohortflow.sandbox.faults import fault_response
from cohortflow.sandbox.request_log import RequestLog, RequestRecord, classify


def test_a_fault_hits_so_many_matching_requests_after_so_many():
    plan = FaultPlan([Fault(kind="unavailable", on="status", times=2, after=1)])
    hits = [plan.take("status", "GET") is not None for _ in range(5)]
    assert hits == [False, True, True, False, False]
    assert plan.waiting() == []


def test_a_fault_waits_for_its_class_and_method():
    plan = FaultPlan([Fault(kind="gone", on="status", method="DELETE")])
    assert plan.take("file", "DELETE") is None
    assert plan.take("status", "GET") is None
    assert plan.take("status", "DELETE").kind == "gone"


def test_faults_of_one_class_come_in_the_order_in_which_they_were_planned():
    plan = FaultPlan()
    plan.add(Fault(kind="unavailable", on="file"), Fault(kind="truncate", on="file"))
    assert [plan.take("file", "GET").kind for _ in range(2)] == ["unavailable", "truncate"]
    plan.add(Fault(kind="slow", on="file"))
    plan.clear()
    assert plan.take("file", "GET") is None


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "odd", "on": "file"}, {"kind": "slow", "on": "file", "times": 0}, {"kind": "slow", "on": "x"}],
)
def test_a_fault_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        Fault.model_validate(wrong)


def test_retry_after_as_seconds_and_as_date():
    seconds = fault_response(Fault(kind="too-many-requests", on="kickoff", retry_after=7))
    assert (seconds.status_code, seconds.headers["retry-after"]) == (429, "7")
    before = datetime.now(UTC)
    date = fault_response(
        Fault(kind="unavailable", on="status", retry_after=7, retry_after_format="http-date")
    ).headers["retry-after"]
    assert (parsedate_to_datetime(date) - before).total_seconds() >= 7
    assert "retry-after" not in fault_response(Fault(kind="too-many-requests", on="kickoff")).headers


def test_faults_of_the_token_endpoint_speak_oauth():
    response = fault_response(Fault(kind="unavailable", on="token"))
    assert b'"error":"temporarily_unavailable"' in response.body


@pytest.mark.parametrize(
    ("path", "path_class"),
    [
        ("/fhir/metadata", "metadata"),
        ("/fhir/.well-known/smart-configuration", "discovery"),
        ("/auth/token", "token"),
        ("/fhir/$export", "kickoff"),
        ("/fhir/Patient/$export", "kickoff"),
        ("/fhir/Group/g-1/$export", "kickoff"),
        ("/exports/abc", "status"),
        ("/exports/abc/Patient.000.ndjson", "file"),
        ("/storage/sig/Patient.000.ndjson", "storage"),
        ("/fhir", "search"),
        ("/fhir/Patient", "search"),
        ("/fhir/Patient/_search", "search"),
        ("/fhir/Patient/p1", "read"),
        ("/_sandbox/log", "control"),
        ("/favicon.ico", "other"),
    ],
)
def test_path_classes(path, path_class):
    assert classify(path) == path_class


def test_the_log_counts():
    log = RequestLog()
    for status in (202, 429, 202):
        log.add(RequestRecord("2024-01-01T00:00:00.000Z", "GET", "kickoff", status, 1.0, authorized=True))
    assert (log.count("kickoff"), log.count("kickoff", status=202), log.count("file")) == (3, 2, 0)
    assert log.count("kickoff", method="POST") == 0
    log.clear()
    assert log.records() == []


def test_settings_that_cannot_work_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="resources_per_file"):
        SandboxConfig(data=tmp_path, resources_per_file=0)
