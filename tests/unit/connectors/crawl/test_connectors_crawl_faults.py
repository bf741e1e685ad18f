"""Crawls whose server fails and whose worker is killed at random: nothing is lost, nothing doubled."""

import asyncio
import tempfile
from pathlib import Path

from connectors_doubles import BASE, FakeClock
from crawl_doubles import Killed
from hypothesis import given, settings
from hypothesis import strategies as st
from search_doubles import ReadableFolder, SearchServer, answer, client_of, observation

from cohortflow.connectors import (
    CrawlExtractor,
    CrawlLimits,
    CrawlRequest,
    HydratedExtractor,
    HydrationRequest,
    PatientSelection,
    load_extracted,
    run_extractor,
)
from cohortflow.errors import TransientSourceError

PATIENTS = [f"p{number}" for number in range(7)]
LIMITS = CrawlLimits(patients_per_part=2, resources_per_part=3)
FAULTS = {
    "expired": (410, {}),
    "unavailable": (503, {}),
    "timeout": (504, {}),
    "throttled": (429, {"Retry-After": "3"}),
    "throttled-long": (429, {"Retry-After": "7200"}),
}


def make_server():
    members = [{"entity": {"reference": f"Patient/{name}"}} for name in PATIENTS]
    return SearchServer(
        {"resourceType": "Group", "id": "g", "member": members},
        *({"resourceType": "Patient", "id": name} for name in PATIENTS),
        *(
            observation(f"{name}-{number}", name, performer=[{"reference": f"Practitioner/d{number}"}])
            for name in PATIENTS
            for number in range(3)
        ),
        *({"resourceType": "Practitioner", "id": f"d{number}"} for number in range(3)),
    )


class Faulty:
    """Lets requests fail, or kills the worker, at given numbers of requests."""

    def __init__(self, server, plan):
        self.server = server
        self.plan = dict(plan)
        self.count = 0

    def __call__(self, request):
        self.count += 1
        fault = self.plan.pop(self.count, None)
        if fault == "killed":
            raise Killed
        if fault == "expired" and "page=" not in str(request.url):
            fault = None  # only a page can expire
        if fault is not None:
            status, headers = FAULTS[fault]
            return answer({}, status, headers)
        return self.server(request)


@st.composite
def fault_plans(draw):
    kinds = st.sampled_from([*FAULTS, "killed"])
    return draw(st.dictionaries(st.integers(1, 70), kinds, max_size=8))


async def crawl_to_end(transport, request, folder, clock, concurrency):
    for _ in range(40):
        try:
            async with client_of(transport, clock=clock, attempts=3, concurrency=concurrency) as client:
                inner = CrawlExtractor(client, request, folder, limits=LIMITS)
                extractor = HydratedExtractor(inner, client, folder, HydrationRequest(("staff",)))
                return await run_extractor(extractor, clock)
        except (Killed, TransientSourceError):
            await clock.sleep(1)
    raise AssertionError("it did not end")


@settings(max_examples=40)
@given(plan=fault_plans(), whole=st.booleans(), concurrency=st.sampled_from([1, 3]))
def test_nothing_is_lost_and_nothing_doubled(plan, whole, concurrency):
    server = make_server()
    selection = None if whole else PatientSelection(group_id="g")
    request = CrawlRequest(("Observation", "Patient"), selection)
    with tempfile.TemporaryDirectory() as root:
        folder = ReadableFolder(Path(root))
        extracted = asyncio.run(crawl_to_end(Faulty(server, plan), request, folder, FakeClock(), concurrency))
        assert asyncio.run(load_extracted(folder, hydrated=True)) == extracted
        lines = [
            line
            for names in extracted.result.files.values()
            for name in names
            for line in (folder.root / name).read_text().splitlines()
        ]
    expected = [item for item in server.resources.values() if item["resourceType"] != "Group"]
    assert len(lines) == len(set(lines)) == len(expected)
    assert sum(extracted.result.resources.values()) == len(expected)
    assert not extracted.result.is_partial
    assert BASE not in "".join(lines)
