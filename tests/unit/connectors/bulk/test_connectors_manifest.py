"""Manifests in parts, in other editions, and of servers with habits of their own; what they cover."""

import json
from dataclasses import replace

import httpx
import pytest
from connectors_doubles import (
    BASE,
    STATUS,
    TIME,
    Chunks,
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
    ExtractionResult,
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
from cohortflow.errors import ExportRejectedError, IncompleteDownloadError, TransientSourceError

pytestmark = pytest.mark.anyio

FILES = "https://ehr.example.org/files"
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


async def test_signatures_may_expire_again_and_again(ehr, sink):
    """Each manifest's addresses live long enough for one file."""
    now = {"sig": 0}

    def status(request):
        now["sig"] += 1
        files = [("Patient", f"{FILES}/s{n}?sig={now['sig']}", {}) for n in range(4)]
        return reply(body=manifest(files, token=False))(request)

    ehr.on("GET", STATUS, status)

    def file(number):
        def answer(request):
            if request.url.params["sig"] != str(now["sig"]) or now.get("served") == now["sig"]:
                return httpx.Response(403)
            now["served"] = now["sig"]
            return reply(body=ndjson("Patient", f"s{number}"))(request)

        return answer

    for number in range(4):
        ehr.on("GET", f"{FILES}/s{number}", file(number))
    async with bulk_of(ehr, source=FhirSource("ehr", BASE, concurrency=1)) as bulk:
        result = await run_export(bulk, REQUEST, sink)
    assert result.resources == {"Patient": 4}
    assert len(ehr.sent("GET", f"{BASE}/$export")) == 1


async def test_files_ordered_by_patient_are_parted_by_type(ehr, sink):
    def header(name):
        parameter = {"name": "header", "valueReference": {"reference": f"Patient/{name}"}}
        return json.dumps({"resourceType": "Parameters", "parameter": [parameter]}).encode() + b"\n"

    contained = {"id": "c2", "contained": [{"resourceType": "Basic"}], "resourceType": "Condition"}
    one = header("a") + ndjson("Patient", "a") + ndjson("Condition", "c1") + header("b")
    two = header("b") + ndjson("Patient", "b") + json.dumps(contained).encode() + b"\n{broken}"
    body = manifest(outputOrganizedBy="Patient")
    body["output"] = [
        {"url": f"{FILES}/b1", "count": 2, "continuesInFile": f"{FILES}/b2"},
        {"url": f"{FILES}/b2", "count": 3},
    ]
    ehr.on("GET", STATUS, reply(body=body))
    ehr.on(
        "GET", f"{FILES}/b1", reply(stream=lambda: Chunks(*[one[i : i + 7] for i in range(0, len(one), 7)]))
    )
    ehr.on("GET", f"{FILES}/b2", reply(body=two))
    async with bulk_of(ehr) as bulk:
        result = await run_export(bulk, REQUEST, sink)
    assert sink.files() == {
        "Patient/Patient.block.0001.ndjson": ndjson("Patient", "a"),
        "Condition/Condition.block.0001.ndjson": ndjson("Condition", "c1"),
        # A line that is no JSON is kept where its reader will find and quarantine it.
        "Patient/Patient.block.0002.ndjson": ndjson("Patient", "b") + b"{broken}\n",
        "Condition/Condition.block.0002.ndjson": json.dumps(contained).encode() + b"\n",
    }
    assert result.resources == {"Patient": 3, "Condition": 2}
    assert ExtractionResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


async def test_parted_file_that_is_short_leaves_no_part(ehr, sink):
    body = manifest(outputOrganizedBy="Patient")
    body["output"] = [{"url": f"{FILES}/b1", "count": 9}]
    ehr.on("GET", STATUS, reply(body=body))
    ehr.on("GET", f"{FILES}/b1", reply(body=ndjson("Patient", "a") + ndjson("Condition", "c")))
    async with bulk_of(ehr, attempts=2) as bulk:
        with pytest.raises(IncompleteDownloadError):
            await run_export(bulk, REQUEST, sink)
    assert sink.files() == {}


class Ranges:
    """A file that breaks off after so many bytes, again and again."""

    def __init__(self, data, step, *, tag='"v1"', **change):
        self.data, self.step, self.tag, self.change = data, step, tag, change

    def __call__(self, request):
        start = 0
        if (wanted := request.headers.get("Range")) and request.headers["If-Range"] == self.tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        rest = self.data[start:]
        headers = {"Accept-Ranges": "bytes", "ETag": self.tag, "Content-Length": str(len(rest))}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
        headers |= self.change
        if error := len(rest) > self.step and httpx.ReadError("reset"):
            rest = rest[: self.step]
        return httpx.Response(
            206 if start else 200, headers=headers, stream=Chunks(rest, error=error or None)
        )


async def test_broken_download_goes_on_where_it_stopped(ehr, sink):
    data = ndjson("Patient", *(f"p{n}" for n in range(20)))
    ehr.on("GET", STATUS, reply(body=manifest([("Patient", f"{FILES}/p1", {"count": 20})])))
    ehr.on("GET", f"{FILES}/p1", Ranges(data, 300))
    async with bulk_of(ehr, attempts=2) as bulk:
        await run_export(bulk, REQUEST, sink)
    assert sink.files() == {"Patient/Patient.0001.ndjson": data}
    starts = [request.headers.get("Range") for request in ehr.sent("GET", f"{FILES}/p1")]
    assert starts == [None, *(f"bytes={n}-" for n in range(300, len(data), 300))]


async def test_file_that_changed_meanwhile_is_fetched_anew(ehr, sink):
    old, new = (ndjson("Patient", *(f"{name}{n}" for n in range(20))) for name in "on")
    ehr.on("GET", STATUS, reply(body=manifest([("Patient", f"{FILES}/p1", {"count": 20})])))
    ehr.on("GET", f"{FILES}/p1", Ranges(old, 300), Ranges(new, 10_000, tag='"v2"'))
    async with bulk_of(ehr) as bulk:
        await run_export(bulk, REQUEST, sink)
    assert sink.files() == {"Patient/Patient.0001.ndjson": new}


async def test_weak_tag_is_not_trusted_with_ranges(ehr, sink):
    data = ndjson("Patient", *(f"p{n}" for n in range(20)))
    ehr.on("GET", STATUS, reply(body=manifest([("Patient", f"{FILES}/p1", {})])))
    ehr.on("GET", f"{FILES}/p1", Ranges(data, 300, tag='W/"v1"'), reply(body=data))
    async with bulk_of(ehr) as bulk:
        await run_export(bulk, REQUEST, sink)
    assert not any("Range" in request.headers for request in ehr.requests)


async def test_file_that_a_server_cut_within_a_line_is_not_taken(ehr, sink):
    ehr.on("GET", STATUS, reply(body=manifest([("Patient", f"{FILES}/p1", {})])))
    ehr.on("GET", f"{FILES}/p1", reply(body=ndjson("Patient", "a", "b")[:-9]))
    async with bulk_of(ehr, attempts=2) as bulk:
        with pytest.raises(IncompleteDownloadError, match="within a line"):
            await run_export(bulk, REQUEST, sink)
    assert sink.files() == {}


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
