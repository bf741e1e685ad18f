"""Bulk Data 2.0 against the running sandbox."""

import gzip
import json
import os
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest
from sandbox_records import (
    HTTP,
    KICK_OFF,
    OBSERVATIONS,
    SECRET_NAME,
    export,
    exported,
    kick_off,
    patient,
    wait_for_manifest,
    write_hospital,
)

from cohortflow.sandbox import SandboxConfig, running_sandbox

pytestmark = pytest.mark.integration

write_data = write_hospital
ALL = [resource["id"] for resource in OBSERVATIONS]


@pytest.fixture
def start(data):
    def run(**settings):
        return running_sandbox(
            SandboxConfig(**({"data": data, "open": True, "export_seconds": 0} | settings))
        )

    return run


@pytest.fixture
def sandbox(start):
    with start() as running:
        yield running


def test_system_export_holds_everything_once(sandbox):
    manifest = export(sandbox, "$export")
    assert exported(manifest) == {
        "Group": ["g1"],
        "Observation": ALL,
        "Patient": ["p1", "p2", "p3"],
        "Practitioner": ["d1"],
    }
    assert manifest["request"] == f"{sandbox.base_url}/$export"
    assert manifest["requiresAccessToken"] is False
    assert manifest["deleted"] == manifest["error"] == []


def test_patient_export_holds_the_compartments_and_what_explains_them(sandbox):
    assert exported(export(sandbox, "Patient/$export")) == {
        "Observation": ALL,
        "Patient": ["p1", "p2", "p3"],
        "Practitioner": ["d1"],
    }


def test_group_export_holds_its_members_only(sandbox):
    assert exported(export(sandbox, "Group/g1/$export")) == {
        "Observation": ALL[:15],
        "Patient": ["p1", "p2"],
        "Practitioner": ["d1"],
    }


def test_type_since_and_type_filter(sandbox):
    assert exported(export(sandbox, "Group/g1/$export", _type="Patient,Condition")) == {
        "Patient": ["p1", "p2"]
    }
    since = export(sandbox, "$export", _type="Observation", _since="2024-01-15T00:00:00Z")
    assert exported(since) == {"Observation": ALL[10:]}
    filters = ["Observation?category=laboratory&code=http://loinc.org|1-0", "Observation?date=2024-01-01"]
    filtered = export(sandbox, "$export", _type="Observation,Practitioner", _typeFilter=filters)
    assert exported(filtered) == {
        "Observation": ["o00", "o01", "o05", "o09", "o13", "o17"],
        "Practitioner": ["d1"],
    }
    assert exported(export(sandbox, "$export", _type="Patient", _typeFilter="Patient?gender=male")) == {}


def test_post_with_parameters(sandbox):
    parameters = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "_type", "valueString": "Patient"},
            {"name": "patient", "valueReference": {"reference": "Patient/p2"}},
        ],
    }
    headers = KICK_OFF | {"Content-Type": "application/fhir+json"}
    url = f"{sandbox.base_url}/Group/g1/$export"
    started = HTTP.post(url, content=json.dumps(parameters), headers=headers)
    assert started.status_code == 202
    manifest = wait_for_manifest(started.headers["content-location"]).json()
    assert exported(manifest) == {"Patient": ["p2"]}
    parameters["parameter"][1]["valueReference"]["reference"] = "Patient/p3"  # not in the Group
    assert HTTP.post(url, content=json.dumps(parameters), headers=headers).status_code == 400
    assert HTTP.post(url, data={"_type": "Patient"}, headers=KICK_OFF).status_code == 415


def test_files_are_split(start):
    with start(resources_per_file=6) as sandbox:
        manifest = export(sandbox, "$export", _type="Observation")
        assert [entry["count"] for entry in manifest["output"]] == [6, 6, 6, 2]
        assert exported(manifest)["Observation"] == ALL


@pytest.mark.parametrize(
    ("path", "headers", "params", "status"),
    [
        ("$export", {"Accept": "*/*"}, {}, 406),
        ("$export", {"Prefer": "handling=strict"}, {}, 400),
        ("$export", {}, {"_unknown": "id"}, 400),
        ("$export", {}, {"_since": "2024"}, 400),
        ("$export", {}, {"_outputFormat": "text/csv"}, 400),
        ("$export", {}, {"_type": "Nonsense"}, 400),
        ("Group/unknown/$export", {}, {}, 404),
        ("Observation/$export", {}, {}, 404),
    ],
)
def test_refused_kick_offs_explain_themselves(sandbox, path, headers, params, status):
    answer = kick_off(sandbox, path, headers, **params)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/fhir+json"
    assert answer.json()["resourceType"] == "OperationOutcome"


def test_lenient_kick_off_reports_what_it_ignored(sandbox):
    headers = {"Prefer": "respond-async, handling=lenient"}
    manifest = export(sandbox, "$export", headers, _unknown="id", _type="Patient")
    assert [entry["type"] for entry in manifest["error"]] == ["OperationOutcome"]
    outcome = HTTP.get(manifest["error"][0]["url"]).json()
    assert "_unknown" in outcome["issue"][0]["diagnostics"]
    assert outcome["issue"][0]["severity"] == "warning"
    assert exported(manifest) == {"Patient": ["p1", "p2", "p3"]}


def test_a_running_export_says_how_far_it_is(start):
    with start(export_polls=2, retry_after=7) as sandbox:
        url = kick_off(sandbox, "$export").headers["content-location"]
        answers = [HTTP.get(url) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 202]
        assert {answer.headers["retry-after"] for answer in answers} == {"7"}
        assert "%" in answers[0].headers["x-progress"]
        done = wait_for_manifest(url)
        assert done.headers["content-type"] == "application/json"
        assert parsedate_to_datetime(done.headers["expires"]) > datetime.now(UTC)


def test_a_deleted_export_is_gone(sandbox):
    url = kick_off(sandbox, "$export").headers["content-location"]
    file = wait_for_manifest(url).json()["output"][0]["url"]
    assert HTTP.delete(url).status_code == 202
    assert [HTTP.get(url).status_code, HTTP.delete(url).status_code, HTTP.get(file).status_code] == [404] * 3


def test_an_unfinished_export_can_be_deleted(start):
    with start(export_seconds=3600) as sandbox:
        url = kick_off(sandbox, "$export").headers["content-location"]
        assert HTTP.get(url).status_code == 202
        assert HTTP.delete(url).status_code == 202
        assert HTTP.get(url).status_code == 404


def test_exports_expire(start):
    with start(export_lifetime=0) as sandbox:
        url = kick_off(sandbox, "$export").headers["content-location"]
        assert wait_for_manifest(url).status_code == 404
    with start() as sandbox:
        manifest = export(sandbox, "$export")
        sandbox.expire_exports()
        gone = HTTP.get(manifest["output"][0]["url"])
        assert gone.status_code == 404
        assert gone.json()["resourceType"] == "OperationOutcome"


def test_one_export_at_a_time(start):
    with start(max_running_exports=1, export_polls=1) as sandbox:
        first = kick_off(sandbox, "$export").headers["content-location"]
        second = kick_off(sandbox, "$export")
        assert second.status_code == 429
        assert second.headers["retry-after"] == "1"
        assert second.json()["issue"][0]["code"] == "throttled"
        wait_for_manifest(first)
        assert kick_off(sandbox, "$export").status_code == 202


def test_transaction_time_is_the_next_since(sandbox):
    first = export(sandbox, "$export")
    assert exported(export(sandbox, "$export", _since=first["transactionTime"])) == {}
    moment = datetime.fromisoformat(first["transactionTime"]) + timedelta(hours=1)
    sandbox.set_time(moment)
    sandbox.put(patient("p4"), OBSERVATIONS[3] | {"meta": {}, "status": "amended"})
    second = export(sandbox, "$export", _since=first["transactionTime"])
    assert datetime.fromisoformat(second["transactionTime"]) == moment
    assert exported(second) == {"Observation": ["o03"], "Patient": ["p4"]}
    assert exported(export(sandbox, "$export", _since=second["transactionTime"])) == {}


def test_what_is_newer_than_the_transaction_time_is_left_out(sandbox):
    sandbox.set_time(datetime(2024, 1, 20, tzinfo=UTC))
    manifest = export(sandbox, "$export", _type="Observation")
    assert manifest["transactionTime"] == "2024-01-20T00:00:00.000Z"
    assert exported(manifest) == {"Observation": ALL[:10]}


def test_deletions_are_listed_since_a_time(sandbox):
    before = export(sandbox, "Group/g1/$export")
    sandbox.set_time(datetime.fromisoformat(before["transactionTime"]) + timedelta(hours=1))
    sandbox.delete("Patient", "p2")
    sandbox.delete("Observation", "o01")
    sandbox.delete("Observation", "o19")  # of p3, who is not in the Group
    manifest = export(sandbox, "Group/g1/$export", _since=before["transactionTime"])
    assert [entry["type"] for entry in manifest["deleted"]] == ["Bundle"]
    bundle = HTTP.get(manifest["deleted"][0]["url"]).json()
    assert bundle["type"] == "transaction"
    assert [entry["request"] for entry in bundle["entry"]] == [
        {"method": "DELETE", "url": "Patient/p2"},
        {"method": "DELETE", "url": "Observation/o01"},
    ]
    full = export(sandbox, "Group/g1/$export", _type="Patient")
    assert full["deleted"] == []
    assert exported(full) == {"Patient": ["p1"]}


def test_files_come_whole_compressed_or_in_ranges(sandbox):
    url = export(sandbox, "$export", _type="Patient")["output"][0]["url"]
    whole = HTTP.get(url, headers={"Accept-Encoding": "identity"})
    assert whole.headers["content-type"] == "application/fhir+ndjson"
    assert int(whole.headers["content-length"]) == len(whole.content)
    with HTTP.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as packed:
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(b"".join(packed.iter_raw())) == whole.content
    part = HTTP.get(url, headers={"Range": "bytes=10-", "Accept-Encoding": "gzip"})
    assert part.status_code == 206
    assert part.content == whole.content[10:]


def test_storage_elsewhere_takes_no_token(start):
    with start(file_delivery="redirect") as sandbox:
        url = export(sandbox, "$export", _type="Patient")["output"][0]["url"]
        hop = HTTP.get(url)
        assert hop.status_code == 307
        target = hop.headers["location"]
        assert httpx.URL(target).host != httpx.URL(url).host
        assert HTTP.get(target).text.count("\n") == 3
        assert HTTP.get(target, headers={"Authorization": "Bearer x"}).status_code == 400


def test_export_files_leave_no_trace_after_the_end(start, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with start() as sandbox:
        export(sandbox, "$export")
        assert list(tmp_path.rglob("Patient.000.ndjson"))
    assert list(tmp_path.iterdir()) == []


def test_logs_hold_no_patient_data(sandbox, caplog):
    caplog.set_level("DEBUG")
    export(sandbox, "Group/g1/$export", _typeFilter="Patient?_id=p1")
    HTTP.get(f"{sandbox.base_url}/Patient/p2")
    HTTP.get(f"{sandbox.base_url}/Patient", params={"name": SECRET_NAME})
    HTTP.get(f"{sandbox.base_url}/Observation", params={"patient": "p1", "foo": SECRET_NAME})
    HTTP.get(f"{sandbox.base_url}/Nonsense/{SECRET_NAME}")
    ours = [entry for entry in caplog.records if not entry.name.startswith(("httpx", "httpcore", "asyncio"))]
    assert {entry.name for entry in ours} >= {"cohortflow.sandbox.access"}
    text = "\n".join(entry.getMessage() for entry in ours) + str(list(sandbox.log.to_json()))
    assert "kickoff" in text
    assert not [word for word in (SECRET_NAME, "p1", "p2", "g1", "_typeFilter") if word in text]


@pytest.mark.skipif("COHORTFLOW_SHARED" not in os.environ, reason="COHORTFLOW_SHARED names no folder")
def test_a_hundred_synthetic_patients():
    folder = Path(os.environ["COHORTFLOW_SHARED"]) / "data" / "synthea-100"
    want = {
        path.name.split(".")[0]: [
            json.loads(line)["id"] for line in gzip.decompress(path.read_bytes()).splitlines()
        ]
        for path in folder.glob("*.ndjson.gz")
    }
    with running_sandbox(SandboxConfig(data=folder, open=True, export_seconds=0)) as sandbox:
        for path in ("$export", "Group/all-patients/$export"):
            found = exported(export(sandbox, path))
            found.pop("Group", None)  # the sandbox made it up
            assert found == want


def test_many_exports_at_once(sandbox):
    urls = [kick_off(sandbox, "$export").headers["content-location"] for _ in range(12)]
    assert len(set(urls)) == 12
    for url in urls:
        assert exported(wait_for_manifest(url).json())["Observation"] == ALL
