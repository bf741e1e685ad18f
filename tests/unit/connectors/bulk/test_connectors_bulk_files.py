"""Files of a bulk export: cut off, short, compressed, parted, with signatures that expire."""

import asyncio
import gzip
import json

import httpx
import pytest
from connectors_doubles import BASE, FILES, STATUS, Chunks, bulk_of, manifest, ndjson, reply, run_export

from cohortflow.connectors import ExportRequest, ExtractionResult, FhirSource, ServerProfile
from cohortflow.errors import IncompleteDownloadError, StoreUnavailableError

pytestmark = pytest.mark.anyio

REQUEST = ExportRequest()


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
