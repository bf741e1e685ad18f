"""Crawling: parts, resume, merged patients, increments, what is asked for."""

import json
from datetime import datetime

import httpx
import pytest
from connectors_doubles import BASE, FakeClock
from crawl_doubles import LIMITS, PATIENTS, REQUEST, Killed, advance, crawl, everything
from search_doubles import ReadableFolder, answer, bundle, client_of, issue, observation

from cohortflow.connectors import (
    CrawlExtractor,
    CrawlLimits,
    CrawlRequest,
    HydratedExtractor,
    HydrationRequest,
    PatientSelection,
    Phase,
    choose_mode,
    increment,
    load_extracted,
    run_extractor,
)
from cohortflow.errors import ArtifactNotFoundError, ExportRejectedError, InputError

pytestmark = pytest.mark.anyio


async def test_a_group_is_crawled_into_a_few_files(server, folder):
    extracted = await crawl(server, folder, concurrency=3)
    assert sorted(folder.resources()) == everything(server, "Patient", "Observation")
    result = extracted.result
    assert dict(result.resources) == {"Observation": 18, "Patient": 6}
    assert [len(names) for names in result.files.values()] == [3, 3]
    assert result.transaction_time == "2026-03-02T08:00:00.000Z"
    assert result.bytes == sum(
        (folder.root / name).stat().st_size for kind in result.files.values() for name in kind
    )
    assert not result.is_partial
    assert {row.status for row in extracted.result.coverage} == {"complete"}


async def test_more_patients_make_larger_batches_not_more_files():
    assert [CrawlLimits().batch_size(count) for count in (10, 1600, 20_000)] == [25, 25, 313]


async def test_a_complete_crawl_is_not_repeated(server, folder):
    first = await crawl(server, folder)
    server.requests.clear()
    assert await crawl(server, folder) == first
    assert server.requests == []
    assert await load_extracted(folder) == first


async def test_a_way_once_begun_is_gone_on_with(server, folder):
    async with client_of(server) as client:
        assert await choose_mode(client, folder, "bulk") == "bulk"
        with pytest.raises(ExportRejectedError, match="neither bulk export nor search"):
            await choose_mode(client, folder)
        await crawl(server, folder)
        server.requests.clear()
        assert await choose_mode(client, folder) == "crawl"
    assert server.requests == []


async def test_an_interrupted_crawl_goes_on_where_it_was(server, folder):
    whole = await crawl(server, ReadableFolder(folder.root.with_name("whole")))
    server.requests.clear()
    requests = 0

    async def dying(request):
        nonlocal requests
        requests += 1
        if requests == 15:
            raise Killed
        return server(request)

    with pytest.raises(Killed):
        await crawl(dying, folder)
    done = [key for key, unit in folder.state()["units"].items() if unit["done"]]
    assert done
    server.requests.clear()
    again = await crawl(server, folder)
    assert again == whole
    assert sorted(folder.resources()) == everything(server, "Patient", "Observation")
    assert not {"Group/g", "metadata"} & set(server.requests)


async def test_another_request_starts_anew(server, folder):
    await crawl(server, folder)
    other = CrawlRequest(("Patient",), PatientSelection(ids=("p1",)))
    extracted = await crawl(server, folder, other)
    assert folder.resources() == [("Patient", "p1")]
    assert set(folder.files()) == {"_plan/patients.ndjson", *extracted.result.files["Patient"]}


async def test_a_budget_stops_between_patients_and_loses_nothing(server, folder):
    clock = FakeClock()

    def slow(request):
        clock.now += 1.0
        return server(request)

    pending = 0
    while (left := await advance(slow, folder, clock=clock, budget=3.0)) is not None:
        assert left.wait_seconds == 0
        pending += 1
    assert pending > 3
    assert sorted(folder.resources()) == everything(server, "Patient", "Observation")


async def test_merged_patients_are_fetched_once_under_the_new_id(server, folder):
    # p1 was merged into p2, a patient of the list; x into y, who is none.
    request = CrawlRequest(("Observation", "Patient"), PatientSelection(ids=("p1", "p2", "x")))
    for old, new in (("p1", "p2"), ("x", "y")):
        redirect = httpx.Response(301, headers={"Location": f"{BASE}/Patient/{new}"})
        server.script[f"Patient/{old}"] = [redirect] * 9
        url = f"{BASE}/Observation?patient={old}&category=laboratory"
        server.script[f"Observation?patient={old}&category=laboratory"] = [
            answer(bundle(outcomes=[issue("4107")], self_url=url))
        ] * 9
    server.resources["Patient/y"] = {"resourceType": "Patient", "id": "y"}
    server.resources["Observation/y-0"] = observation("y-0", "y")
    for key in [key for key in server.resources if key.startswith("Observation/p1")]:
        del server.resources[key]
    request = CrawlRequest(request.types, request.patients, filters=("Observation?category=laboratory",))
    extracted = await crawl(server, folder, request, profile="epic")
    assert sorted(folder.resources("Patient")) == [("Patient", "p2"), ("Patient", "y")]
    assert sorted(folder.resources("Observation")) == [
        ("Observation", i) for i in ("p2-0", "p2-1", "p2-2", "y-0")
    ]
    assert {row.status for row in extracted.result.coverage} == {"complete"}


async def test_an_ignored_filter_ends_the_crawl(server, folder):
    server.on(
        "Observation?patient=p4", answer(bundle([observation("x", "p9")], self_url=f"{BASE}/Observation"))
    )
    with pytest.raises(ExportRejectedError, match="ignores a filter"):
        await crawl(server, folder)
    assert ("Observation", "x") not in folder.resources()


async def test_types_without_a_patient_are_left_to_references(server, folder):
    request = CrawlRequest(("Patient", "Practitioner", "EpisodeOfCare"), PatientSelection(group_id="g"))
    extracted = await crawl(server, folder, request, profile="epic")
    facts = {row.type: (row.status, row.why) for row in extracted.result.coverage}
    assert facts["Practitioner"][0] == "unavailable"
    assert facts["EpisodeOfCare"] == ("unavailable", ("needs a filter with type",))


async def test_provenance_comes_along(server, folder):
    url = f"{BASE}/Condition?patient=p0&_revinclude=Provenance:target"
    page = bundle(
        [{"resourceType": "Condition", "id": "c"}],
        included=[{"resourceType": "Provenance", "id": "v"}, {"resourceType": "Patient", "id": "p0"}],
        self_url=url,
    )
    server.on("Condition?patient=p0&_revinclude=Provenance:target", answer(page))
    request = CrawlRequest(("Condition", "Provenance"), PatientSelection(ids=("p0",)))
    await crawl(server, folder, request, profile="cerner")
    assert sorted(folder.resources()) == [("Condition", "c"), ("Provenance", "v")]
    assert not any(key.startswith("Provenance") for key in server.requests)


async def test_oracle_page_sizes_and_repeats(server, folder):
    social = observation("s", "p0", "social-history")
    url = f"{BASE}/Observation?patient=p0&_count=200"
    second = f"{BASE}/x?page=2"
    server.on("Observation?patient=p0&_count=200", answer(bundle([social], following=second, self_url=url)))
    server.on("x?page=2", answer(bundle([social, observation("l", "p0")])))
    await crawl(
        server, folder, CrawlRequest(("Observation",), PatientSelection(ids=("p0",))), profile="cerner"
    )
    assert folder.resources() == [("Observation", "s"), ("Observation", "l")]


async def test_types_are_searched_as_a_whole_in_parts(server, folder):
    request = CrawlRequest(("Observation", "Patient"))
    extracted = await crawl(server, folder, request, limits=CrawlLimits(resources_per_part=4), concurrency=2)
    assert sorted(folder.resources()) == everything(server, "Patient", "Observation")
    assert len(extracted.result.files["Observation"]) == 5


async def test_a_search_goes_on_at_its_page_or_from_the_start_without_doubling(server, folder):
    request, limits = CrawlRequest(("Observation",)), CrawlLimits(resources_per_part=4)

    async def dying(request):
        if "page=10" in str(request.url):
            raise Killed
        return server(request)

    with pytest.raises(Killed):
        await crawl(dying, folder, request, limits=limits)
    server.requests.clear()
    server.on("Observation?page=8", answer({}, 410))  # meanwhile the page session has expired
    await crawl(server, folder, request, limits=limits)
    assert server.requests[:2] == ["Observation?page=8", "Observation"]
    assert sorted(folder.resources()) == everything(server, "Observation")


async def test_an_increment_overlaps_and_new_patients_come_whole(server, folder):
    request = increment(REQUEST, "2026-03-01T12:00:00.000Z", known_patients=PATIENTS[1:])
    await crawl(server, folder, request)
    asked = {key.replace("%3A", ":") for key in server.requests if key.startswith("Observation")}
    assert "Observation?patient=p1&_lastUpdated=ge2026-03-01T11:50:00.000Z" in asked
    assert "Observation?patient=p0" in asked


async def test_an_increment_is_refused_where_the_server_has_no_such_time(server, folder):
    for profile, request, words in (
        ("epic", REQUEST, "_lastUpdated"),
        (
            "cerner",
            CrawlRequest(("Observation",), REQUEST.patients, filters=("Observation?date=ge2020",)),
            "date",
        ),
    ):
        with pytest.raises(ExportRejectedError, match=words):
            await crawl(server, folder, increment(request, "2026-03-01T12:00:00Z"), profile=profile)
    assert server.requests == []


async def test_a_whole_type_search_is_refused_where_the_server_wants_patients(server, folder):
    with pytest.raises(ExportRejectedError, match="without naming patients"):
        await crawl(server, folder, CrawlRequest(("Observation",)), profile="epic")


async def test_patients_may_be_searched(server, folder):
    await crawl(server, folder, CrawlRequest(("Patient",), PatientSelection(search=())))
    assert sorted(folder.resources()) == everything(server, "Patient")


async def test_a_group_without_members_is_an_error(server, folder):
    server.on("Group/g", answer({"resourceType": "Group", "id": "g"}))
    with pytest.raises(ExportRejectedError, match="no patient"):
        await crawl(server, folder)


async def test_a_cancelled_crawl_begins_anew(server, folder):
    async with client_of(server) as client:
        extractor = CrawlExtractor(client, REQUEST, folder, limits=LIMITS)
        await extractor.start()
        await extractor.cancel()
        with pytest.raises(ArtifactNotFoundError):
            await extractor.advance()
        with pytest.raises(ArtifactNotFoundError):
            await extractor.result()
    await crawl(server, folder)
    assert server.asked()["Group/g"] == 2


async def test_a_discarded_crawl_begins_anew(server, folder):
    async with client_of(server) as client:
        extractor = CrawlExtractor(client, REQUEST, folder, limits=LIMITS)
        assert await extractor.status() is None
        await run_extractor(extractor, client.clock)
        status = await extractor.status()
        assert (status.phase, status.server) == (Phase.COMPLETE, BASE)
        assert status.request_digest == extractor.request_digest
        await extractor.discard()
        assert (await extractor.status()).phase is Phase.EXPIRED
    await crawl(server, folder)
    assert server.asked()["Group/g"] == 2


async def test_an_extraction_is_only_ready_until_its_references_are_followed(server, folder):
    async with client_of(server) as client:
        inner = CrawlExtractor(client, REQUEST, folder, limits=LIMITS)
        whole = HydratedExtractor(inner, client, folder, HydrationRequest(("staff",)))
        await run_extractor(inner, client.clock)
        assert (await whole.status()).phase is Phase.READY
        await run_extractor(whole, client.clock)
        assert (await whole.status()).phase is Phase.COMPLETE
        await whole.discard()
        assert (await whole.status()).phase is Phase.EXPIRED


def test_a_state_holds_no_file_that_is_not_there_and_shows_no_patient(folder):
    request = CrawlRequest(
        ("Patient",), PatientSelection(ids=("p-secret",)), known_patients=frozenset({"k-secret"})
    )
    assert "secret" not in repr(request)
    assert json.dumps(request.digest)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CrawlRequest(()), "resource types"),
        (lambda: CrawlRequest(("../etc",)), "no resource type"),
        (lambda: CrawlRequest(("Patient",), since=datetime(2026, 1, 1)), "time zone"),  # noqa: DTZ001
        (lambda: CrawlRequest(("Patient",), filters=("Observation?code=1",)), "filter"),
        (PatientSelection, "one way"),
        (lambda: PatientSelection(group_id="Group/1"), "FHIR id"),
        (lambda: increment(REQUEST, "yesterday"), "watermark"),
    ],
)
def test_malformed_requests_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
