"""Reading, searching and paging over HTTP."""

import base64

import pytest
from sandbox_records import HTTP, OBSERVATIONS, patient, write_hospital

from cohortflow.sandbox import Persona, SandboxConfig, running_sandbox

pytestmark = pytest.mark.integration

write_data = write_hospital


@pytest.fixture
def sandbox(data):
    with running_sandbox(SandboxConfig(data=data, open=True, page_size=7)) as running:
        yield running


def pages(url, params=None):
    while url is not None:
        bundle = HTTP.get(url, params=params).raise_for_status().json()
        yield bundle
        url, params = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None), None


def ids(bundles):
    return [entry["resource"]["id"] for bundle in bundles for entry in bundle.get("entry", [])]


ALL = [resource["id"] for resource in OBSERVATIONS]


@pytest.mark.parametrize("size", [None, 1, 3, 19, 20, 21, 5000])
def test_pages_return_every_resource_once(sandbox, size):
    bundles = list(pages(f"{sandbox.base_url}/Observation", {} if size is None else {"_count": size}))
    assert ids(bundles) == ALL
    assert {bundle["total"] for bundle in bundles} == {20}
    assert max(len(bundle["entry"]) for bundle in bundles) == min(size or 7, 20)


def test_a_page_can_be_asked_for_again(sandbox):
    first = HTTP.get(f"{sandbox.base_url}/Observation").json()
    url = first["link"][1]["url"]
    assert HTTP.get(url).json() == HTTP.get(url).json()


def test_pages_show_the_records_as_they_were_at_the_start(sandbox):
    walk = pages(f"{sandbox.base_url}/Observation")
    first = next(walk)
    sandbox.put(OBSERVATIONS[19] | {"status": "amended"}, OBSERVATIONS[0] | {"id": "new"})
    sandbox.delete("Observation", "o18")
    assert ids([first, *walk]) == ALL


def test_expired_pages_tell_to_start_again(sandbox):
    url = HTTP.get(f"{sandbox.base_url}/Observation").json()["link"][1]["url"]
    sandbox.expire_pages()
    gone = HTTP.get(url)
    assert gone.status_code == 410
    assert gone.json()["resourceType"] == "OperationOutcome"


def test_entries_have_full_urls_that_can_be_read(sandbox):
    entry = HTTP.get(f"{sandbox.base_url}/Patient", params={"_id": "p2"}).json()["entry"][0]
    assert entry["search"]["mode"] == "match"
    assert entry["fullUrl"] == f"{sandbox.base_url}/Patient/p2"
    assert (
        HTTP.get(entry["fullUrl"]).json()
        == entry["resource"]
        == patient("p2", meta=entry["resource"]["meta"])
    )


def test_search_by_post(sandbox):
    found = HTTP.post(f"{sandbox.base_url}/Observation/_search", data={"patient": "p2", "_count": "50"})
    assert ids([found.json()]) == ALL[10:15]
    assert HTTP.post(f"{sandbox.base_url}/Observation/_search", json={"patient": "p2"}).status_code == 415


def test_last_updated_and_count_only(sandbox):
    params = [("_lastUpdated", "ge2024-02-01"), ("_lastUpdated", "lt2024-03-01"), ("_summary", "count")]
    bundle = HTTP.get(f"{sandbox.base_url}/Observation", params=params).json()
    assert bundle == {"resourceType": "Bundle", "type": "searchset", "total": 10}


def test_an_empty_result_has_no_entries(sandbox):
    bundle = HTTP.get(f"{sandbox.base_url}/Condition").json()
    assert bundle["total"] == 0
    assert "entry" not in bundle


def test_unknown_parameters_are_refused_unless_lenient(sandbox):
    url, params = f"{sandbox.base_url}/Observation", {"foo": "1", "patient": "p2"}
    assert HTTP.get(url, params=params).status_code == 400
    bundle = HTTP.get(url, params=params, headers={"Prefer": "handling=lenient"}).json()
    assert bundle["total"] == 5
    assert "foo" not in bundle["link"][0]["url"]
    assert bundle["entry"][-1]["search"]["mode"] == "outcome"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("Patient/nobody", 404),
        ("Nonsense", 404),
        ("Nonsense/1", 404),
        ("", 400),
        ("Patient/p1/_history/1", 404),
        ("Observation?date=soon", 400),
    ],
)
def test_refusals_are_operation_outcomes(sandbox, path, status):
    answer = HTTP.get(f"{sandbox.base_url}/{path}".rstrip("/"))
    assert answer.status_code == status
    assert answer.json()["resourceType"] == "OperationOutcome"


def test_methods_and_media_types(sandbox):
    assert HTTP.put(f"{sandbox.base_url}/Patient/p1", json={}).status_code == 405
    headers = {"Accept": "application/fhir+xml"}
    assert HTTP.get(f"{sandbox.base_url}/Patient/p1", headers=headers).status_code == 406
    assert HTTP.get(f"{sandbox.base_url}/Patient", headers=headers).status_code == 406


def test_deleted_is_not_the_same_as_never_there(sandbox):
    sandbox.delete("Patient", "p3")
    assert HTTP.get(f"{sandbox.base_url}/Patient/p3").status_code == 410


def test_a_binary_comes_as_what_it_is(sandbox):
    content = b"<p>Note</p>"
    data = base64.b64encode(content).decode()
    sandbox.put({"resourceType": "Binary", "id": "b", "contentType": "text/html", "data": data})
    raw = HTTP.get(f"{sandbox.base_url}/Binary/b", headers={"Accept": "text/html"})
    assert raw.content == content
    assert raw.headers["content-type"].startswith("text/html")
    assert HTTP.get(f"{sandbox.base_url}/Binary/b").json()["data"] == data


def test_a_persona_may_shorten_pages_and_pages_go_on(data):
    class Sparse(Persona):
        def shape_page(self, query, rows):
            return rows[::2]

    with running_sandbox(SandboxConfig(data=data, open=True, page_size=4, persona=Sparse())) as sandbox:
        bundles = list(pages(f"{sandbox.base_url}/Observation"))
    assert ids(bundles) == ALL[::2]
    assert {len(bundle["entry"]) for bundle in bundles} == {2}
