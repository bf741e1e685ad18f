"""The sandbox as Oracle Health: each test names the behaviour of docs/sandbox.md that it shows."""

import gzip
import time
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest
from sandbox_records import (
    HTTP,
    export,
    exported,
    found,
    kick_off,
    lines,
    pages,
    token_form,
    wait_for_manifest,
    write_vendor_hospital,
)

from cohortflow.sandbox import (
    CERNER,
    Fault,
    PageLimit,
    SandboxConfig,
    generate_client_key,
    running_sandbox,
)

pytestmark = pytest.mark.integration

write_data = write_vendor_hospital
PRIVATE, PUBLIC = generate_client_key()
LENIENT = {"Prefer": "respond-async, handling=lenient"}


@pytest.fixture
def start(data):
    def run(persona=CERNER, **settings):
        config = SandboxConfig(**({"data": data, "open": True, "export_seconds": 0} | settings))
        return running_sandbox(config, persona=persona)

    return run


@pytest.fixture
def sandbox(start):
    with start("cerner") as running:
        yield running


@pytest.fixture(scope="module")
def reading(data):
    """A server for tests that start no export."""
    with running_sandbox(SandboxConfig(data=data, open=True), persona="cerner") as running:
        yield running


def follow(url, headers=None):
    """Fetch a file over its redirect, as a client that drops the token on the way."""
    hop = HTTP.get(url, headers=headers)
    assert hop.status_code == 307
    return HTTP.get(hop.headers["location"])


def test_o1_wildcard_scopes_are_refused(start):
    with start(open=False, clients={"app": PUBLIC}) as sandbox:
        for scope, status in (("system/*.read", 400), ("system/Patient.read system/Condition.read", 200)):
            answer = HTTP.post(sandbox.token_url, data=token_form(PRIVATE, sandbox.token_url, scope))
            assert answer.status_code == status
        assert answer.json()["scope"] == "system/Patient.read system/Condition.read"
        known = HTTP.get(f"{sandbox.base_url}/.well-known/smart-configuration").json()["scopes_supported"]
        assert not [scope for scope in known if "*" in scope]


def test_o2_a_wrong_accept_header_is_not_acceptable(reading):
    assert kick_off(reading, "Group/g1/$export", {"Accept": "application/json"}).status_code == 406


def test_o3_one_export_at_a_time(start):
    with start(export_polls=1) as sandbox:
        first = kick_off(sandbox, "Group/g1/$export").headers["content-location"]
        second = kick_off(sandbox, "Group/g1/$export")
        assert (second.status_code, second.json()["issue"][0]["code"]) == (429, "throttled")
        wait_for_manifest(first)
        assert kick_off(sandbox, "Group/g1/$export").status_code == 202


def test_o4_groups_have_a_limit(start):
    with start(replace(CERNER, max_group_patients=1)) as sandbox:
        answer = kick_off(sandbox, "Group/g1/$export")
        assert (answer.status_code, answer.json()["issue"][0]["code"]) == (400, "too-costly")


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"_type": ["Patient", "Condition"]}, 400),  # O5: no repeats
        ({"_type": "Practitioner,Organization"}, 400),  # O5: a clinical type is needed
        ({"_type": "Practitioner,Condition"}, 202),
        ({"_typeFilter": "Condition?code=1"}, 400),  # O6: needs _type
        ({"_type": "Condition", "_typeFilter": "Observation?code=1"}, 400),
        ({"_type": "Condition", "_typeFilter": "Condition?code=1,Condition?code=2"}, 400),  # O6: one per type
        ({"_type": "Condition", "_typeFilter": "Condition?_lastUpdated=ge2020"}, 422),
        ({"_type": "Condition", "_typeFilter": "Condition?patient=p1"}, 422),
        ({"_type": "Condition", "_typeFilter": "Condition?_id=x"}, 422),
        ({"_type": "Condition", "_typeFilter": "Condition?onset-date=soon"}, 422),
        ({"_type": "Patient", "_typeFilter": "Patient?gender=male"}, 422),
        ({"_type": "Condition", "_typeFilter": "Condition?clinical-status=active"}, 202),
        ({"_type": "Binary,Patient"}, 400),  # O10
        ({"_elements": "id"}, 400),  # O7
    ],
)
def test_o5_o6_o7_o10_parameters_of_a_kick_off(start, params, status):
    with start() as sandbox:
        assert kick_off(sandbox, "Group/g1/$export", **params).status_code == status


def test_o7_lenient_handling_ignores_what_it_does_not_know(sandbox):
    manifest = export(sandbox, "Group/g1/$export", LENIENT, _type="Patient", _elements="id", nonsense="1")
    patients = [line for entry in manifest["output"] for line in follow(entry["url"]).text.splitlines()]
    assert patients
    assert all('"name"' in line for line in patients)
    outcomes = follow(manifest["error"][0]["url"]).text.splitlines()
    assert ["_elements" in outcomes[0], "nonsense" in outcomes[1]] == [True, True]


def test_o8_files_are_on_another_port_that_refuses_the_token(start):
    with start(open=False, clients={"app": PUBLIC}) as sandbox:
        form = token_form(PRIVATE, sandbox.token_url, "system/Patient.read")
        token = {"Authorization": f"Bearer {HTTP.post(sandbox.token_url, data=form).json()['access_token']}"}
        file = export(sandbox, "Group/g1/$export", token)["output"][0]["url"]
        assert HTTP.get(file).status_code == 401
        target = httpx.URL(HTTP.get(file, headers=token).headers["location"])
        assert target.port != httpx.URL(file).port
        assert target.host != httpx.URL(file).host
        refused = HTTP.get(target, headers=token)
        assert refused.status_code == 400
        assert refused.headers["content-type"].startswith("application/xml")
        assert "InvalidArgument" in refused.text
        assert HTTP.get(target).status_code == 200
        storage = [record.authorized for record in sandbox.log.records() if record.path_class == "storage"]
        assert storage == [True, False]


def test_o8_each_port_answers_its_own_paths_only(sandbox):
    file = export(sandbox, "Group/g1/$export", _type="Patient")["output"][0]["url"]
    target = httpx.URL(HTTP.get(file).headers["location"])
    here, there = httpx.URL(file), target
    assert HTTP.get(target.copy_with(host=here.host, port=here.port)).status_code == 404
    assert HTTP.get(here.copy_with(host=there.host, port=there.port)).status_code == 404
    unsigned = target.copy_with(path=target.path.replace("/storage/", "/storage/x"), query=None)
    assert (HTTP.get(unsigned).status_code, "AccessDenied" in HTTP.get(unsigned).text) == (403, True)


def test_o9_files_are_gzip_whatever_the_client_accepts(sandbox):
    file = export(sandbox, "Group/g1/$export", _type="Patient")["output"][0]["url"]

    def raw(**headers):
        location = HTTP.get(file).headers["location"]
        with HTTP.stream("GET", location, headers={"Accept-Encoding": "identity"} | headers) as answer:
            return answer, b"".join(answer.iter_raw())

    whole, body = raw()
    assert whole.headers["content-encoding"] == "gzip"
    assert int(whole.headers["content-length"]) == len(body)
    assert gzip.decompress(body).count(b"\n") >= 2
    part, rest = raw(Range="bytes=20-")
    assert (part.status_code, rest) == (206, body[20:])
    assert part.headers["etag"] == whole.headers["etag"]


def test_o10_binaries_are_read_one_by_one(sandbox):
    types = {entry["type"] for entry in export(sandbox, "Group/g1/$export")["output"]}
    assert "Binary" not in types
    assert "DocumentReference" in types
    answer = HTTP.get(f"{sandbox.base_url}/Binary/b1", headers={"Accept": "text/html"})
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("status", [202, 204])
def test_o11_an_export_is_deleted(start, status):
    with start(replace(CERNER, cancel_status=status)) as sandbox:
        url = kick_off(sandbox, "Group/g1/$export").headers["content-location"]
        assert [HTTP.delete(url).status_code for _ in range(2)] == [status, 404]


def test_o12_pages_have_limits_of_their_own(start):
    limits = {"Observation": PageLimit(1, 2)}
    with start(replace(CERNER, page_limits=limits)) as sandbox:
        url = f"{sandbox.base_url}/Observation"
        sizes = [len(found([bundle])) for bundle in pages(url, {"patient": "p1", "_count": 50})]
        assert sizes == [5, 2, 2, 1]  # page 1 has the three of social history besides
        walk = list(pages(url, {"patient": "p1"}))
        assert {"social0", "social1", "social2"} < set(found(walk[:1]))
        assert len(set(found(walk))) == 10
    assert CERNER.page_limits["Observation"] == PageLimit(50, 200)


def test_o13_last_updated_and_date_cannot_be_combined(reading):
    params = {"patient": "p1", "_lastUpdated": "ge2020", "date": "ge2020"}
    url = f"{reading.base_url}/Observation"
    assert HTTP.get(url, params=params).status_code == 400
    del params["date"]
    assert HTTP.get(url, params=params).json()["total"] == 10


def test_o14_resources_come_twice_within_a_file_and_across_files(sandbox):
    manifest = export(sandbox, "Group/g1/$export", _type="Observation")
    files = [follow(entry["url"]).text.splitlines() for entry in manifest["output"]]
    assert [len(file) for file in files] == [entry["count"] for entry in manifest["output"]] == [11, 1]
    assert len(files[0]) == len(set(files[0])) + 1
    assert set(files[1]) < set(files[0])


def test_o14_server_errors_may_be_there_to_stay(sandbox):
    url = kick_off(sandbox, "Group/g1/$export").headers["content-location"]
    sandbox.faults.add(Fault(kind="server-error", on="status", times=1000, code="exception"))
    answers = [HTTP.get(url) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {500}
    assert {answer.json()["issue"][0]["code"] for answer in answers} == {"exception"}


def test_o15_soarian(start):
    with start("soarian") as sandbox:
        assert kick_off(sandbox, "Patient/$export").status_code == 501
        params = {"_since": "2020-01-01T00:00:00Z", "_type": "Patient"}
        export(sandbox, "Group/g1/$export", **params)
        again = kick_off(sandbox, "Group/g1/$export", **params)
        assert (again.status_code, again.json()["issue"][0]["code"]) == (409, "duplicate")
        assert kick_off(sandbox, "Group/g1/$export", **params | {"_type": "Condition"}).status_code == 202


def test_o15_hdr_exports_one_day_unless_told_otherwise(start):
    with start("hdr") as sandbox:
        sandbox.set_time(datetime(2024, 1, 15, 12, tzinfo=UTC))
        assert set(exported(export(sandbox, "Group/g1/$export"))) == {"Observation"}
        since = export(sandbox, "Group/g1/$export", _since="2000-01-01T00:00:00Z")
        assert {"Patient", "Observation", "Condition"} < set(exported(since))


def test_signed_links_are_short_lived(sandbox, monkeypatch):
    monkeypatch.setattr("cohortflow.sandbox.delivery._SIGNED_SECONDS", 0.05)
    file = export(sandbox, "Group/g1/$export", _type="Patient")["output"][0]["url"]
    location = HTTP.get(file).headers["location"]
    time.sleep(0.1)
    assert HTTP.get(location).status_code == 403
    assert len(lines(HTTP.get(file).headers["location"])) == 3
