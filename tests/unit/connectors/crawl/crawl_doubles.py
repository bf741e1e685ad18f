"""A Group of six patients, and ways to crawl it."""

from connectors_doubles import BASE, FakeClock
from search_doubles import client_of

from cohortflow.connectors import CrawlExtractor, CrawlLimits, CrawlRequest, PatientSelection, run_extractor

PATIENTS = [f"p{number}" for number in range(6)]
GROUP = {
    "resourceType": "Group",
    "id": "g",
    "member": [
        *({"entity": {"reference": f"Patient/{name}"}} for name in PATIENTS),
        {"entity": {"reference": f"{BASE}/Patient/p0"}},
        {"entity": {"reference": "Patient/gone"}, "inactive": True},
        {"entity": {"reference": "Practitioner/d"}},
    ],
}
REQUEST = CrawlRequest(("Observation", "Patient"), PatientSelection(group_id="g"))
LIMITS = CrawlLimits(patients_per_part=2)


class Killed(Exception):  # noqa: N818  # what it is
    """Ends a worker in the middle of its work."""


def everything(server, *kinds):
    return sorted(
        (item["resourceType"], item["id"])
        for item in server.resources.values()
        if item["resourceType"] in kinds
    )


async def crawl(server, folder, request=REQUEST, *, limits=LIMITS, clock=None, **options):
    clock = clock or FakeClock()
    async with client_of(server, clock=clock, **options) as client:
        return await run_extractor(CrawlExtractor(client, request, folder, limits=limits), clock)


async def advance(server, folder, request=REQUEST, *, clock=None, budget=None, **options):
    async with client_of(server, clock=clock, **options) as client:
        extractor = CrawlExtractor(client, request, folder, limits=LIMITS)
        await extractor.start()
        return await extractor.advance(budget_seconds=budget)
