"""What Bulk Data 2.0, 3.0 and the ballot of 4.0 have besides the common core, and what links do."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from sandbox_records import (
    HTTP,
    KICK_OFF,
    export,
    exported,
    found,
    kick_off,
    lines,
    patient,
    wait_for_manifest,
    write_vendor_hospital,
)

from cohortflow.errors import ConfigurationError
from cohortflow.sandbox import CERNER, GENERIC, Fault, SandboxConfig, running_sandbox
from cohortflow.sandbox.personas import persona_variant

pytestmark = pytest.mark.integration

write_data = write_vendor_hospital
FHIR_JSON = {"Content-Type": "application/fhir+json"}


@pytest.fixture
def start(data):
    def run(persona=GENERIC, **settings):
        config = SandboxConfig(**({"data": data, "open": True, "export_seconds": 0} | settings))
        return running_sandbox(config, persona=persona)

    return run


@pytest.fixture
def sandbox(start):
    with start() as running:
        yield running


def post(sandbox, path, *parameters):
    body = {
        "resourceType": "Parameters",
        "parameter": [{"name": name, **value} for name, value in parameters],
    }
    url = f"{sandbox.base_url}/{path}"
    return HTTP.post(url, content=json.dumps(body), headers=KICK_OFF | FHIR_JSON)


def text(value):
    return {"valueString": value}


def test_elements_leave_what_is_named_and_mark_the_rest(sandbox):
    manifest = export(
        sandbox, "Group/g1/$export", _type="Patient,Condition", _elements="Condition.subject,id"
    )
    resources = {line["id"]: line for entry in manifest["output"] for line in lines(entry["url"])}
    assert set(resources["asthma"]) == {"resourceType", "id", "meta", "subject"}
    assert set(resources["p1"]) == {"resourceType", "id", "meta"}
    assert resources["p1"]["meta"]["tag"][0]["code"] == "SUBSETTED"
    assert kick_off(sandbox, "$export", _elements="Nonsense.x").status_code == 400


def test_associated_provenance(sandbox):
    plain = exported(export(sandbox, "Group/g1/$export"))
    assert "Provenance" not in plain
    asked = {"includeAssociatedData": "LatestProvenanceResources"}
    assert exported(export(sandbox, "Group/g1/$export", **asked))["Provenance"] == ["seal"]
    assert kick_off(sandbox, "Group/g1/$export", includeAssociatedData="All").status_code == 400


def test_b8_partial_manifests_while_the_export_runs(start):
    persona = replace(GENERIC, manifest_files=2)
    with start(persona, export_polls=3, retry_after=0) as sandbox:
        whole = exported(export(sandbox, "Group/g1/$export"))
        url = kick_off(sandbox, "Group/g1/$export", allowPartialManifests="true").headers["content-location"]
        statuses, manifests = [], []
        deadline = time.monotonic() + 30
        while url is not None:
            assert time.monotonic() < deadline
            answer = HTTP.get(url)
            statuses.append((answer.status_code, bool(answer.content)))
            if not answer.content:
                time.sleep(0.01)
                continue
            manifest = answer.json()
            following = [link["url"] for link in manifest.get("link", []) if link["relation"] == "next"]
            if following or answer.status_code == 200:
                manifests.append(manifest)
                url = following[0] if following else None
        assert (202, True) in statuses  # a manifest came while the export was still running
        assert statuses[-1] == (200, True)
        assert {manifest["transactionTime"] for manifest in manifests} == {manifests[0]["transactionTime"]}
        together = {}
        for manifest in manifests:
            assert 1 <= len(manifest["output"]) <= 2
            for resource_type, names in exported(manifest).items():
                together.setdefault(resource_type, []).extend(names)
        assert together == whole


def test_b8_a_manifest_that_was_shown_stays_as_it_is(start):
    with start(export_polls=5, retry_after=0) as sandbox:
        url = kick_off(sandbox, "$export", allowPartialManifests="true").headers["content-location"]
        while not (answer := HTTP.get(url)).content:
            time.sleep(0.01)
        first = [entry["url"] for entry in answer.json()["output"]]
        assert answer.status_code == 202
        assert HTTP.get(first[0]).status_code == 200
        last = wait_for_manifest(url).json()
        assert [entry["url"] for entry in last["output"]] == first
        assert last["link"][0]["relation"] == "next"


def test_b8_without_the_parameter_there_is_one_manifest(start):
    with start(replace(GENERIC, manifest_files=1), export_polls=2) as sandbox:
        url = kick_off(sandbox, "$export").headers["content-location"]
        assert [bool(HTTP.get(url).content) for _ in range(2)] == [False, False]
        manifest = wait_for_manifest(url).json()
        assert "link" not in manifest
        assert len(manifest["output"]) > 5


def test_b8_files_organized_by_patient(start):
    with start(resources_per_file=6) as sandbox:
        manifest = export(sandbox, "Group/g1/$export", organizeOutputBy="Patient")
        assert manifest["outputOrganizedBy"] == "Patient"
        assert all("type" not in entry for entry in manifest["output"])
        files = {entry["url"]: lines(entry["url"]) for entry in manifest["output"]}
        assert [len(files[entry["url"]]) for entry in manifest["output"]] == [
            entry["count"] for entry in manifest["output"]
        ]
        holders, patients = {}, set()
        for content in files.values():
            assert content[0]["resourceType"] == "Parameters"
            for resource in content:
                if resource["resourceType"] == "Parameters":
                    holder = resource["parameter"][0]["valueReference"]["reference"]
                    assert resource["parameter"][0]["name"] == "header"
                elif resource["resourceType"] == "Patient":
                    patients.add(resource["id"])
                    assert holder == f"Patient/{resource['id']}"
                else:
                    holders[resource["id"]] = (holder, resource["subject"]["reference"])
        assert patients == {"p1", "p2"}
        assert len(holders) == 15
        assert all(holder == subject for holder, subject in holders.values())
        continued = [entry["continuesInFile"] for entry in manifest["output"] if "continuesInFile" in entry]
        assert continued
        assert set(continued) < set(files)


def test_b8_an_organization_that_is_not_supported(sandbox):
    assert kick_off(sandbox, "$export", organizeOutputBy="Organization").status_code == 400
    lenient = {"Prefer": "respond-async, handling=lenient"}
    manifest = export(sandbox, "$export", lenient, organizeOutputBy="Organization", _type="Patient")
    assert [entry["type"] for entry in manifest["output"]] == ["Patient"]


def test_bulk_data_2_knows_no_parameters_of_3(start):
    with start(persona_variant("generic", bulk_version="2.0")) as sandbox:
        for parameter in ({"allowPartialManifests": "true"}, {"organizeOutputBy": "Patient"}):
            assert kick_off(sandbox, "$export", **parameter).status_code == 400


def test_b11_bulk_data_4(start):
    with start(persona_variant("generic", bulk_version="4.0")) as sandbox:
        refused = kick_off(sandbox, "$export")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
        assert post(sandbox, "$export", ("_type", text("Patient,Condition"))).status_code == 400
        started = post(sandbox, "$export", ("_type", text("Patient")), ("_type", text("Condition")))
        manifest = wait_for_manifest(started.headers["content-location"]).json()
        assert exported(manifest) == {"Patient": ["p1", "p2", "p3"], "Condition": ["asthma"]}
        assert manifest["outcome"] == []
        assert not {"request", "error"} & manifest.keys()


def test_an_edition_that_does_not_exist():
    with pytest.raises(ConfigurationError, match="no such edition"):
        persona_variant("generic", bulk_version="5.0")
    with pytest.raises(ConfigurationError, match="no such persona"):
        persona_variant("nobody")


def test_patients_named_in_a_post(sandbox):
    reference = {"valueReference": {"reference": "Patient/p2"}}
    started = post(sandbox, "Group/g1/$export", ("patient", reference), ("_type", text("Patient,Condition")))
    manifest = wait_for_manifest(started.headers["content-location"]).json()
    assert exported(manifest) == {"Patient": ["p2"], "Condition": ["asthma"]}


@pytest.mark.parametrize("history", [True, False])
def test_b10_new_members_come_with_their_history(start, history):
    with start(replace(GENERIC, new_member_history=history)) as sandbox:
        sandbox.put({"resourceType": "Condition", "id": "old", "subject": {"reference": "Patient/p3"}})
        since = export(sandbox, "Group/g1/$export")["transactionTime"]
        sandbox.set_time(datetime(2031, 1, 1, tzinfo=UTC))
        members = [{"entity": {"reference": f"Patient/{name}"}} for name in ("p1", "p3")]
        sandbox.put(
            {"resourceType": "Group", "id": "g1", "type": "person", "actual": True, "member": members}
        )
        types = "Patient,Condition"
        later = exported(export(sandbox, "Group/g1/$export", _since=since, _type=types))
        assert later == ({"Patient": ["p3"], "Condition": ["old"]} if history else {})
        moment = "2031-01-01T00:00:00Z"
        assert exported(export(sandbox, "Group/g1/$export", _since=moment, _type=types)) == {}


def test_b9_a_manifest_fetched_again_has_links_that_work(sandbox):
    url = kick_off(sandbox, "$export", _type="Patient").headers["content-location"]
    old = wait_for_manifest(url).json()["output"][0]["url"]
    sandbox.expire_links()
    gone = HTTP.get(old)
    assert (gone.status_code, gone.json()["resourceType"]) == (410, "OperationOutcome")
    new = HTTP.get(url).json()["output"][0]["url"]
    assert new != old
    assert len(lines(new)) == 3


def test_b9_links_end_by_themselves(start):
    with start(replace(GENERIC, link_seconds=0.3)) as sandbox:
        url = kick_off(sandbox, "$export", _type="Patient").headers["content-location"]
        old = wait_for_manifest(url).json()["output"][0]["url"]
        assert HTTP.get(old).status_code == 200
        time.sleep(0.4)
        assert HTTP.get(old).status_code == 410
        assert HTTP.get(HTTP.get(url).json()["output"][0]["url"]).status_code == 200


def test_files_have_an_etag_and_ranges_hold_to_it(sandbox):
    url = export(sandbox, "$export", _type="Patient")["output"][0]["url"]
    plain = {"Accept-Encoding": "identity"}
    whole = HTTP.get(url, headers=plain)
    assert whole.headers["accept-ranges"] == "bytes"
    same = HTTP.get(url, headers={"Range": "bytes=5-", "If-Range": whole.headers["etag"]})
    assert (same.status_code, same.content) == (206, whole.content[5:])
    other = HTTP.get(url, headers=plain | {"Range": "bytes=5-", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, whole.content)


def test_a_file_that_changed_is_not_given_in_part(sandbox):
    url = export(sandbox, "$export", _type="Patient")["output"][0]["url"]
    plain = {"Accept-Encoding": "identity"}
    before = HTTP.get(url, headers=plain)
    sandbox.faults.add(Fault(kind="changed-file", on="file"))
    again = HTTP.get(url, headers=plain | {"Range": "bytes=5-", "If-Range": before.headers["etag"]})
    assert again.status_code == 200
    assert again.content != before.content
    assert sorted(again.text.splitlines()) == sorted(before.text.splitlines())
    assert HTTP.get(url, headers=plain).content == again.content


@pytest.mark.parametrize("persona", [GENERIC, replace(CERNER, file_delivery="token")])
def test_a_server_without_ranges_sends_the_whole_file(start, persona):
    with start(replace(persona, serves_ranges=False)) as sandbox:
        url = export(sandbox, "Group/g1/$export", _type="Patient")["output"][0]["url"]
        answer = HTTP.get(url, headers={"Range": "bytes=5-", "Accept-Encoding": "identity"})
        assert answer.status_code == 200
        assert {"p1", "p2"} == {json.loads(line)["id"] for line in answer.text.splitlines()}
        assert "accept-ranges" not in answer.headers
        assert answer.num_bytes_downloaded == int(answer.headers["content-length"])


@pytest.mark.parametrize(
    ("resource_type", "params", "matches", "others"),
    [
        (
            "Observation",
            {"_id": "panel", "_include": "Observation:has-member"},
            ["panel"],
            ["systolic", "diastolic"],
        ),
        ("DiagnosticReport", {"_include": "DiagnosticReport:result"}, ["report"], ["lab3"]),
        ("MedicationRequest", {"_include": "MedicationRequest:medication:Medication"}, ["rx"], ["drug"]),
        ("MedicationRequest", {"_include": "MedicationRequest:medication:Patient"}, ["rx"], []),
        ("Condition", {"_include": "Condition:subject"}, ["asthma"], ["p2"]),
        ("Patient", {"_id": "p2", "_revinclude": "Condition:patient"}, ["p2"], ["asthma"]),
        ("Observation", {"_id": "lab0,lab1", "_revinclude": "Provenance:target"}, ["lab0", "lab1"], ["seal"]),
    ],
)
def test_includes(sandbox, resource_type, params, matches, others):
    bundle = HTTP.get(f"{sandbox.base_url}/{resource_type}", params=params).json()
    assert found([bundle]) == matches
    assert sorted(found([bundle], "include")) == sorted(others)
    assert bundle["total"] == len(matches)


def test_searches_without_a_total_and_with_an_unknown_include(sandbox):
    url = f"{sandbox.base_url}/Condition"
    assert "total" not in HTTP.get(url, params={"_total": "none"}).json()
    assert HTTP.get(url, params={"_include": "Condition:nonsense"}).status_code == 400
    assert HTTP.get(url, params={"_summary": "count"}).json()["total"] == 1


def test_the_log_names_paths_without_ids(sandbox):
    sandbox.put(patient("secret"))
    HTTP.get(f"{sandbox.base_url}/Patient/secret")
    HTTP.post(f"{sandbox.base_url}/Patient/_search", data={"_id": "secret"})
    HTTP.get(f"{sandbox.base_url}/Secret/secret")
    manifest = export(sandbox, "Group/g1/$export", _type="Patient")
    HTTP.get(manifest["output"][0]["url"], headers={"Range": "bytes=0-", "Authorization": "Bearer x"})
    records = [(record.method, record.path) for record in sandbox.log.records()]
    assert records[:4] == [
        ("GET", "/fhir/Patient/{id}"),
        ("POST", "/fhir/Patient/_search"),
        ("GET", ""),
        ("GET", "/fhir/Group/{id}/$export"),
    ]
    assert set(records[4:-1]) == {("GET", "/exports/{export}")}
    last = sandbox.log.records()[-1]
    assert (last.path, last.ranged, last.authorized) == ("/exports/{export}/{name}", True, True)


def test_b5_an_unfinished_export_may_say_when_as_a_date(start):
    with start(export_polls=1, retry_after=90, retry_after_format="http-date") as sandbox:
        answer = HTTP.get(kick_off(sandbox, "$export").headers["content-location"])
        wait = parsedate_to_datetime(answer.headers["retry-after"]) - datetime.now(UTC)
        assert 80 < wait.total_seconds() <= 92


def test_storage_that_is_busy_speaks_xml(start):
    with start("cerner") as sandbox:
        file = export(sandbox, "Group/g1/$export", _type="Patient")["output"][0]["url"]
        sandbox.faults.add(Fault(kind="unavailable", on="storage"))
        answer = HTTP.get(HTTP.get(file).headers["location"])
        assert (answer.status_code, "<Code>SlowDown</Code>" in answer.text) == (503, True)


def test_until_leaves_out_what_changed_later(sandbox):
    params = {"_type": "Patient,Observation", "_until": "2024-01-12T00:00:00Z"}
    assert exported(export(sandbox, "Group/g1/$export", **params)) == {"Patient": ["p1", "p2"]}
    assert kick_off(sandbox, "$export", _until="2024").status_code == 400
