"""Crawling where it is hard: what failures cost, waits, limits of a day, and what is said of it."""

from datetime import UTC, datetime

import httpx
import pytest
from connectors_doubles import BASE, FakeClock
from crawl_doubles import LIMITS, PATIENTS, REQUEST, advance, crawl, everything
from search_doubles import ReadableFolder, SearchServer, answer, bundle, issue, observation

from cohortflow.connectors import (
    PROFILES,
    CrawlExtractor,
    CrawlLimits,
    CrawlRequest,
    FhirSource,
    PatientSelection,
    connect,
)
from cohortflow.errors import AuthorizationError, ExportRejectedError, TransientSourceError

pytestmark = pytest.mark.anyio


async def test_failing_patients_are_counted_and_the_others_fetched(server, folder):
    server.on("Observation?patient=p1", answer(issue("", kind="forbidden"), 403))
    server.on("Observation?patient=p2", answer({}, 404))
    server.on("Patient/p3", answer({}, 410))
    extracted = await crawl(server, folder)
    assert dict(extracted.result.resources) == {"Observation": 12, "Patient": 5}
    facts = {row.type: (row.status, row.why) for row in extracted.result.coverage}
    assert facts == {
        "Observation": ("partial", ("forbidden: 1", "not-found: 1")),
        "Patient": ("partial", ("deleted: 1",)),
    }
    assert extracted.result.is_partial


async def test_too_many_failures_end_it(server, folder):
    for name in PATIENTS[1:4]:
        server.on(f"Observation?patient={name}", answer({}, 404))
    with pytest.raises(ExportRejectedError, match=r"3 of 6 searches for Observation failed \(not-found: 3\)"):
        await crawl(server, folder, limits=CrawlLimits(min_failures=2))


async def test_a_type_that_is_not_for_us_is_asked_for_a_few_times_only(server, folder):
    server.script["Observation"] = [answer({}, 403)] * 100
    for name in PATIENTS:
        server.on(f"Observation?patient={name}", answer({}, 403))
    extracted = await crawl(server, folder, limits=CrawlLimits(probe_failures=3))
    assert sum(key.startswith("Observation") for key in server.requests) == 3
    facts = {row.type: (row.status, row.why) for row in extracted.result.coverage}
    assert facts["Observation"] == ("refused", ("forbidden",))
    assert facts["Patient"][0] == "complete"


async def test_nothing_at_all_for_us_is_an_error(server, folder):
    request = CrawlRequest(("Observation",), PatientSelection(group_id="g"))
    for name in PATIENTS:
        server.on(f"Observation?patient={name}", answer({}, 403))
    with pytest.raises(AuthorizationError, match="forbidden: 6"):
        await crawl(server, folder, request)


async def test_a_query_that_no_patient_can_answer_is_an_error(server, folder):
    for name in PATIENTS:
        server.on(f"Observation?patient={name}", answer(issue("59108", severity="error"), 400))
    with pytest.raises(ExportRejectedError, match="6 of 6 searches for Observation failed"):
        await crawl(server, folder)


async def test_one_record_that_breaks_the_server_does_not_break_the_crawl(server, folder):
    server.on("Observation?patient=p1", *[answer({}, 504)] * 9)
    clock = FakeClock()
    extracted = await crawl(server, folder, clock=clock)
    assert extracted.result.resources["Observation"] == 15
    assert extracted.result.coverage[0].why == ("unavailable: 1",)
    assert clock.slept.count(60.0) == 2  # it had three chances


async def test_a_record_that_failed_for_a_while_is_fetched_after_all(server, folder):
    server.on("Observation?patient=p1", *[answer({}, 504)] * 3)
    extracted = await crawl(server, folder)
    assert sorted(folder.resources()) == everything(server, "Patient", "Observation")
    assert not extracted.result.is_partial


async def test_a_server_that_is_down_ends_it_and_it_goes_on_later(server, folder):
    requests = 0

    def down(request):
        nonlocal requests
        requests += 1
        return server(request) if requests < 12 else answer({}, 503)

    with pytest.raises(TransientSourceError):
        await crawl(down, folder)
    assert folder.resources()
    await crawl(server, folder)
    assert sorted(folder.resources()) == everything(server, "Patient", "Observation")


async def test_restarted_searches_double_nothing(server, folder):
    server.on("Observation?patient=p1&page=2", answer({}, 410))
    await crawl(server, folder)
    assert server.asked()["Observation?patient=p1"] == 2
    assert sorted(folder.resources()) == everything(server, "Patient", "Observation")


async def test_break_the_glass_is_noted(server, folder):
    categories = ("social-history", "vital-signs", "laboratory", "imaging", "survey", "exam")
    server.on(
        "Observation?patient=p1&category=laboratory",
        answer(
            bundle(outcomes=[issue("4134")], self_url=f"{BASE}/Observation?patient=p1&category=laboratory")
        ),
    )
    extracted = await crawl(server, folder, profile="epic")
    assert extracted.result.coverage[0].why == ("break-the-glass: 1",)
    assert extracted.result.resources["Observation"] == 15
    asked = {key for key in server.requests if key.startswith("Observation?patient=p2")}
    assert asked >= {f"Observation?patient=p2&category={name}" for name in categories}


async def test_a_daily_limit_waits_for_tomorrow_and_other_types_go_on(server, folder):
    clock = FakeClock(now=datetime(2026, 3, 2, 8, tzinfo=UTC).timestamp())
    for resource in list(server.resources.values()):
        if resource["resourceType"] == "Observation":
            resource["resourceType"] = "DocumentReference"
    server.resources = {f"{r['resourceType']}/{r['id']}": r for r in server.resources.values()}
    request = CrawlRequest(("DocumentReference", "Patient"), PatientSelection(group_id="g"))
    limit = answer(issue("4135", severity="error"), 400)
    server.on("DocumentReference?patient=p1&page=2", limit)
    pending = await advance(server, folder, request, clock=clock, profile="epic")
    assert pending.wait_seconds == 16 * 3600
    assert len(folder.resources("Patient")) == 6
    fetched = folder.resources("DocumentReference")
    assert ("DocumentReference", "p1-0") in fetched
    count = len(server.requests)
    assert (await advance(server, folder, request, clock=clock, profile="epic")).wait_seconds > 0
    assert len(server.requests) == count  # not asked again before tomorrow
    await crawl(server, folder, request, clock=clock, profile="epic")
    assert sorted(folder.resources()) == everything(server, "Patient", "DocumentReference")
    assert clock.now >= datetime(2026, 3, 3, tzinfo=UTC).timestamp()


async def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(server, folder):
    busy = answer({}, 429, headers={"Retry-After": "7200"})
    server.on("Observation?patient=p3", busy)
    clock = FakeClock()
    pending = await advance(server, folder, clock=clock)
    assert pending.wait_seconds == 7200
    await crawl(server, folder, clock=clock)
    assert sorted(folder.resources()) == everything(server, "Patient", "Observation")


async def test_quiet_hours_are_kept(server, folder):
    clock = FakeClock(now=datetime(2026, 3, 2, 8, tzinfo=UTC).timestamp())
    quiet = PROFILES["generic"].with_overrides({"quiet_hours": ["07:00-18:30"]})
    source = FhirSource("ehr", BASE, profile=quiet)
    async with connect(source, clock=clock, transport=httpx.MockTransport(server)) as client:
        extractor = CrawlExtractor(client, REQUEST, folder, limits=LIMITS)
        await extractor.start()
        pending = await extractor.advance()
        assert pending.wait_seconds == 10.5 * 3600
        assert folder.resources() == []
        await clock.sleep(pending.wait_seconds)
        assert await extractor.advance() is None


async def test_a_failing_store_ends_the_crawl(server, folder):
    class Full(ReadableFolder):
        async def write_file(self, name, chunks):
            if name.startswith("Observation"):
                raise OSError(28, "full")
            await super().write_file(name, chunks)

    with pytest.raises(OSError, match="full"):
        await crawl(server, Full(folder.root))
    assert folder.resources("Observation") == []


async def test_logs_and_errors_name_no_patient(folder, caplog):
    caplog.set_level(0)
    server = SearchServer(
        *({"resourceType": "Patient", "id": f"secret{n}"} for n in range(3)),
        *(observation(f"secret-o{n}", f"secret{n}") for n in range(3)),
    )
    server.on("Observation?patient=secret0", answer(issue("", kind="forbidden", text="secret0"), 403))
    server.on("Observation?patient=secret1", answer(issue("59108", text="secret1"), 400))
    server.on("Observation?patient=secret2", answer(issue("", severity="error", text="secret2"), 500))
    request = CrawlRequest(
        ("Observation", "Patient"), PatientSelection(ids=tuple(f"secret{n}" for n in range(3)))
    )
    with pytest.raises(ExportRejectedError) as caught:
        await crawl(server, folder, request)
    assert "secret" not in str(caught.value)
    assert caplog.text
    assert "secret" not in caplog.text
    assert "secret" not in repr(request)
