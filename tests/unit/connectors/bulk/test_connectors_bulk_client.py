"""Kick-off, poll, download and delete, each on its own."""

import ssl
from datetime import UTC, datetime, timedelta, timezone

import httpx
import orjson
import pytest
from connectors_doubles import BASE, STATUS, TIME, Ehr, bulk_of, manifest, ndjson, outcome, reply

from cohortflow.connectors import ExportRequest, FhirSource, InProgress, ServerProfile
from cohortflow.connectors.bulk import Manifest
from cohortflow.errors import (
    AuthorizationError,
    ConfigurationError,
    ExportExpiredError,
    ExportRejectedError,
    InputError,
    TransientSourceError,
)

pytestmark = pytest.mark.anyio

FILE = "https://ehr.example.org/files/p1"
STORE = "https://bucket.store.example.com/p1"
SECRETS = FhirSource(
    "ehr", BASE, auth="basic", client_id="user", secret="pw", headers={"Epic-Client-ID": "app"}
)


async def fetch(bulk, url=FILE, *, private=True):
    return b"".join([chunk async for chunk in bulk.download(url, private=private)])


def accepted(ehr, path):
    return ehr.on("GET", BASE + path, reply(202, headers={"Content-Location": "../jobs/1"}))


@pytest.mark.parametrize(
    ("level", "group", "path"),
    [
        ("system", "", "/$export"),
        ("patient", "", "/Patient/$export"),
        ("group", "e.4-7", "/Group/e.4-7/$export"),
    ],
)
async def test_kick_off_asks_as_the_specification_says(level, group, path):
    ehr = accepted(Ehr(), path)
    request = ExportRequest(
        level,
        group,
        types=("Patient", "Observation"),
        since=datetime(2026, 1, 31, 1, tzinfo=timezone(timedelta(hours=1))),
        type_filters=("Observation?category=laboratory,vital-signs",),
        extra=(("_count", "5"),),
    )
    async with bulk_of(ehr) as bulk:
        status_url = await bulk.kick_off(request)
    [sent] = ehr.requests
    assert sent.headers["Accept"] == "application/fhir+json"
    assert sent.headers["Prefer"] == "respond-async"
    assert sent.url.params.multi_items() == [
        ("_outputFormat", "application/fhir+ndjson"),
        ("_type", "Observation,Patient"),
        ("_since", "2026-01-31T00:00:00Z"),
        ("_typeFilter", "Observation?category=laboratory,vital-signs"),
        ("_count", "5"),
    ]
    assert status_url == "https://ehr.example.org/jobs/1"


async def test_kick_off_by_post_repeats_types():
    ehr = Ehr().on("POST", f"{BASE}/$export", reply(202, headers={"Content-Location": STATUS}))
    source = FhirSource("ehr", BASE, profile=ServerProfile(kick_off_method="POST"))
    async with bulk_of(ehr, source=source) as bulk:
        await bulk.kick_off(
            ExportRequest(types=("Patient", "Condition"), since=datetime(2026, 1, 1, tzinfo=UTC))
        )
    assert orjson.loads(ehr.requests[0].content)["parameter"] == [
        {"name": "_outputFormat", "valueString": "application/fhir+ndjson"},
        {"name": "_type", "valueString": "Condition"},
        {"name": "_type", "valueString": "Patient"},
        {"name": "_since", "valueInstant": "2026-01-01T00:00:00Z"},
    ]


async def test_profile_encodes_commas_within_filters():
    ehr = accepted(Ehr(), "/$export")
    source = FhirSource("ehr", BASE, profile=ServerProfile(encode_filter_commas=True))
    async with bulk_of(ehr, source=source) as bulk:
        await bulk.kick_off(ExportRequest(type_filters=("Observation?category=a,b",)))
    assert ehr.requests[0].url.params["_typeFilter"] == "Observation?category=a%2Cb"


async def test_profile_refuses_what_the_server_would_ignore():
    profile = ServerProfile(
        "narrow", levels=frozenset({"group"}), unsupported_parameters=frozenset({"_since"})
    )
    ehr = Ehr()
    async with bulk_of(ehr, source=FhirSource("ehr", BASE, profile=profile)) as bulk:
        with pytest.raises(ExportRejectedError, match="no system export"):
            await bulk.kick_off(ExportRequest())
        with pytest.raises(ExportRejectedError, match="_since"):
            await bulk.kick_off(ExportRequest("group", "g", since=datetime(2026, 1, 1, tzinfo=UTC)))
    assert not ehr.requests


async def test_parameter_that_the_server_ignores_cancels_and_refuses_the_export():
    body = outcome("warning", "not-supported", details="59100")
    ehr = Ehr().on("GET", f"{BASE}/$export", reply(202, body=body, headers={"Content-Location": STATUS}))
    ehr.on("DELETE", STATUS, reply(202))
    source = FhirSource("ehr", BASE, profile=ServerProfile(codes={"59100": "fail"}))
    async with bulk_of(ehr, source=source) as bulk:
        with pytest.raises(ExportRejectedError, match="59100"):
            await bulk.kick_off(ExportRequest())
    assert len(ehr.sent("DELETE", STATUS)) == 1


async def test_too_recent_kick_off_can_be_left_to_the_scheduler(clock):
    ehr = Ehr().on("GET", f"{BASE}/$export", reply(429, headers={"Retry-After": "3600"}))
    async with bulk_of(ehr, clock=clock) as bulk:
        with pytest.raises(TransientSourceError) as caught:
            await bulk.kick_off(ExportRequest())
    assert caught.value.retry_after == 3600
    assert len(ehr.requests) == 1
    assert clock.slept == []
    ehr = Ehr().on("GET", f"{BASE}/$export", reply(429))
    source = FhirSource("ehr", BASE, profile=ServerProfile(kick_off_attempts=1))
    async with bulk_of(ehr, source=source) as bulk:
        with pytest.raises(TransientSourceError):
            await bulk.kick_off(ExportRequest())
    assert len(ehr.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ExportRejectedError),
        (401, AuthorizationError),
        (403, AuthorizationError),
        (404, ExportRejectedError),
        (406, ExportRejectedError),
        (409, ExportRejectedError),
        (422, ExportRejectedError),
        (500, ExportRejectedError),
        (501, ExportRejectedError),
    ],
)
async def test_permanent_refusals_fail_at_once_with_codes_only(status, kind, clock):
    body = outcome("error", "processing", details="59108")
    ehr = Ehr().on("GET", f"{BASE}/$export", reply(status, body=body))
    async with bulk_of(ehr, clock=clock) as bulk:
        with pytest.raises(kind, match=rf"HTTP {status} \(processing/59108\)") as caught:
            await bulk.kick_off(ExportRequest())
    assert len(ehr.requests) == 1
    assert clock.slept == []
    assert caught.value.remedy
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
async def test_busy_server_is_asked_again_with_growing_waits(status, clock):
    good = reply(202, headers={"Content-Location": STATUS})
    ehr = Ehr().on("GET", f"{BASE}/$export", reply(status), reply(status), reply(status), good)
    async with bulk_of(ehr, clock=clock) as bulk:
        assert await bulk.kick_off(ExportRequest()) == STATUS
    assert clock.slept == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "120"}, 120.0),
        ({"Retry-After": "Sun, 01 Mar 2026 08:01:30 GMT"}, 90.0),
        # The date is meant by the server's clock, which runs ten seconds ahead of ours.
        (
            {"Retry-After": "Sun, 01 Mar 2026 08:01:30 GMT", "Date": "Sun, 01 Mar 2026 08:00:10 GMT"},
            80.0,
        ),
    ],
)
@pytest.mark.parametrize("status", [202, 429, 503])
async def test_retry_after_is_honoured(headers, wait, status, clock):
    ehr = Ehr().on("GET", STATUS, reply(status, headers=headers))
    good = reply(202, headers={"Content-Location": STATUS})
    ehr.on("GET", f"{BASE}/$export", reply(503, headers=headers), good)
    async with bulk_of(ehr, clock=clock) as bulk:
        answer = await bulk.poll(STATUS)
        await bulk.kick_off(ExportRequest())
    assert isinstance(answer, InProgress)
    assert answer.retry_after == wait
    assert answer.transient is (status != 202)
    assert clock.slept == [wait]


async def test_kick_off_without_a_status_url_is_refused():
    async with bulk_of(Ehr().on("GET", f"{BASE}/$export", reply(200))) as bulk:
        with pytest.raises(ExportRejectedError, match="without a status URL"):
            await bulk.kick_off(ExportRequest())


@pytest.mark.parametrize(("text", "percent"), [("In progress", None), ("57.4% of 12", 57), ("400 %", 100)])
async def test_progress_is_free_text(text, percent):
    ehr = Ehr().on("GET", STATUS, reply(202, headers={"X-Progress": text}))
    async with bulk_of(ehr) as bulk:
        answer = await bulk.poll(STATUS)
    assert (answer.progress, answer.percent, answer.retry_after) == (text, percent, 30.0)


async def test_manifest_is_read():
    ehr = Ehr().on(
        "GET", STATUS, reply(body=manifest([("Patient", FILE, {"count": 3})], token=False, deleted=[]))
    )
    async with bulk_of(ehr) as bulk:
        answer = await bulk.poll(STATUS)
    assert isinstance(answer, Manifest)
    assert answer.transaction_time == TIME
    assert answer.requires_access_token is False
    assert [(item.type, item.count) for item in answer.output] == [("Patient", 3)]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"transactionTime": None}, "transactionTime"),
        ({"output": [{"url": "https://x/s3cr3t"}]}, "output"),
        ({"output": [{"type": "../../etc", "url": "https://x/s3cr3t"}]}, "output"),
        ({"output": [{"type": "Patient", "url": "https://x/s3cr3t", "count": -1}]}, "count"),
    ],
)
async def test_malformed_manifest_is_refused_without_its_values(change, fault):
    ehr = Ehr().on("GET", STATUS, reply(body=manifest() | change))
    async with bulk_of(ehr) as bulk:
        with pytest.raises(ExportRejectedError, match=fault) as caught:
            await bulk.poll(STATUS)
    assert "s3cr3t" not in str(caught.value)


async def test_status_that_is_no_json_is_refused():
    async with bulk_of(Ehr().on("GET", STATUS, reply(body=b"<html>"))) as bulk:
        with pytest.raises(ExportRejectedError, match="malformed"):
            await bulk.poll(STATUS)


async def test_redirect_to_a_store_carries_no_credentials():
    ehr = Ehr().on("GET", FILE, reply(307, headers={"Location": f"{STORE}?sig=1"}))
    ehr.on("GET", STORE, reply(307, headers={"Location": f"{STORE}/moved"}))
    ehr.on("GET", f"{STORE}/moved", reply(307, headers={"Location": "https://ehr.example.org/back"}))
    ehr.on("GET", "https://ehr.example.org/back", reply(body=ndjson("Patient", "a")))
    async with bulk_of(ehr, source=SECRETS) as bulk:
        assert await fetch(bulk) == ndjson("Patient", "a")
    first, *others = ehr.requests
    assert first.headers["Authorization"].startswith("Basic ")
    assert first.headers["Epic-Client-ID"] == "app"
    assert len(others) == 3
    for hop in others:
        assert "Authorization" not in hop.headers
        assert "Epic-Client-ID" not in hop.headers


async def test_redirect_within_the_origin_keeps_credentials():
    ehr = Ehr().on("GET", FILE, reply(302, headers={"Location": "/files/moved"}))
    ehr.on("GET", "https://ehr.example.org/files/moved", reply(body=ndjson("Patient", "a")))
    async with bulk_of(ehr, source=SECRETS) as bulk:
        await fetch(bulk)
    assert "Authorization" in ehr.requests[1].headers


@pytest.mark.parametrize("target", ["http://bucket.store.example.com/p1", "http://ehr.example.org/files/p1"])
async def test_redirect_to_plain_http_is_refused(target):
    ehr = Ehr().on("GET", FILE, reply(307, headers={"Location": target}))
    async with bulk_of(ehr, source=SECRETS) as bulk:
        with pytest.raises(ExportRejectedError, match="not https"):
            await fetch(bulk)
    assert len(ehr.requests) == 1


async def test_redirects_in_a_circle_end():
    ehr = Ehr().on("GET", FILE, reply(302, headers={"Location": FILE}))
    async with bulk_of(ehr) as bulk:
        with pytest.raises(ExportRejectedError, match="redirects"):
            await fetch(bulk)


async def test_files_that_need_no_token_get_none():
    ehr = Ehr().on("GET", FILE, reply(body=ndjson("Patient", "a")))
    async with bulk_of(ehr, source=SECRETS) as bulk:
        await fetch(bulk, private=False)
    assert "Authorization" not in ehr.requests[0].headers
    assert "Epic-Client-ID" not in ehr.requests[0].headers


@pytest.mark.parametrize(
    ("status", "private", "kind"),
    [
        (404, True, ExportExpiredError),
        (410, True, ExportExpiredError),
        (403, True, AuthorizationError),
        (403, False, ExportExpiredError),
        (500, True, TransientSourceError),
        (503, True, TransientSourceError),
        (206, True, ExportRejectedError),
    ],
)
async def test_download_failures_have_their_kind(status, private, kind):
    async with bulk_of(Ehr().on("GET", FILE, reply(status)), source=SECRETS) as bulk:
        with pytest.raises(kind):
            await fetch(bulk, private=private)


async def test_login_page_is_no_file():
    ehr = Ehr().on(
        "GET", FILE, reply(body=b"<html></html>", headers={"Content-Type": "text/html; charset=utf-8"})
    )
    async with bulk_of(ehr) as bulk:
        with pytest.raises(ExportRejectedError, match="web page"):
            await fetch(bulk)


async def test_untrusted_certificate_is_a_configuration_error():
    error = httpx.ConnectError("certificate of https://ehr.example.org/x?secret")
    error.__cause__ = ssl.SSLCertVerificationError("self-signed")
    async with bulk_of(Ehr().on("GET", f"{BASE}/$export", error)) as bulk:
        with pytest.raises(ConfigurationError, match="not trusted") as caught:
            await bulk.kick_off(ExportRequest())
    assert "ca_bundle" in caught.value.remedy


@pytest.mark.parametrize(
    ("status", "agreed"),
    [(200, True), (202, True), (204, True), (404, True), (410, True), (405, False), (503, False)],
)
async def test_delete_accepts_what_vendors_answer(status, agreed):
    async with bulk_of(Ehr().on("DELETE", STATUS, reply(status))) as bulk:
        assert await bulk.delete(STATUS) is agreed


def test_digest_depends_on_meaning_only():
    since = datetime(2026, 1, 1, tzinfo=UTC)
    base = ExportRequest(types=("Patient", "Condition"), since=since)
    assert base.digest == ExportRequest(types=("Condition", "Patient", "Patient"), since=since).digest
    elsewhere = since.astimezone(timezone(timedelta(hours=-5)))
    assert base.digest == ExportRequest(types=("Condition", "Patient"), since=elsewhere).digest
    others = {
        ExportRequest().digest,
        ExportRequest("patient").digest,
        ExportRequest("group", "a").digest,
        ExportRequest("group", "b").digest,
        ExportRequest(type_filters=("Patient?active=true",)).digest,
        ExportRequest(extra=(("_elements", "id"),)).digest,
        base.digest,
    }
    assert len(others) == 7


@pytest.mark.parametrize(
    "arguments",
    [
        {"level": "group"},
        {"level": "patient", "group_id": "a"},
        {"level": "group", "group_id": "Group/a"},
        {"level": "group", "group_id": "../x"},
        {"types": ("patient",)},
        {"since": datetime(2026, 1, 1)},  # noqa: DTZ001 - what is refused
    ],
)
def test_impossible_requests_are_refused(arguments):
    with pytest.raises(InputError) as caught:
        ExportRequest(**arguments)
    assert caught.value.remedy
