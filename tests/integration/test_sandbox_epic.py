"""The sandbox as Epic: each test names the behaviour of docs/sandbox.md that it shows."""

import time
from dataclasses import replace

import pytest
from sandbox_records import (
    HTTP,
    NOTE,
    export,
    exported,
    found,
    issues,
    kick_off,
    lines,
    pages,
    remarks,
    token_form,
    wait_for_manifest,
    write_vendor_hospital,
)

from cohortflow.sandbox import EPIC, Fault, SandboxConfig, generate_client_key, running_sandbox

pytestmark = pytest.mark.integration

write_data = write_vendor_hospital
PRIVATE, PUBLIC = generate_client_key("RS384")
ME = {"Epic-Client-ID": "app"}


@pytest.fixture
def start(data):
    def run(persona=EPIC, **settings):
        config = SandboxConfig(**({"data": data, "open": True, "export_seconds": 0} | settings))
        return running_sandbox(config, persona=persona)

    return run


@pytest.fixture
def sandbox(start):
    with start(replace(EPIC, kickoff_window=None)) as running:
        yield running


@pytest.fixture(scope="module")
def reading(data):
    """A server for tests that change nothing."""
    config = SandboxConfig(data=data, open=True, page_size=2)
    with running_sandbox(config, persona="epic") as running:
        yield running


def search(sandbox, resource_type, **params):
    return HTTP.get(f"{sandbox.base_url}/{resource_type}", params=params, headers=ME)


@pytest.mark.parametrize("path", ["$export", "Patient/$export"])
def test_e1_only_groups_are_exported(reading, path):
    answer = kick_off(reading, path, ME)
    assert answer.status_code == 400
    assert answer.json()["issue"][0]["code"] == "not-supported"


def test_e1_groups_and_all_patients_cannot_be_searched_for(reading):
    assert search(reading, "Group").status_code == 400
    unscoped = search(reading, "Patient")
    assert (unscoped.status_code, issues(unscoped.json())) == (400, ["4111"])
    assert found([search(reading, "Patient", _id="p1").json()]) == ["p1"]
    assert HTTP.get(f"{reading.base_url}/Group/g1", headers=ME).status_code == 200


def test_e3_since_is_ignored_and_resources_have_no_last_updated(sandbox):
    manifest = export(sandbox, "Group/g1/$export", ME, _since="2030-01-01T00:00:00Z", _type="Patient")
    patients = lines(manifest["output"][0]["url"], ME)
    assert [patient["id"] for patient in patients] == ["p1", "p2"]
    assert not any("meta" in patient for patient in patients)
    assert issues(lines(manifest["error"][0]["url"], ME)[0]) == ["59100"]
    read = HTTP.get(f"{sandbox.base_url}/Observation/lab0", headers=ME).json()
    assert "meta" not in read
    assert "deleted" not in manifest


def test_e4_a_group_cannot_be_exported_twice_in_a_day(start):
    with start() as sandbox:
        export(sandbox, "Group/g1/$export", ME)
        again = kick_off(sandbox, "Group/g1/$export", ME)
        assert again.status_code == 429
        assert "The Client requested this Group too recently" in again.json()["issue"][0]["diagnostics"]
        assert "retry-after" not in again.headers
        sandbox.end_kickoff_windows()
        assert kick_off(sandbox, "Group/g1/$export", ME).status_code == 202


def test_e4_the_window_ends_and_may_be_told(start):
    persona = replace(EPIC, kickoff_window=1.0, kickoff_window_status=400, kickoff_window_retry_after=True)
    with start(persona) as sandbox:
        assert kick_off(sandbox, "Group/g1/$export", ME).status_code == 202
        again = kick_off(sandbox, "Group/g1/$export", ME)
        assert (again.status_code, again.headers["retry-after"]) == (400, "1")
        deadline = time.monotonic() + 20
        while (answer := kick_off(sandbox, "Group/g1/$export", ME)).status_code == 400:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert answer.status_code == 202


def test_e5_files_are_small(start):
    assert EPIC.resources_per_file == 3000
    with start(resources_per_file=2) as sandbox:
        manifest = export(sandbox, "Group/g1/$export", ME, _type="Observation")
        assert [entry["count"] for entry in manifest["output"]] == [2, 2, 2, 1]


def test_e7_e8_assertions(start):
    with start(open=False, clients={"app": PUBLIC}) as sandbox:
        for length, status in ((151, 200), (152, 401)):
            form = token_form(PRIVATE, sandbox.token_url, jti=f"{length:0{length}}")
            assert HTTP.post(sandbox.token_url, data=form).status_code == status
    with start(replace(EPIC, jwks_url_only=True), open=False, clients={"app": PUBLIC}) as sandbox:
        answer = HTTP.post(sandbox.token_url, data=token_form(PRIVATE, sandbox.token_url))
        assert answer.status_code == 401
        assert "JWKS URL" in answer.json()["error_description"]


def test_e10_the_client_id_stands_in_a_header(start):
    with start(open=False, clients={"app": PUBLIC}) as sandbox:
        answer = HTTP.post(sandbox.token_url, data=token_form(PRIVATE, sandbox.token_url))
        token = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        url = f"{sandbox.base_url}/Patient/p1"
        for header, status in ({}, 400), ({"Epic-Client-ID": "other"}, 400), (ME, 200):
            assert HTTP.get(url, headers=token | header).status_code == status
        manifest = export(sandbox, "Group/g1/$export", token | ME, _type="Patient")
        file = manifest["output"][0]["url"]
        assert [HTTP.get(file, headers=headers).status_code for headers in (token, token | ME)] == [400, 200]


def test_e11_a_kick_off_accepts_fhir_json(reading):
    assert (
        kick_off(reading, "Group/g1/$export", ME | {"Accept": "application/fhir+ndjson"}).status_code == 406
    )


@pytest.mark.parametrize(
    ("value", "ids", "ignored"),
    [
        ("Observation?category=vital-signs,laboratory", ["panel"], True),
        ("Observation?category=vital-signs%2Claboratory", ["lab0", "lab1", "lab2", "panel"], False),
    ],
)
def test_e12_a_plain_comma_ends_a_filter(sandbox, value, ids, ignored):
    manifest = export(sandbox, "Group/g1/$export", ME, _type="Observation", _typeFilter=value)
    assert sorted(exported(manifest, ME)["Observation"]) == ids
    assert bool(manifest["error"]) is ignored
    for entry in manifest["error"]:
        assert issues(lines(entry["url"], ME)[0]) == ["59100"]


def test_e13_observations_need_a_category_or_code(reading):
    answer = search(reading, "Observation", patient="p1")
    assert (answer.status_code, issues(answer.json())) == (400, ["59108"])
    assert search(reading, "Observation", patient="p1", category="procedure").status_code == 400
    assert search(reading, "Observation", patient="p1", code="lab0-0").status_code == 200
    assert search(reading, "EpisodeOfCare", patient="p1").status_code == 400


def test_e14_members_are_withheld_but_can_be_read(sandbox):
    everything = exported(export(sandbox, "Group/g1/$export", ME), ME)
    assert sorted(everything["Observation"]) == [
        *("lab0", "lab1", "lab2", "panel", "social0", "social1", "social2")
    ]
    walk = pages(f"{sandbox.base_url}/Observation", {"patient": "p1", "category": "vital-signs"}, ME)
    assert found(walk) == ["panel"]
    for name in ("systolic", "diastolic", "lab3"):
        assert HTTP.get(f"{sandbox.base_url}/Observation/{name}", headers=ME).json()["id"] == name


def test_e14_withholding_can_be_switched_off(start):
    with start(replace(EPIC, withheld_members=frozenset())) as sandbox:
        assert len(exported(export(sandbox, "Group/g1/$export", ME), ME)["Observation"]) == 10


def test_e15_short_and_empty_pages_have_a_next_link(reading):
    bundles = list(
        pages(f"{reading.base_url}/Observation", {"patient": "p1", "category": "social-history"}, ME)
    )
    assert [len(found([bundle])) for bundle in bundles] == [0, 0, 0, 1, 2]
    assert found(bundles) == ["social0", "social1", "social2"]
    assert not any("total" in bundle for bundle in bundles)
    counted = search(reading, "Observation", patient="p1", category="social-history", _total="accurate")
    assert counted.json()["total"] == 3


def test_e16_nothing_found_is_a_warning(reading):
    bundle = search(reading, "Condition", patient="p1").json()
    assert remarks(bundle) == ["4101"]
    assert found([bundle]) == []


def test_e16_deleted_merged_and_unknown(sandbox):
    sandbox.delete("Condition", "asthma")
    gone = HTTP.get(f"{sandbox.base_url}/Condition/asthma", headers=ME)
    assert (gone.status_code, issues(gone.json())) == (410, ["4103"])
    unknown = HTTP.get(f"{sandbox.base_url}/Condition/nothing", headers=ME)
    assert (unknown.status_code, issues(unknown.json())) == (404, ["4102"])
    sandbox.merge("Patient", "p3", "p1")
    merged = HTTP.get(f"{sandbox.base_url}/Patient/p3", headers=ME)
    assert (merged.status_code, issues(merged.json())) == (301, ["4107"])
    assert HTTP.get(merged.headers["location"], headers=ME).json()["id"] == "p1"


def test_e16_a_page_session_ends(sandbox):
    bundle = search(sandbox, "Observation", patient="p1", category="laboratory", _count=1).json()
    sandbox.expire_pages()
    answer = HTTP.get(bundle["link"][1]["url"], headers=ME)
    assert (answer.status_code, issues(answer.json())) == (400, ["4113"])


def test_e16_too_many_patients(reading):
    names = ",".join(f"p{number}" for number in range(101))
    answer = search(reading, "Condition", patient=names)
    assert (answer.status_code, issues(answer.json())) == (400, ["4127"])


def test_e16_unknown_parameters_are_ignored_with_a_warning(reading):
    bundle = search(reading, "Condition", patient="p2", nonsense="1", _lastUpdated="ge2030").json()
    assert found([bundle]) == ["asthma"]
    assert remarks(bundle) == ["4122", "4122"]
    outcome = bundle["entry"][-1]["resource"]["issue"][0]
    assert outcome["location"] == ["http._lastUpdated"]
    assert outcome["severity"] == "warning"


def test_e16_records_behind_the_glass(sandbox):
    sandbox.break_the_glass("p2")
    for path in ("Patient/p2", "Condition/asthma", "Condition?patient=p2"):
        answer = HTTP.get(f"{sandbox.base_url}/{path}", headers=ME)
        assert (answer.status_code, issues(answer.json())) == (403, ["4130"])
    manifest = export(sandbox, "Group/g1/$export", ME, _type="Patient,Condition")
    assert exported(manifest, ME) == {"Patient": ["p1"]}
    outcomes = lines(manifest["error"][0]["url"], ME)
    assert [issues(outcome) for outcome in outcomes] == [["4134"], ["4134"]]


def test_e16_documents_run_out_for_the_day(start):
    with start(replace(EPIC, max_documents=2)) as sandbox:
        url, headers = f"{sandbox.base_url}/Binary/b1", ME | {"Accept": "text/html"}
        answers = [HTTP.get(url, headers=headers) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 403]
        assert issues(answers[2].json()) == ["4135"]


def test_e16_any_code_can_be_had(sandbox):
    sandbox.faults.add(Fault(kind="outcome-entry", on="search", issue="4119", severity="warning"))
    assert remarks(search(sandbox, "Condition", patient="p2").json()) == ["4119"]
    sandbox.faults.add(Fault(kind="refused", on="read", status=403, issue="4131"))
    answer = HTTP.get(f"{sandbox.base_url}/Patient/p1", headers=ME)
    assert (answer.status_code, issues(answer.json())) == (403, ["4131"])


def test_e17_a_missing_sub_api_is_a_warning(start):
    persona = replace(EPIC, missing_sub_apis={"Condition": "Condition - Encounter Diagnosis"})
    with start(persona) as sandbox:
        bundle = search(sandbox, "Condition", patient="p2").json()
        assert (found([bundle]), remarks(bundle)) == (["asthma"], ["59204"])
        manifest = export(sandbox, "Group/g1/$export", ME, _type="Condition")
        assert issues(lines(manifest["error"][0]["url"], ME)[0]) == ["59204"]


def test_e18_ids_are_longer_than_fhir_allows(sandbox):
    manifest = export(sandbox, "Group/g1/$export", ME, _type="DiagnosticReport")
    (name,) = exported(manifest, ME)["DiagnosticReport"]
    assert len(name) > 64
    assert name == sandbox.shown_id("DiagnosticReport", "report")
    assert HTTP.get(f"{sandbox.base_url}/DiagnosticReport/{name}", headers=ME).json()["id"] == name
    assert found([search(sandbox, "DiagnosticReport", _id=name).json()]) == [name]


def test_e18_references_name_the_long_id(start):
    with start(replace(EPIC, long_id_types=frozenset({"Patient"}))) as sandbox:
        reference = HTTP.get(f"{sandbox.base_url}/Condition/asthma", headers=ME).json()["subject"][
            "reference"
        ]
        assert reference == f"Patient/{sandbox.shown_id('Patient', 'p2')}"
        assert HTTP.get(f"{sandbox.base_url}/{reference}", headers=ME).status_code == 200
        assert found([search(sandbox, "Condition", patient=reference).json()]) == ["asthma"]


def test_e19_an_outcome_may_come_instead_of_the_note(sandbox):
    url, headers = f"{sandbox.base_url}/Binary/b1", ME | {"Accept": "text/html"}
    assert HTTP.get(url, headers=headers).content == NOTE
    sandbox.faults.add(Fault(kind="outcome-body", on="read"))
    answer = HTTP.get(url, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/fhir+json"
    assert answer.json()["resourceType"] == "OperationOutcome"


def test_e20_there_is_no_medication_administration(sandbox):
    assert "MedicationAdministration" not in exported(export(sandbox, "Group/g1/$export", ME), ME)
    assert search(sandbox, "MedicationAdministration", patient="p1").status_code == 404
    statement = HTTP.get(f"{sandbox.base_url}/metadata").json()
    assert statement["software"]["name"] == "Epic"
    resources = {resource["type"]: resource for resource in statement["rest"][0]["resource"]}
    assert "MedicationAdministration" not in resources
    assert "operation" not in resources["Patient"]
    assert resources["Group"]["operation"][0]["definition"].endswith("group-export")


def test_a_persona_has_no_issue_codes_unless_it_says_so(data):
    with running_sandbox(SandboxConfig(data=data, open=True)) as sandbox:
        answer = HTTP.get(f"{sandbox.base_url}/Condition/nothing").json()
        assert "details" not in answer["issue"][0]
        sandbox.faults.add(Fault(kind="too-recent", on="kickoff", retry_after=5))
        answer = kick_off(sandbox, "Group/g1/$export")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
        status = kick_off(sandbox, "Group/g1/$export").headers["content-location"]
        assert wait_for_manifest(status).status_code == 200


def test_e14_holds_for_what_comes_later(sandbox):
    search_labs = {"patient": "p1", "category": "laboratory"}
    url = f"{sandbox.base_url}/Observation"
    assert found(pages(url, search_labs, ME)) == ["lab0", "lab1", "lab2"]
    panel = HTTP.get(f"{url}/lab2", headers=ME).json()
    sandbox.put(panel | {"id": "later", "hasMember": [{"reference": "Observation/lab1"}]})
    assert found(pages(url, search_labs, ME)) == ["lab0", "lab2", "later"]
