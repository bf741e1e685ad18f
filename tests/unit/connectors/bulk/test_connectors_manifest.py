"""Manifests in parts, in other editions, and of servers with habits of their own; what they cover."""

import json
from dataclasses import replace

import pytest
from connectors_doubles import (
    BASE,
    FILES,
    STATUS,
    TIME,
    Ehr,
    bulk_of,
    manifest,
    ndjson,
    outcome,
    reply,
    run_export,
)

from cohortflow.connectors import (
    ExportRequest,
    FhirSource,
    InProgress,
    ServerProfile,
    download_all,
    download_available,
    ensure_started,
    poll_once,
)
from cohortflow.connectors.bulk.manifest import parse_manifest
from cohortflow.connectors.transport.pace import Pace
from cohortflow.errors import ExportRejectedError, TransientSourceError

pytestmark = pytest.mark.anyio

PAGES = "https://ehr.example.org/pages"
REQUEST = ExportRequest()


def following(url):
    return {"link": [{"relation": "next", "url": url}]}


@pytest.fixture
def ehr(ehr):
    """The usual server, whose files come one after the other."""
    return ehr.on("GET", f"{FILES}/p2", reply(body=ndjson("Patient", "z")))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-03-01T08:00:00Z", "2026-03-01T08:00:00Z"),
        ("2026-03-01T08:00:00.123+01:00", "2026-03-01T08:00:00.123+01:00"),
        ("2026-03-01T08:00:00", "2026-03-01T08:00:00Z"),
        ("Sun Mar 01 2026 08:00:00 GMT+0100", "2026-03-01T08:00:00+01:00"),
    ],
)
def test_transaction_time_is_an_instant_however_it_is_written(written, read):
    assert parse_manifest(manifest() | {"transactionTime": written}, place="").transaction_time == read


def test_transaction_time_that_is_none_is_refused_without_its_text():
    with pytest.raises(ExportRejectedError, match="not an instant") as caught:
        parse_manifest(manifest() | {"transactionTime": "s3cr3t"}, place="")
    assert "s3cr3t" not in str(caught.value)


def test_error_and_outcome_are_both_read_and_addresses_may_be_relative():
    body = manifest([("Patient", "/files/p1", {})], error=[("OperationOutcome", "e1", {})])
    body["outcome"] = [{"type": "OperationOutcome", "url": "e2"}]
    read = parse_manifest(body, place="", url=STATUS)
    assert [item.url for item in read.error] == [
        "https://ehr.example.org/jobs/e1",
        "https://ehr.example.org/jobs/e2",
    ]
    assert [item.url for item in read.output] == ["https://ehr.example.org/files/p1"]


async def test_files_of_a_running_export_are_downloaded_while_it_runs(ehr, sink):
    first = manifest([("Patient", f"{FILES}/p1", {"count": 2})])
    second = manifest([("Patient", f"{FILES}/p2", {}), ("Condition", f"{FILES}/c1", {})])
    waiting = reply(202, body=first, headers={"Retry-After": "1"})
    grown = reply(202, body=first | following(f"{PAGES}/2"))
    ehr.on("GET", STATUS, waiting, grown, reply(body=first | following(f"{PAGES}/2")))
    ehr.on("GET", f"{PAGES}/2", reply(202), reply(body=second))
    async with bulk_of(ehr) as bulk:
        await ensure_started(bulk, REQUEST, sink)
        answer = await poll_once(bulk, sink)
        assert isinstance(answer, InProgress)
        assert answer.waiting_files == 1
        assert await download_available(bulk, sink) == 1
        assert set(sink.files()) == {"Patient/Patient.0001.ndjson"}
        assert sink.state()["phase"] == "running"
        assert (await poll_once(bulk, sink)).waiting_files == 0
        assert (await poll_once(bulk, sink)).phase == "ready"
        result = await download_all(bulk, sink)
    assert result.files == {
        "Patient": ("Patient/Patient.0001.ndjson", "Patient/Patient.0002.ndjson"),
        "Condition": ("Condition/Condition.0001.ndjson",),
    }
    assert len(ehr.sent("GET", f"{FILES}/p1")) == 1


async def test_finished_export_whose_last_page_is_not_written_yet_goes_on(ehr, sink):
    first = manifest([("Patient", f"{FILES}/p1", {})]) | following(f"{PAGES}/2")
    ehr.on("GET", STATUS, reply(body=first))
    ehr.on("GET", f"{PAGES}/2", reply(202, body={}), reply(body=manifest([("Condition", f"{FILES}/c1", {})])))
    async with bulk_of(ehr) as bulk:
        result = await run_export(bulk, REQUEST, sink)
    assert result.resources == {"Patient": 2, "Condition": 1}


async def test_a_manifest_of_too_many_pages_is_refused_and_not_cut(ehr, sink, monkeypatch):
    from cohortflow.connectors.bulk import client as operations

    monkeypatch.setattr(operations, "_MAX_PAGES", 2)
    pages = [manifest([("Patient", f"{FILES}/p1", {})]) | following(f"{PAGES}/{n}") for n in (2, 3)]
    ehr.on("GET", STATUS, reply(body=pages[0]))
    ehr.on("GET", f"{PAGES}/2", reply(body=pages[1]))
    async with bulk_of(ehr) as bulk:
        with pytest.raises(ExportRejectedError, match="more than 2 pages"):
            await run_export(bulk, REQUEST, sink)


async def test_manifest_that_loses_files_is_taken_anew(ehr, sink):
    ehr.on(
        "GET",
        STATUS,
        reply(202, body=manifest([("Patient", f"{FILES}/p1", {})]), headers={"Retry-After": "1"}),
        reply(body=manifest([("Patient", f"{FILES}/p2", {})])),
    )
    async with bulk_of(ehr) as bulk:
        result = await run_export(bulk, REQUEST, sink)
    assert sink.files() == {"Patient/Patient.0001.ndjson": ndjson("Patient", "z")}
    assert result.resources == {"Patient": 1}


async def test_counts_of_deletions_and_outcomes_are_no_reason_to_fail(ehr, sink):
    body = manifest(deleted=[("Bundle", f"{FILES}/d1", {"count": 900})])
    ehr.on("GET", STATUS, reply(body=body)).on("GET", f"{FILES}/d1", reply(body=ndjson("Bundle", "x")))
    async with bulk_of(ehr) as bulk:
        assert (await run_export(bulk, REQUEST, sink)).deleted_files == ("_deleted/Bundle.0001.ndjson",)


def issue(severity, code="processing", *, details="", about=""):
    value = outcome(severity, code, details=details)
    if about:
        value["issue"][0]["expression"] = [about]
    return json.dumps(value).encode() + b"\n"


async def test_coverage_says_what_came_and_why_not_all(ehr, sink):
    types = ("AllergyIntolerance", "Binary", "Condition", "Goal", "Observation", "Patient")
    body = manifest(
        [
            ("Patient", f"{FILES}/p1", {"count": 2}),
            ("Condition", f"{FILES}/c1", {}),
            ("Group", f"{FILES}/g1", {}),
        ],
        error=[("OperationOutcome", f"{FILES}/e1", {})],
    )
    ehr.on("GET", STATUS, reply(body=body)).on("GET", f"{FILES}/g1", reply(body=ndjson("Group", "g")))
    lines = [
        issue("error", details="59204", about="Observation"),
        issue("error", "forbidden", about="AllergyIntolerance"),
        issue("error", "incomplete", about="Condition.code"),
        issue("information", "informational"),
    ]
    ehr.on("GET", f"{FILES}/e1", reply(body=b"".join(lines)))
    profile = ServerProfile(not_exported=frozenset({"Binary"}), codes={"59204": "warn"})
    async with bulk_of(ehr, source=FhirSource("ehr", BASE, profile=profile)) as bulk:
        result = await run_export(bulk, ExportRequest(types=types), sink)
    rows = {row.type: (row.status, row.expected, row.received, row.why) for row in result.coverage}
    assert rows == {
        "AllergyIntolerance": ("refused", None, 0, ("forbidden",)),
        "Binary": ("unavailable", None, 0, ("this kind of server leaves it out of exports",)),
        "Condition": ("partial", None, 1, ("incomplete",)),
        "Goal": ("complete", None, 0, ("no file in the manifest: the server found none",)),
        "Group": ("not requested", None, 1, ()),
        "Observation": ("unavailable", None, 0, ("processing/59204",)),
        "Patient": ("complete", 2, 2, ()),
    }
    assert result.is_partial
    document = json.loads((sink.root / "_coverage.json").read_text())
    assert document["status"] == "partial"
    assert [row["type"] for row in document["types"]] == sorted(rows)
    assert "Jane" not in json.dumps(document)


async def test_error_that_names_no_type_makes_every_type_partial(ehr, sink):
    body = manifest(
        [("Patient", f"{FILES}/p1", {}), ("Condition", f"{FILES}/c1", {})],
        error=[("OperationOutcome", f"{FILES}/e1", {})],
    )
    ehr.on("GET", STATUS, reply(body=body)).on("GET", f"{FILES}/e1", reply(body=issue("error", "exception")))
    async with bulk_of(ehr) as bulk:
        result = await run_export(bulk, REQUEST, sink)
    assert {row.type: row.status for row in result.coverage} == {"Condition": "partial", "Patient": "partial"}


async def test_distrusted_counts_still_show_what_is_missing(ehr, sink):
    ehr.on("GET", STATUS, reply(body=manifest([("Patient", f"{FILES}/p1", {"count": 5})])))
    source = FhirSource("ehr", BASE, profile=ServerProfile(trust_counts=False))
    async with bulk_of(ehr, source=source) as bulk:
        result = await run_export(bulk, REQUEST, sink)
    [row] = result.coverage
    assert (row.status, row.expected, row.received) == ("partial", 5, 2)
    assert result.is_partial


async def test_outcomes_listed_among_the_resources_are_no_resources(ehr, sink):
    ehr.on("GET", STATUS, reply(body=manifest([("OperationOutcome", f"{FILES}/e1", {})])))
    ehr.on("GET", f"{FILES}/e1", reply(body=issue("warning")))
    async with bulk_of(ehr) as bulk:
        result = await run_export(bulk, REQUEST, sink)
    assert result.resources == {}
    assert result.severities == {"warning": 1}


async def test_ignored_filter_in_an_error_file_fails_the_export(ehr, sink):
    line = {"resourceType": "OperationOutcome", "issue": [{"severity": "warning", "code": "not-supported"}]}
    line["issue"][0]["diagnostics"] = "_typeFilter was not applied"
    ehr.on("GET", STATUS, reply(body=manifest(error=[("OperationOutcome", f"{FILES}/e1", {})])))
    ehr.on("GET", f"{FILES}/e1", reply(body=json.dumps(line).encode()))
    async with bulk_of(ehr) as bulk:
        with pytest.raises(ExportRejectedError, match="_typeFilter"):
            await run_export(bulk, ExportRequest(type_filters=("Condition?code=x",)), sink)
        assert sink.state()["phase"] != "complete"
        result = await run_export(bulk, REQUEST, sink)
    assert result.severities == {"warning": 1}


async def test_quiet_hours_stop_downloads_between_files_and_keep_what_is_there(ehr, sink, clock):
    hour = clock.now % 86400 // 3600  # the clock starts at 08:00 UTC
    source = FhirSource("ehr", BASE, concurrency=1)
    profile = source.profile.with_overrides({"quiet_hours": [f"{hour + 1:02.0f}:00-{hour + 2:02.0f}:00"]})

    def slow(request):
        clock.now += 3600
        return reply(body=ndjson("Patient", "a", "b"))(request)

    ehr.on("GET", f"{FILES}/p1", slow)
    async with bulk_of(ehr, source=replace(source, profile=profile), clock=clock) as bulk:
        with pytest.raises(TransientSourceError, match="time of day") as caught:
            await run_export(bulk, REQUEST, sink)
        assert 0 < caught.value.retry_after <= 3600
        clock.now += caught.value.retry_after
        result = await run_export(bulk, REQUEST, sink)
    assert result.resources == {"Patient": 2, "Condition": 1}
    assert len(ehr.sent("GET", f"{FILES}/p1")) == 1


async def test_requests_to_a_host_are_spaced(clock):
    pace = Pace(4, clock)
    start = clock.now
    times = []
    for _ in range(10):
        await pace.wait("https://a.example.org/x")
        times.append(clock.now - start)
    # A second's worth at once, then one every quarter.
    assert times == [0, 0, 0, 0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
    before = clock.now
    await pace.wait("https://b.example.org/x")
    assert clock.now == before


async def test_rate_of_a_profile_is_kept(ehr, sink, clock):
    source = FhirSource("ehr", BASE, profile=ServerProfile(requests_per_second=1))
    async with bulk_of(ehr, source=source, clock=clock) as bulk:
        await run_export(bulk, REQUEST, sink)
    assert sum(clock.slept) >= len(ehr.requests) - 1


@pytest.mark.parametrize("unit", [1, 1000])
async def test_retry_after_that_is_a_time_is_read_as_one(unit, clock):
    ehr = Ehr().on("GET", STATUS, reply(429, headers={"Retry-After": str(int((clock.now + 300) * unit))}))
    async with bulk_of(ehr, clock=clock) as bulk:
        assert (await bulk.poll(STATUS)).retry_after == 300


def test_time_of_the_doubles_is_an_instant():
    assert parse_manifest(manifest(), place="").transaction_time == TIME


@pytest.mark.parametrize(
    ("severity", "partial"), [("information", False), ("warning", False), ("error", True), ("fatal", True)]
)
async def test_error_files_are_judged_by_severity(ehr, sink, severity, partial):
    errors = json.dumps(outcome(severity)).encode() + b"\n" + json.dumps(outcome("information")).encode()
    ehr.on(
        "GET",
        STATUS,
        reply(
            body=manifest([("Patient", f"{FILES}/p1", {})], error=[("OperationOutcome", f"{FILES}/e1", {})])
        ),
    ).on("GET", f"{FILES}/e1", reply(body=errors))
    async with bulk_of(ehr) as bulk:
        result = await run_export(bulk, REQUEST, sink)
    assert result.is_partial is partial
    assert sum(result.severities.values()) == 2
    assert result.error_files == ("_errors/OperationOutcome.0001.ndjson",)
    assert result.resources == {"Patient": 2}


async def test_unreadable_error_file_counts_as_error(ehr, sink):
    ehr.on("GET", STATUS, reply(body=manifest(error=[("OperationOutcome", f"{FILES}/e1", {})])))
    ehr.on("GET", f"{FILES}/e1", reply(body=b'{"resourceType": "Basic"}\n'))
    async with bulk_of(ehr) as bulk:
        assert (await run_export(bulk, REQUEST, sink)).is_partial


async def test_profile_decides_which_codes_are_warnings_and_which_refuse_the_export(ehr, sink):
    line = json.dumps(outcome("error", details="59204")).encode()
    ehr.on("GET", STATUS, reply(body=manifest(error=[("OperationOutcome", f"{FILES}/e1", {})])))
    ehr.on("GET", f"{FILES}/e1", reply(body=line))
    lenient = FhirSource("ehr", BASE, profile=ServerProfile(codes={"59204": "warn"}))
    async with bulk_of(ehr, source=lenient) as bulk:
        assert (await run_export(bulk, REQUEST, sink)).severities == {"warning": 1}
    strict = FhirSource("ehr", BASE, profile=ServerProfile(codes={"59204": "fail"}))
    async with bulk_of(ehr, source=strict) as bulk:
        with pytest.raises(ExportRejectedError, match="59204"):
            await run_export(bulk, ExportRequest(types=("Patient",)), sink)


async def test_outcome_is_accepted_like_error_and_deletions_are_kept_apart(ehr, sink):
    body = manifest(deleted=[("Bundle", f"{FILES}/d1", {})])
    del body["error"]
    body["outcome"] = [{"type": "OperationOutcome", "url": f"{FILES}/e1"}]
    ehr.on("GET", STATUS, reply(body=body))
    ehr.on("GET", f"{FILES}/e1", reply(body=json.dumps(outcome("warning")).encode()))
    ehr.on("GET", f"{FILES}/d1", reply(body=ndjson("Bundle", "x")))
    async with bulk_of(ehr) as bulk:
        result = await run_export(bulk, REQUEST, sink)
    assert result.deleted_files == ("_deleted/Bundle.0001.ndjson",)
    assert result.severities == {"warning": 1}
    assert result.resources == {}


async def test_partial_manifest_in_202_and_further_pages_bring_every_file_once(ehr, sink):
    page_two = "https://ehr.example.org/jobs/7f3a/2"
    first = manifest(
        [("Patient", f"{FILES}/p1", {})],
        link=[{"relation": "self", "url": STATUS}, {"relation": "next", "url": page_two}],
    )
    second = manifest([("Patient", f"{FILES}/p1", {}), ("Condition", f"{FILES}/c1", {})])
    ehr.on("GET", STATUS, reply(202, body=first), reply(body=first)).on("GET", page_two, reply(body=second))
    async with bulk_of(ehr) as bulk:
        result = await run_export(bulk, REQUEST, sink)
    assert result.files == {
        "Patient": ("Patient/Patient.0001.ndjson",),
        "Condition": ("Condition/Condition.0001.ndjson",),
    }
    assert len(ehr.sent("GET", f"{FILES}/p1")) == 1
