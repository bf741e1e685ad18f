"""The course of a bulk export: resume, cancel, expiry, outages."""

import asyncio
import hashlib
import json
import logging

import httpx
import pytest
from connectors_doubles import (
    BASE,
    FILES,
    STATUS,
    TIME,
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
    SourceError,
    StoreUnavailableError,
    TransientSourceError,
)

pytestmark = pytest.mark.anyio

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
