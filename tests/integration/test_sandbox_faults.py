"""Faults and control endpoints over HTTP."""

import json

import anyio
import httpx
import pytest
from sandbox_records import (
    HTTP,
    export,
    exported,
    kick_off,
    patient,
    wait_for_manifest,
    write_hospital,
)

from cohortflow.sandbox import Fault, SandboxConfig, create_app, running_sandbox

pytestmark = pytest.mark.integration

write_data = write_hospital


@pytest.fixture
def sandbox(data):
    with running_sandbox(SandboxConfig(data=data, open=True, export_seconds=0)) as running:
        yield running


@pytest.fixture(scope="module")
def exported_sandbox(data):
    with running_sandbox(SandboxConfig(data=data, open=True, export_seconds=0)) as running:
        status = kick_off(running, "$export").headers["content-location"]
        yield running, status, wait_for_manifest(status).json()["output"][0]["url"]


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("too-many-requests", 429, "throttled"),
        ("unavailable", 503, "transient"),
        ("server-error", 500, "transient"),
        ("gateway-timeout", 504, "timeout"),
        ("unauthorized", 401, "expired"),
        ("forbidden", 403, "forbidden"),
        ("gone", 404, "not-found"),
    ],
)
@pytest.mark.parametrize("on", ["kickoff", "status", "file", "search", "read"])
def test_answers_that_a_bad_day_brings(exported_sandbox, kind, status, code, on):
    sandbox, status_url, file_url = exported_sandbox
    urls = {
        "kickoff": f"{sandbox.base_url}/$export",
        "status": status_url,
        "file": file_url,
        "search": f"{sandbox.base_url}/Patient",
        "read": f"{sandbox.base_url}/Patient/p1",
    }
    sandbox.faults.add(Fault(kind=kind, on=on, times=2, retry_after=3))
    headers = {"Accept": "application/fhir+json", "Prefer": "respond-async"}
    answers = [HTTP.get(urls[on], headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers[:2]] == [status] * 2
    assert answers[0].json()["issue"][0]["code"] == code
    assert answers[0].headers["retry-after"] == "3"
    assert answers[2].is_success


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_truncated_file_breaks_the_connection(sandbox, encoding):
    url = export(sandbox, "$export", _type="Observation")["output"][0]["url"]
    headers = {"Accept-Encoding": encoding}
    for at_bytes in (None, 0, 10, 10**9):
        sandbox.faults.add(Fault(kind="truncate", on="file", at_bytes=at_bytes))
        with pytest.raises(httpx.RemoteProtocolError):
            HTTP.get(url, headers=headers)
    assert HTTP.get(url, headers=headers).text.count("\n") == 20
    assert sandbox.log.count("file", status=0) == 4


def test_a_truncated_file_holds_what_came_before_the_cut(sandbox):
    url = export(sandbox, "$export", _type="Observation")["output"][0]["url"]
    whole = HTTP.get(url).content
    sandbox.faults.add(Fault(kind="truncate", on="file", at_bytes=100))
    received = []
    with HTTP.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
        with pytest.raises(httpx.RemoteProtocolError):
            received.extend(response.iter_raw())
        assert response.status_code == 200
    assert b"".join(received) == whole[:100]


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_file_that_lacks_lines_looks_complete(sandbox, encoding):
    entry = export(sandbox, "$export", _type="Observation")["output"][0]
    sandbox.faults.add(Fault(kind="drop-lines", on="file", lines=3))
    answer = HTTP.get(entry["url"], headers={"Accept-Encoding": encoding})
    assert answer.status_code == 200
    assert len(answer.text.splitlines()) == entry["count"] - 3


def test_a_malformed_line_stands_where_it_was_planned(sandbox):
    url = export(sandbox, "$export", _type="Patient")["output"][0]["url"]
    sandbox.faults.add(Fault(kind="malformed-line", on="file", line=2))
    lines = HTTP.get(url).text.splitlines()
    with pytest.raises(ValueError):
        json.loads(lines.pop(1))
    assert [json.loads(line)["id"] for line in lines] == ["p1", "p2", "p3"]


def test_a_slow_answer_comes_in_the_end(sandbox):
    sandbox.faults.add(Fault(kind="slow", on="read", seconds=0.5))
    with pytest.raises(httpx.ReadTimeout):
        HTTP.get(f"{sandbox.base_url}/Patient/p1", timeout=0.05)
    sandbox.faults.add(Fault(kind="slow", on="read", seconds=0.01))
    assert HTTP.get(f"{sandbox.base_url}/Patient/p1").status_code == 200


@pytest.mark.parametrize("severity", ["information", "warning", "error"])
def test_an_export_with_an_error_file(sandbox, severity):
    sandbox.faults.add(Fault(kind="export-outcome", on="kickoff", severity=severity))
    manifest = export(sandbox, "$export", _type="Patient")
    assert HTTP.get(manifest["error"][0]["url"]).json()["issue"][0]["severity"] == severity
    assert exported(manifest) == {"Patient": ["p1", "p2", "p3"]}
    assert export(sandbox, "$export")["error"] == []


def test_control_over_http(sandbox):
    control = f"{sandbox.root_url}/_sandbox"
    fault = {"kind": "too-many-requests", "on": "kickoff", "times": 2}
    assert HTTP.post(f"{control}/faults", json=[fault]).status_code == 204
    assert HTTP.get(f"{control}/faults").json()[0]["times"] == 2
    assert HTTP.post(f"{control}/faults", json={"kind": "odd"}).status_code == 400
    assert HTTP.post(f"{control}/faults", content=b"{").status_code == 400
    assert kick_off(sandbox, "$export").status_code == 429
    assert HTTP.delete(f"{control}/faults").status_code == 204
    assert kick_off(sandbox, "$export").status_code == 202
    log = HTTP.get(f"{control}/log").json()
    assert log["counts"] == {"kickoff": 2}
    assert [record["status"] for record in log["requests"]] == [429, 202]
    assert HTTP.delete(f"{control}/log").status_code == 204
    assert HTTP.get(f"{control}/log").json() == {"counts": {}, "requests": []}


def test_changing_the_records_over_http(sandbox):
    control = f"{sandbox.root_url}/_sandbox"
    url = kick_off(sandbox, "$export").headers["content-location"]
    manifest = wait_for_manifest(url).json()
    assert HTTP.put(f"{control}/clock", json={"now": "2031-01-01T00:00:00Z"}).status_code == 204
    assert HTTP.post(f"{control}/resources", json=[patient("p8"), patient("p9")]).status_code == 204
    assert HTTP.delete(f"{control}/resources/Patient/p1").status_code == 204
    assert HTTP.delete(f"{control}/resources/Patient/p1").status_code == 404
    later = export(sandbox, "$export", _since=manifest["transactionTime"])
    assert later["transactionTime"] == "2031-01-01T00:00:00.000Z"
    assert exported(later) == {"Patient": ["p8", "p9"]}
    assert later["deleted"][0]["count"] == 1
    assert HTTP.delete(f"{control}/exports").status_code == 204
    assert HTTP.get(url).status_code == 404
    for wrong in ({"now": "later"}, {}, []):
        assert HTTP.put(f"{control}/clock", json=wrong).status_code == 400
    for wrong in ([1], {"resourceType": "Patient"}, {"resourceType": "Nonsense", "id": "1"}):
        assert HTTP.post(f"{control}/resources", json=wrong).status_code == 400


@pytest.mark.parametrize("client", ["203.0.113.9", "testclient"])
def test_control_is_for_this_machine_only(data, client):
    app = create_app(SandboxConfig(data=data, open=True))
    try:
        transport = httpx.ASGITransport(app=app, client=(client, 1))

        async def ask(path):
            async with httpx.AsyncClient(transport=transport, base_url="http://ehr") as session:
                return (await session.get(path, headers={"X-Forwarded-For": "127.0.0.1"})).status_code

        assert anyio.run(ask, "/_sandbox/log") == 403
        assert anyio.run(ask, "/fhir/metadata") == 200
    finally:
        app.state.hospital.close()


def test_faults_may_state_their_own_status_and_codes(sandbox):
    sandbox.faults.add(Fault(kind="gone", on="status", status=410, code="expired"))
    url = kick_off(sandbox, "$export").headers["content-location"]
    answer = HTTP.get(url)
    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (410, "expired")
    assert wait_for_manifest(url).status_code == 200


def test_a_proxy_answers_in_html(sandbox):
    sandbox.faults.add(Fault(kind="bad-gateway", on="status"))
    answer = HTTP.get(kick_off(sandbox, "$export").headers["content-location"])
    assert answer.status_code == 502
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_file_that_ends_within_a_line_looks_complete(sandbox, encoding):
    url = export(sandbox, "$export", _type="Patient")["output"][0]["url"]
    whole = HTTP.get(url).content
    for at_bytes, kept in ((10, 10), (None, len(whole) // 2)):
        sandbox.faults.add(Fault(kind="cut-file", on="file", at_bytes=at_bytes))
        answer = HTTP.get(url, headers={"Accept-Encoding": encoding})
        assert (answer.status_code, answer.content) == (200, whole[:kept])
    assert HTTP.get(url).content == whole


def test_a_manifest_that_counts_wrongly(sandbox):
    url = kick_off(sandbox, "$export", _type="Patient").headers["content-location"]
    wait_for_manifest(url)
    sandbox.faults.add(Fault(kind="wrong-count", on="status", lines=2))
    assert [HTTP.get(url).json()["output"][0]["count"] for _ in range(2)] == [5, 3]


def test_a_file_that_trickles_in_is_whole(sandbox):
    url = export(sandbox, "$export", _type="Observation")["output"][0]["url"]
    whole = HTTP.get(url, headers={"Accept-Encoding": "identity"})
    sandbox.faults.add(Fault(kind="trickle", on="file", seconds=0.05))
    slow = HTTP.get(url, headers={"Accept-Encoding": "identity"})
    assert slow.content == whole.content
    assert slow.headers["content-length"] == whole.headers["content-length"]


def test_an_error_file_of_several_severities(sandbox):
    sandbox.faults.add(
        Fault(
            kind="export-outcome", on="kickoff", severity="information", more_severities=("warning", "error")
        )
    )
    manifest = export(sandbox, "$export", _type="Patient")
    assert manifest["error"][0]["count"] == 3
    lines = HTTP.get(manifest["error"][0]["url"]).text.splitlines()
    severities = [json.loads(line)["issue"][0]["severity"] for line in lines]
    assert severities == ["information", "warning", "error"]


def test_what_a_persona_needs_over_http(sandbox):
    control = f"{sandbox.root_url}/_sandbox"
    manifest = export(sandbox, "$export", _type="Patient")
    assert HTTP.delete(f"{control}/links").status_code == 204
    assert HTTP.get(manifest["output"][0]["url"]).status_code == 410
    assert HTTP.delete(f"{control}/kickoffs").status_code == 204
    assert HTTP.post(f"{control}/glass", json=["p2"]).status_code == 204
    assert HTTP.get(f"{sandbox.base_url}/Patient/p2").status_code == 403
    merge = {"type": "Patient", "from": "p3", "to": "p1"}
    assert HTTP.post(f"{control}/merges", json=merge).status_code == 204
    assert HTTP.get(f"{sandbox.base_url}/Patient/p3").status_code == 301
    assert HTTP.post(f"{control}/glass", json="p2").status_code == 400
    assert HTTP.post(f"{control}/merges", json={"type": "Patient"}).status_code == 400
