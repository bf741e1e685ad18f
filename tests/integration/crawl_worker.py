"""Crawls a group in a process of its own, which a test kills."""

import asyncio
import sys

from cohortflow.connectors import (
    CrawlExtractor,
    CrawlLimits,
    CrawlRequest,
    FhirSource,
    PatientSelection,
    connect,
    run_extractor,
)
from cohortflow.lake import RawExport, open_store
from cohortflow.model import EnvDeployment

TYPES = ("Condition", "Encounter", "Observation", "Patient")
LIMITS = CrawlLimits(patients_per_part=3)


async def crawl(base_url: str, lake: str, group: str) -> None:
    folder = RawExport(open_store(lake, EnvDeployment()), "crawl")
    request = CrawlRequest(TYPES, PatientSelection(group_id=group))
    async with connect(FhirSource("ehr", base_url)) as client:
        await run_extractor(CrawlExtractor(client, request, folder, limits=LIMITS), client.clock)


if __name__ == "__main__":
    asyncio.run(crawl(*sys.argv[1:]))
