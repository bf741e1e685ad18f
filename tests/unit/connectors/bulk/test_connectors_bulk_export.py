"""The whole of a bulk export: resume, expiry, integrity, issues."""

import asyncio
import gzip
import hashlib
import json
import logging

import httpx
import pytest
from connectors_doubles import (
    BASE,
    STATUS,
    TIME,
    Chunks,
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
    cancel_export,
    download_all,
    ensure_started,
    poll_once,
)
from cohortflow.errors import (
    ArtifactNotFoundError,
    ExportExpiredError,
    ExportRejectedError,
    IncompleteDownloadError,
    SourceError,
    StoreUnavailableError,
    TransientSourceError,
)

pytestmark = pytest.mark.anyio

FILES = "https://ehr.example.org/files"
REQUEST = ExportRequest()


async def test_export_brings_files_counts_and_the_watermark(ehr, sink, clock):
    async with bulk_of(ehr, clock=clock) as bulk:
        result = await run_export(bulk, REQUEST, sink)
    patients = ndjson("Patient", "a", "b")
    assert sink.files() == {
        "Patient/Patient.0001.ndjson": patients,
        "Condition/Condition.0001.ndjson": ndjson("Condition", "c"),
    }
    assert result.transaction_time == TIME
    assert result.resources == {"Patient": 2, "Condition": 1}
    assert result.files["Patient"] == ("Patient/Patient.0001.ndjson",)
    assert result.bytes == sum(len(data) for data in sink.files().values())
    assert not result.is_partial
    assert clock.slept == [7.0]
    [entry] = [item for item in sink.state()["files"] if item["type"] == "Patient"]
    assert entry["sha256"] == hashlib.sha256(patients).hexdigest()
    assert sink.state()["phase"] == "complete"
    assert "/files/" not in json.dumps(sink.state())
    assert len(ehr.sent("DELETE", STATUS)) == 1


async def test_result_survives_json():
    result = ExtractionResult(TIME, {"Patient": ("Patient/Patient.0001.ndjson",)}, {"Patient": 2}, 10)
    assert ExtractionResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


async def test_complete_export_is_not_repeated(ehr, sink):
    async with bulk_of(ehr) as bulk:
        first = await run_export(bulk, REQUEST, sink)
        before = len(ehr.requests)
        assert await run_export(bulk, REQUEST, sink) == first
    assert len(ehr.requests) == before


async def test_worker_killed_after_kick_off_resumes_without_a_second_one(ehr, sink):
    async with bulk_of(ehr) as bulk:
        await ensure_started(bulk, REQUEST, sink)
        assert isinstance(await poll_once(bulk, sink), InProgress)
    async with bulk_of(ehr) as another_worker:
        result = await run_export(another_worker, REQUEST, sink)
    assert len(ehr.sent("GET", f"{BASE}/$export")) == 1
    assert result.resources["Patient"] == 2


async def test_status_url_is_kept_before_the_first_poll(ehr, sink):
    async with bulk_of(ehr) as bulk:
        await ensure_started(bulk, REQUEST, sink)
    assert sink.state()["status_url"] == STATUS
    assert not ehr.sent("GET", STATUS)


async def test_export_whose_state_cannot_be_kept_is_deleted(ehr, sink):
    class FullSink(type(sink)):
        async def write_state(self, state):
            if b'"running"' in state:
                raise StoreUnavailableError("full")
            await super().write_state(state)

    async with bulk_of(ehr) as bulk:
        with pytest.raises(StoreUnavailableError):
            await ensure_started(bulk, REQUEST, FullSink(sink.root))
    assert len(ehr.sent("DELETE", STATUS)) == 1


async def test_another_request_discards_the_export_and_its_files(ehr, sink):
    async with bulk_of(ehr) as bulk:
        await ensure_started(bulk, REQUEST, sink)
        stale = sink.root / "Patient" / "Patient.0009.ndjson"
        stale.parent.mkdir()
        stale.write_bytes(b"{}\n")
        await ensure_started(bulk, ExportRequest(types=("Patient",)), sink)
    assert len(ehr.sent("GET", f"{BASE}/$export")) == 2
    assert len(ehr.sent("DELETE", STATUS)) == 1
    assert not stale.exists()


async def test_resume_skips_files_that_are_done(ehr, sink):
    ehr.on("GET", f"{FILES}/c1", reply(422))
    async with bulk_of(ehr, source=FhirSource("ehr", BASE, concurrency=1)) as bulk:
        with pytest.raises(ExportRejectedError):
            await run_export(bulk, REQUEST, sink)
        ehr.on("GET", f"{FILES}/c1", reply(body=ndjson("Condition", "c")))
        await run_export(bulk, REQUEST, sink)
    assert len(ehr.sent("GET", f"{FILES}/p1")) == 1
    assert len(ehr.sent("GET", f"{FILES}/c1")) == 2


async def test_cancelled_download_keeps_what_is_done_and_the_export(ehr, sink):
    reached = asyncio.Event()

    async def handler(request):
        if str(request.url) == f"{FILES}/c1" and not reached.is_set():
            reached.set()
            await asyncio.sleep(3600)
        return ehr(request)

    async with bulk_of(handler, source=FhirSource("ehr", BASE, concurrency=1)) as bulk:
        run = asyncio.create_task(run_export(bulk, REQUEST, sink))
        await reached.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert not ehr.sent("DELETE", STATUS)
        assert [item["done"] for item in sink.state()["files"]] == [True, False]
        result = await run_export(bulk, REQUEST, sink)
    assert result.resources["Condition"] == 1
    assert len(ehr.sent("GET", f"{FILES}/p1")) == 1


async def test_cancel_can_take_the_export_with_it(ehr, sink):
    ehr.on("GET", STATUS, reply(202, headers={"Retry-After": "1"}))

    class StoppedClock:
        def time(self):
            return 0.0

        async def sleep(self, seconds):
            raise asyncio.CancelledError

    async with bulk_of(ehr, clock=StoppedClock()) as bulk:
        with pytest.raises(asyncio.CancelledError):
            await run_export(bulk, REQUEST, sink, give_up_on_cancel=True)
    assert len(ehr.sent("DELETE", STATUS)) == 1
    assert sink.state()["phase"] == "cancelled"


async def test_cancelled_export_starts_anew(ehr, sink):
    async with bulk_of(ehr) as bulk:
        await ensure_started(bulk, REQUEST, sink)
        await cancel_export(bulk, sink)
        await ensure_started(bulk, REQUEST, sink)
    assert len(ehr.sent("GET", f"{BASE}/$export")) == 2


async def test_done_file_that_vanished_is_fetched_again(ehr, sink):
    ehr.on("GET", f"{FILES}/c1", reply(422))
    async with bulk_of(ehr, source=FhirSource("ehr", BASE, concurrency=1)) as bulk:
        with pytest.raises(ExportRejectedError):
            await run_export(bulk, REQUEST, sink)
        (sink.root / "Patient/Patient.0001.ndjson").unlink()
        ehr.on("GET", f"{FILES}/c1", reply(body=ndjson("Condition", "c")))
        await run_export(bulk, REQUEST, sink)
    assert sink.files()["Patient/Patient.0001.ndjson"] == ndjson("Patient", "a", "b")


async def test_truncated_download_is_retried_and_leaves_nothing_behind(ehr, sink, clock):
    patients = ndjson("Patient", "a", "b")
    seen = []

    def truncated(request):
        seen.append(sink.files())
        return httpx.Response(
            200, headers={"Content-Length": str(len(patients))}, stream=Chunks(patients[:20])
        )

    ehr.on("GET", f"{FILES}/p1", truncated, truncated, reply(body=patients))
    async with bulk_of(ehr, clock=clock) as bulk:
        await run_export(bulk, REQUEST, sink)
    assert sink.files()["Patient/Patient.0001.ndjson"] == patients
    assert all("Patient/Patient.0001.ndjson" not in files for files in seen)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda data: Chunks(data[:20], error=httpx.ReadError("reset")), id="connection-reset"),
        pytest.param(lambda data: Chunks(gzip.compress(data)[:-9]), id="gzip-cut"),
        pytest.param(lambda data: Chunks(gzip.compress(data)[:-8] + b"\0" * 8), id="gzip-checksum"),
        pytest.param(lambda data: Chunks(data[:-5]), id="closed-within-a-line"),
    ],
)
async def test_every_kind_of_truncation_is_noticed_without_a_count(ehr, sink, broken):
    patients = ndjson("Patient", "a", "b")
    ehr.on("GET", STATUS, reply(body=manifest([("Patient", f"{FILES}/p1", {})])))
    ehr.on("GET", f"{FILES}/p1", reply(stream=lambda: broken(patients)), reply(body=patients))
    async with bulk_of(ehr) as bulk:
        result = await run_export(bulk, REQUEST, sink)
    assert len(ehr.sent("GET", f"{FILES}/p1")) == 2
    assert result.resources == {"Patient": 2}


async def test_missing_bytes_are_noticed_between_lines_too(ehr, sink):
    patients = ndjson("Patient", "a", "b")
    ehr.on("GET", STATUS, reply(body=manifest([("Patient", f"{FILES}/p1", {})])))
    short = reply(
        stream=lambda: Chunks(ndjson("Patient", "a")), headers={"Content-Length": str(len(patients))}
    )
    ehr.on("GET", f"{FILES}/p1", short, reply(body=patients))
    async with bulk_of(ehr) as bulk:
        assert (await run_export(bulk, REQUEST, sink)).resources == {"Patient": 2}


@pytest.mark.parametrize("needed", [True, False])
async def test_files_get_the_token_only_if_the_manifest_says_so(ehr, sink, needed):
    ehr.on("GET", STATUS, reply(body=manifest([("Patient", f"{FILES}/p1", {})], token=needed)))
    source = FhirSource("ehr", BASE, auth="basic", client_id="user", secret="pw")
    async with bulk_of(ehr, source=source) as bulk:
        await run_export(bulk, REQUEST, sink)
    assert ("Authorization" in ehr.sent("GET", f"{FILES}/p1")[0].headers) is needed
    assert "Authorization" in ehr.sent("GET", STATUS)[0].headers


async def test_count_that_stays_wrong_fails_without_a_file(ehr, sink):
    ehr.on("GET", f"{FILES}/p1", reply(body=ndjson("Patient", "a")))
    async with bulk_of(ehr, attempts=3) as bulk:
        with pytest.raises(IncompleteDownloadError, match="holds 1 resources, the manifest says 2"):
            await run_export(bulk, REQUEST, sink)
    assert len(ehr.sent("GET", f"{FILES}/p1")) == 3
    assert "Patient/Patient.0001.ndjson" not in sink.files()
    assert sink.state()["phase"] == "ready"


async def test_more_lines_than_announced_are_kept_with_a_warning(ehr, sink, caplog):
    ehr.on("GET", f"{FILES}/p1", reply(body=ndjson("Patient", "a", "b") + b"{\n"))
    async with bulk_of(ehr) as bulk:
        result = await run_export(bulk, REQUEST, sink)
    assert result.resources["Patient"] == 3
    assert "holds 3 lines, the manifest says 2" in caplog.text


async def test_counts_can_be_distrusted(ehr, sink):
    ehr.on("GET", f"{FILES}/p1", reply(body=ndjson("Patient", "a")))
    source = FhirSource("ehr", BASE, profile=ServerProfile(trust_counts=False))
    async with bulk_of(ehr, source=source) as bulk:
        assert (await run_export(bulk, REQUEST, sink)).resources["Patient"] == 1


@pytest.mark.parametrize("encoding", [{"Content-Encoding": "gzip"}, {}])
async def test_gzip_is_decoded_whether_announced_or_not(ehr, sink, encoding):
    data = ndjson("Patient", "a") + b"\n" + ndjson("Patient", "b").rstrip()
    body = gzip.compress(data[:30]) + gzip.compress(data[30:])
    ehr.on(
        "GET", f"{FILES}/p1", reply(stream=lambda: Chunks(body[:1], body[1:25], body[25:]), headers=encoding)
    )
    async with bulk_of(ehr) as bulk:
        result = await run_export(bulk, REQUEST, sink)
    assert sink.files()["Patient/Patient.0001.ndjson"] == data
    assert result.resources["Patient"] == 2


@pytest.mark.parametrize("status", [404, 410])
async def test_expired_status_restarts_once(ehr, sink, status):
    ready = ehr.last("GET", STATUS)
    ehr.on("GET", STATUS, reply(status), ready)
    async with bulk_of(ehr) as bulk:
        await ensure_started(bulk, REQUEST, sink)
        result = await run_export(bulk, REQUEST, sink)
    assert len(ehr.sent("GET", f"{BASE}/$export")) == 2
    assert result.resources["Patient"] == 2


async def test_export_that_keeps_expiring_fails(ehr, sink):
    ehr.on("GET", STATUS, reply(404))
    async with bulk_of(ehr) as bulk:
        with pytest.raises(ExportExpiredError):
            await run_export(bulk, REQUEST, sink)
    assert len(ehr.sent("GET", f"{BASE}/$export")) == 2
    assert sink.state()["phase"] == "expired"


async def test_expired_file_restarts_and_discards_the_earlier_files(ehr, sink):
    second = manifest([("Patient", f"{FILES}/new", {"count": 1})], transactionTime="2026-03-02T00:00:00Z")
    first = ehr.last("GET", STATUS)
    # Ready; still ready with the same addresses when asked again; then the second export.
    ehr.on("GET", STATUS, first, first, reply(body=second))
    ehr.on("GET", f"{FILES}/c1", reply(410))
    ehr.on("GET", f"{FILES}/new", reply(body=ndjson("Patient", "z")))
    async with bulk_of(ehr, source=FhirSource("ehr", BASE, concurrency=1)) as bulk:
        result = await run_export(bulk, REQUEST, sink)
    assert sink.files() == {"Patient/Patient.0001.ndjson": ndjson("Patient", "z")}
    assert result.transaction_time == "2026-03-02T00:00:00Z"


async def test_expired_signatures_are_renewed_from_the_manifest(ehr, sink):
    def signed(token):
        return manifest(
            [("Patient", f"{FILES}/p1?sig={token}", {}), ("Condition", f"{FILES}/c1?sig={token}", {})],
            token=False,
        )

    def condition(request):
        fresh = request.url.params["sig"] == "new"
        return reply(body=ndjson("Condition", "c"))(request) if fresh else httpx.Response(403)

    ehr.on("GET", STATUS, reply(body=signed("old")), reply(body=signed("new")))
    ehr.on("GET", f"{FILES}/c1", condition)
    async with bulk_of(ehr, source=FhirSource("ehr", BASE, concurrency=1)) as bulk:
        result = await run_export(bulk, REQUEST, sink)
    assert result.resources == {"Patient": 2, "Condition": 1}
    assert len(ehr.sent("GET", f"{BASE}/$export")) == 1
    assert len(ehr.sent("GET", f"{FILES}/p1")) == 1


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


async def test_outage_during_polling_is_waited_out(ehr, sink, clock):
    ready = ehr.last("GET", STATUS)
    ehr.on(
        "GET",
        STATUS,
        reply(503),
        httpx.ConnectError("refused"),
        reply(500, body=outcome("error", "transient")),
        ready,
    )
    async with bulk_of(ehr, clock=clock) as bulk:
        await run_export(bulk, REQUEST, sink)
    assert clock.slept == [30.0, 30.0, 30.0]


async def test_outage_beyond_patience_fails_but_keeps_the_export(ehr, sink, clock):
    ready = ehr.last("GET", STATUS)
    ehr.on("GET", STATUS, reply(503))
    source = FhirSource("ehr", BASE, profile=ServerProfile(max_outage_seconds=100))
    async with bulk_of(ehr, source=source, clock=clock) as bulk:
        with pytest.raises(TransientSourceError, match="unreachable"):
            await run_export(bulk, REQUEST, sink)
        assert sum(clock.slept) == 120
        ehr.on("GET", STATUS, ready)
        await run_export(bulk, REQUEST, sink)
    assert len(ehr.sent("GET", f"{BASE}/$export")) == 1


async def test_export_that_takes_too_long_fails_but_is_kept(ehr, sink, clock):
    ehr.on("GET", STATUS, reply(202, headers={"Retry-After": "60"}))
    source = FhirSource("ehr", BASE, profile=ServerProfile(max_wait_seconds=150))
    async with bulk_of(ehr, source=source, clock=clock) as bulk:
        with pytest.raises(TransientSourceError, match="not ready"):
            await run_export(bulk, REQUEST, sink)
    assert clock.slept == [60.0, 60.0, 60.0]
    assert sink.state()["phase"] == "running"


async def test_failed_export_starts_anew_in_the_next_run(ehr, sink):
    ready = ehr.last("GET", STATUS)
    ehr.on("GET", STATUS, reply(500, body=outcome("error", "exception")), ready)
    async with bulk_of(ehr) as bulk:
        with pytest.raises(ExportRejectedError, match="exception"):
            await run_export(bulk, REQUEST, sink)
        await run_export(bulk, REQUEST, sink)
    assert len(ehr.sent("GET", f"{BASE}/$export")) == 2


async def test_refused_delete_does_not_fail_the_export(ehr, sink):
    ehr.on("DELETE", STATUS, reply(405))
    async with bulk_of(ehr) as bulk:
        assert (await run_export(bulk, REQUEST, sink)).resources["Patient"] == 2


async def test_progress_tells_percent_and_files(ehr, sink):
    class Recorder:
        def __init__(self):
            self.updates = []

        def update(self, task, done, total=None, unit=""):
            self.updates.append((task, done, total, unit))

    recorder = Recorder()
    async with bulk_of(ehr, source=FhirSource("ehr", BASE, concurrency=1)) as bulk:
        await run_export(bulk, REQUEST, sink, recorder)
    assert recorder.updates == [
        ("export", 50, 100, "%"),
        ("download", 0, 2, "files"),
        ("download", 1, 2, "files"),
        ("download", 2, 2, "files"),
    ]


async def test_downloads_run_in_parallel_but_bounded(ehr, sink):
    running = peak = 0

    async def handler(request):
        nonlocal running, peak
        if "/files/" in str(request.url):
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(0.01)
            running -= 1
        return ehr(request)

    urls = [f"{FILES}/n{number}" for number in range(12)]
    ehr.on("GET", STATUS, reply(body=manifest([("Patient", url, {}) for url in urls])))
    for url in urls:
        ehr.on("GET", url, reply(body=ndjson("Patient", "a")))
    async with bulk_of(handler, source=FhirSource("ehr", BASE, concurrency=3)) as bulk:
        result = await run_export(bulk, REQUEST, sink)
    assert peak == 3
    assert result.files["Patient"][-1] == "Patient/Patient.0012.ndjson"


async def test_steps_out_of_order_are_refused(ehr, sink):
    async with bulk_of(ehr) as bulk:
        with pytest.raises(ArtifactNotFoundError):
            await poll_once(bulk, sink)
        await ensure_started(bulk, REQUEST, sink)
        with pytest.raises(ArtifactNotFoundError, match="not ready"):
            await download_all(bulk, sink)


async def test_damaged_state_is_refused_without_its_content(ehr, sink):
    await sink.write_state(b'{"version": 99, "status_url": "https://x/secret"}')
    async with bulk_of(ehr) as bulk:
        with pytest.raises(SourceError) as caught:
            await ensure_started(bulk, REQUEST, sink)
    assert "secret" not in str(caught.value)
    assert not ehr.requests


async def test_logs_and_errors_hold_neither_urls_nor_diagnostics(ehr, sink, caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpx").setLevel(logging.NOTSET)
    ehr.on("GET", f"{FILES}/c1", reply(422, body=outcome("error", "invalid", details="59108")))
    async with bulk_of(ehr) as bulk:
        with pytest.raises(ExportRejectedError) as caught:
            await run_export(bulk, REQUEST, sink)
    text = caplog.text + str(caught.value)
    assert "invalid/59108" in text
    for secret in ("Jane", "4711", "s3cr3t", "7f3a", "/files/"):
        assert secret not in text


async def test_a_sink_that_fails_leaves_no_open_response(ehr, sink, monkeypatch):
    generators = []

    async def fail(_name, chunks):
        generators.append(chunks)
        await anext(chunks)
        raise StoreUnavailableError("full")

    monkeypatch.setattr(sink, "write_file", fail)
    async with bulk_of(ehr) as bulk:
        with pytest.raises(StoreUnavailableError):
            await run_export(bulk, REQUEST, sink)
    assert generators
    assert all(chunks.ag_frame is None for chunks in generators), "closed within the event loop"
