"""What real servers do to searches, case by case, over real sockets and files."""

import asyncio
import base64
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from bulk_hospital import FAST
from crawl_worker import LIMITS, TYPES
from integration_data import write_records

from cohortflow.connectors import (
    PROFILES,
    BulkExport,
    BulkExtractor,
    CrawlExtractor,
    CrawlRequest,
    ExportRequest,
    FhirSource,
    HydratedExtractor,
    HydrationRequest,
    PatientSelection,
    connect,
    increment,
    load_extracted,
    run_extractor,
)
from cohortflow.connectors.crawl.state import CrawlState
from cohortflow.errors import ExportRejectedError
from cohortflow.lake import RawExport, open_store
from cohortflow.model import Connection, EnvDeployment
from cohortflow.sandbox import CERNER, EPIC, Fault, SandboxConfig, generate_client_key, running_sandbox

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

WORKER = Path(__file__).with_name("crawl_worker.py")
QUIET_EPIC = replace(EPIC, kickoff_window=None)


@pytest.fixture
def folder(tmp_path):
    return RawExport(open_store(str(tmp_path / "lake"), EnvDeployment()), "extraction")


@pytest.fixture
def serve(patients):
    def start(data=None, **settings):
        defaults = {"data": data or patients, "open": True, "export_seconds": 0.1}
        return running_sandbox(SandboxConfig(**{**defaults, **settings}))

    return start


def source(sandbox, profile="generic", **more):
    return FhirSource("ehr", sandbox.base_url, client_id="app", profile=PROFILES[profile], **more)


async def extract(make, sandbox, profile="generic", **more):
    async with connect(source(sandbox, profile, **more), policy=FAST) as client:
        return await run_extractor(make(client), client.clock)


async def crawl(sandbox, folder, request, profile="generic", **more):
    return await extract(
        lambda client: CrawlExtractor(client, request, folder, limits=LIMITS), sandbox, profile, **more
    )


def resources(folder, result, *kinds):
    """All resources of a result, decoded, with repeats."""
    return [
        json.loads(line)
        for kind in kinds or sorted(result.files)
        for name in result.files.get(kind, ())
        for line in Path(folder.uri(name)).read_text().splitlines()
    ]


def times(folder, state):
    """When each file of a state was written."""
    return {file.name: Path(folder.uri(file.name)).stat().st_mtime_ns for file in state.files}


def keyed(items):
    found = {f"{item['resourceType']}/{item['id']}": item for item in items}
    assert len(found) == len(items), "a resource came twice"
    return found


def patient(name):
    return {"resourceType": "Patient", "id": name}


def observation(name, subject="p0", category="laboratory", **more):
    return {
        "resourceType": "Observation",
        "id": name,
        "status": "final",
        "subject": {"reference": f"Patient/{subject}"},
        "category": [{"coding": [{"code": category}]}],
        "code": {"text": "x"},
        **more,
    }


def group(*names):
    members = [{"entity": {"reference": f"Patient/{name}"}} for name in names]
    return {"resourceType": "Group", "id": "g", "type": "person", "actual": True, "member": members}


CLINICAL = (
    "AllergyIntolerance",
    "Condition",
    "DiagnosticReport",
    "DocumentReference",
    "Encounter",
    "Immunization",
    "MedicationRequest",
    "Observation",
    "Patient",
    "Procedure",
)


async def test_a_crawl_brings_what_a_bulk_export_brings(serve, folder, tmp_path):
    other = RawExport(folder.store, "bulk")
    ids = PatientSelection(search=())
    with serve(page_size=50) as sandbox:
        crawled = await crawl(sandbox, folder, CrawlRequest(CLINICAL, ids), concurrency=8)
        request = ExportRequest("system", types=CLINICAL)
        exported = await extract(lambda client: BulkExtractor(BulkExport(client), request, other), sandbox)
    assert keyed(resources(folder, crawled.result)) == keyed(resources(other, exported.result))
    assert crawled.result.resources == exported.result.resources
    assert sum(crawled.result.resources.values()) > 1000
    assert {row.status for row in crawled.result.coverage} == {"complete"}


async def test_types_searched_as_a_whole_bring_what_a_bulk_export_brings(serve, folder):
    other = RawExport(folder.store, "bulk")
    types = ("Organization", "Observation", "Practitioner")
    with serve() as sandbox:
        found = await crawl(sandbox, folder, CrawlRequest(types))
        request = ExportRequest("system", types=types)
        exported = await extract(lambda client: BulkExtractor(BulkExport(client), request, other), sandbox)
    assert keyed(resources(folder, found.result)) == keyed(resources(other, exported.result))


async def test_a_killed_crawl_is_resumed_by_another_process(serve, folder, patients):
    lake = str(Path(folder.uri("x")).parents[1])
    folder = RawExport(folder.store, "crawl")
    name = json.loads((patients / "Group.ndjson").read_text().splitlines()[0])["id"]
    with serve() as sandbox:
        arguments = [sys.executable, str(WORKER), sandbox.base_url, lake, name]
        worker = await asyncio.to_thread(subprocess.Popen, arguments)
        try:
            deadline = time.monotonic() + 60
            while True:
                state = await CrawlState.read(folder)
                done = sum(unit.done for unit in state.units.values()) if state else 0
                if done >= 3:
                    break
                assert time.monotonic() < deadline
                assert worker.poll() is None, "it ended before it could be killed"
                await asyncio.sleep(0.01)
        finally:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        killed = await CrawlState.read(folder)
        assert killed.phase == "running"
        before = times(folder, killed)
        await asyncio.to_thread(subprocess.run, arguments, check=True)
        assert (await CrawlState.read(folder)).phase == "complete"
        assert times(folder, killed) == before
        request = CrawlRequest(TYPES, PatientSelection(group_id=name))
        result = (await crawl(sandbox, folder, request)).result
        whole = RawExport(folder.store, "whole")
        expected = (await crawl(sandbox, whole, request)).result
    assert keyed(resources(folder, result)) == keyed(resources(whole, expected))


@pytest.mark.parametrize("profile", ["epic", "generic"])
async def test_case_13_an_ignored_filter_fails_the_run(tmp_path, serve, folder, profile):
    data = write_records(tmp_path / "data", patient("p0"), observation("a"), group("p0"))
    request = CrawlRequest(
        ("Observation",), PatientSelection(group_id="g"), filters=("Observation?category=laboratory&mood=x",)
    )
    # Epic ignores what it does not know and says 4122; others do when asked to be lenient.
    persona = QUIET_EPIC if profile == "epic" else None
    settings = {"persona": persona} if persona else {}
    headers = {} if persona else {"Prefer": "handling=lenient"}
    words = "ignores a filter of a search for Observation"
    with serve(data, **settings) as sandbox, pytest.raises(ExportRejectedError, match=words):
        await crawl(sandbox, folder, request, profile, headers=headers)
    state = await CrawlState.read(folder)
    assert state.phase == "running"
    assert state.files == ()


async def test_case_14_members_of_a_panel_are_fetched_by_reference(tmp_path, serve, folder):
    panel = observation(
        "panel", hasMember=[{"reference": "Observation/systolic"}, {"reference": "Observation/diastolic"}]
    )
    data = write_records(
        tmp_path / "data",
        patient("p0"),
        panel,
        observation("systolic"),
        observation("diastolic"),
        group("p0"),
    )
    request = ExportRequest("group", "g", types=("Observation", "Patient"))

    def make(client):
        inner = BulkExtractor(BulkExport(client), request, folder)
        return HydratedExtractor(inner, client, folder, HydrationRequest(("members",)))

    private, public = generate_client_key()
    with serve(data, persona=QUIET_EPIC, open=False) as sandbox:
        sandbox.register("app", public)
        connection = Connection(
            "ehr",
            "fhir",
            sandbox.base_url,
            login="app",
            password=json.dumps(private),
            extra={"profile": "epic"},
        )
        async with connect(FhirSource.from_connection(connection), policy=FAST) as client:
            extracted = await run_extractor(make(client), client.clock)
    assert await load_extracted(folder, hydrated=True) == extracted
    found = keyed(resources(folder, extracted.result, "Observation"))
    assert set(found) == {"Observation/panel", "Observation/systolic", "Observation/diastolic"}
    assert extracted.result.resources == {"Observation": 3, "Patient": 1}
    assert {row.type: (row.status, row.received) for row in extracted.result.coverage} == {
        "Observation": ("complete", 3),
        "Patient": ("complete", 1),
    }


async def test_case_15_pages_shorter_than_asked_for_are_no_end(tmp_path, serve, folder):
    # Epic cuts pages before it filters them: of nine Observations per page few or none are left.
    items = [
        observation(f"o{n:02}", category="laboratory" if n > 40 else "vital-signs", subject="p0")
        for n in range(60)
    ]
    data = write_records(tmp_path / "data", patient("p0"), *items, group("p0"))
    request = CrawlRequest(("Observation", "Patient"), PatientSelection(group_id="g"))
    with serve(data, persona=QUIET_EPIC, page_size=9) as sandbox:
        extracted = await crawl(sandbox, folder, request, "epic")
    assert set(keyed(resources(folder, extracted.result, "Observation"))) == {
        f"Observation/o{n:02}" for n in range(60)
    }


async def test_epic_whole(tmp_path, serve, folder):
    """Merged, restricted and long ids, expired pages, notes: all at once."""
    note = {
        "resourceType": "DocumentReference",
        "id": "d",
        "status": "current",
        "subject": {"reference": "Patient/p0"},
        "content": [{"attachment": {"contentType": "text/html", "url": "Binary/b"}}],
    }
    binary = {
        "resourceType": "Binary",
        "id": "b",
        "contentType": "text/html",
        "data": base64.b64encode(b"<p>Fine</p>").decode(),
    }
    report = {
        "resourceType": "DiagnosticReport",
        "id": "r",
        "status": "final",
        "subject": {"reference": "Patient/p0"},
        "code": {"text": "x"},
        "performer": [{"reference": "Practitioner/doc"}],
    }
    data = write_records(
        tmp_path / "data",
        *(patient(f"p{n}") for n in range(4)),
        *(observation(f"o{n}", f"p{n % 4}") for n in range(40)),
        {"resourceType": "Practitioner", "id": "doc"},
        note,
        binary,
        report,
        group("p0", "p1", "old"),
    )
    types = ("DiagnosticReport", "DocumentReference", "Observation", "Patient", "Practitioner")
    request = CrawlRequest(types, PatientSelection(group_id="g"))

    def make(client):
        inner = CrawlExtractor(client, request, folder, limits=LIMITS)
        wanted = HydrationRequest(attachments=("text/html",))
        return HydratedExtractor(inner, client, folder, wanted)

    with serve(data, persona=QUIET_EPIC, page_size=4) as sandbox:
        sandbox.put(patient("old"))
        sandbox.merge("Patient", "old", "p2")
        sandbox.break_the_glass("p1")
        result = (await extract(make, sandbox, "epic")).result
        long_id = sandbox.shown_id("DiagnosticReport", "r")
    found = keyed(resources(folder, result))
    assert Counter(key.partition("/")[0] for key in found) == {
        "Binary": 1,
        "DiagnosticReport": 1,
        "DocumentReference": 1,
        "Observation": 20,
        "Patient": 2,
        "Practitioner": 1,
    }
    assert "Patient/p2" in found
    assert f"DiagnosticReport/{long_id}" in found
    assert len(long_id) > 64
    coverage = {row.type: row for row in result.coverage}
    assert coverage["Patient"].why == ("break-the-glass: 1",)
    assert coverage["Practitioner"].status == "complete"


async def test_oracle_pages_repeat_the_social_history(tmp_path, serve, folder):
    items = [
        observation(f"o{n:03}", category="social-history" if n % 50 == 0 else "laboratory")
        for n in range(300)
    ]
    data = write_records(tmp_path / "data", patient("p0"), *items, group("p0"))
    request = CrawlRequest(("Observation",), PatientSelection(group_id="g"))
    with serve(data, persona=CERNER) as sandbox:
        result = (await crawl(sandbox, folder, request, "cerner")).result
    assert len(keyed(resources(folder, result))) == 300


async def test_an_increment_brings_what_changed(tmp_path, serve, folder):
    data = write_records(tmp_path / "data", patient("p0"), patient("p1"), observation("a"), group("p0", "p1"))
    request = CrawlRequest(("Observation",), PatientSelection(group_id="g"))
    with serve(data) as sandbox:
        first = await crawl(sandbox, folder, request)
        sandbox.put(observation("b", "p1"))
        more = increment(request, first.result.transaction_time)
        later = RawExport(folder.store, "later")
        second = await crawl(sandbox, later, more)
    assert set(keyed(resources(folder, first.result))) == {"Observation/a"}
    assert set(keyed(resources(later, second.result))) == {"Observation/b"}


async def test_epic_on_a_bad_day(tmp_path, serve, folder):
    """Expired pages, pauses that it asks for, passing and lasting failures, a remark of missing APIs."""
    items = [observation(f"o{n:02}", f"p{n % 3}") for n in range(60)]
    data = write_records(
        tmp_path / "data", *(patient(f"p{n}") for n in range(3)), *items, group("p0", "p1", "p2")
    )
    request = CrawlRequest(("Observation", "Patient"), PatientSelection(group_id="g"))
    persona = replace(QUIET_EPIC, missing_sub_apis={"Observation": "Observation.Search (SmartData)"})
    with serve(data, persona=persona, page_size=5) as sandbox:
        sandbox.faults.add(
            Fault(kind="unavailable", on="search", after=2, times=2),
            Fault(kind="too-many-requests", on="search", after=4, retry_after=1),
            Fault(kind="refused", on="search", after=7, issue="4113"),
            Fault(kind="gateway-timeout", on="read", after=1),
        )
        result = (await crawl(sandbox, folder, request, "epic")).result
        assert sandbox.faults.waiting() == []
    assert set(keyed(resources(folder, result, "Observation"))) == {f"Observation/o{n:02}" for n in range(60)}
    coverage = {row.type: (row.status, row.why) for row in result.coverage}
    assert coverage == {
        "Observation": ("partial", ("not-enabled: 3",)),
        "Patient": ("complete", ()),
    }
