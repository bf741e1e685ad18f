"""Clients of hospital systems: whatever speaks FHIR or SQL, brought into the raw zone.

From the ground up, where each part knows only those above it in this list:

``profiles``
    What each kind of server can do.
``keys``
    Keys that clients sign with.
``settings``
    A FHIR server as a connection describes it.
``transport``
    HTTP: authorization, pace, retries.
``extraction``
    The interface of all ways of extracting.
``search``
    FHIR search.
``bulk``, ``crawl``, ``hydrate``, ``sql``
    The ways: bulk export, search per patient or per type, references, queries of a database.
``probe``, ``modes``
    Which way fits a server, and what a folder of the raw zone holds, whichever it was.
"""

from cohortflow.connectors.bulk import (
    BulkExport,
    BulkExtractor,
    ExportRequest,
    InProgress,
    cancel_export,
    download_all,
    download_available,
    ensure_started,
    poll_once,
)
from cohortflow.connectors.crawl import CrawlExtractor, CrawlLimits, CrawlRequest, PatientSelection, increment
from cohortflow.connectors.extraction import (
    CoverageRow,
    Extracted,
    ExtractionResult,
    ExtractionStatus,
    Extractor,
    Mode,
    Pending,
    Phase,
    RawFolder,
    RawSink,
    run_extractor,
)
from cohortflow.connectors.hydrate import HydratedExtractor, HydrationRequest
from cohortflow.connectors.modes import RequestedMode, choose_mode, load_extracted
from cohortflow.connectors.probe import advise, probe_source
from cohortflow.connectors.profiles import GENERIC, PROFILES, ServerProfile
from cohortflow.connectors.settings import FhirSource
from cohortflow.connectors.transport import FhirClient, RetryPolicy, SystemClock, connect

__all__ = [
    "GENERIC",
    "PROFILES",
    "BulkExport",
    "BulkExtractor",
    "CoverageRow",
    "CrawlExtractor",
    "CrawlLimits",
    "CrawlRequest",
    "ExportRequest",
    "Extracted",
    "ExtractionResult",
    "ExtractionStatus",
    "Extractor",
    "FhirClient",
    "FhirSource",
    "HydratedExtractor",
    "HydrationRequest",
    "InProgress",
    "Mode",
    "PatientSelection",
    "Pending",
    "Phase",
    "RawFolder",
    "RawSink",
    "RequestedMode",
    "RetryPolicy",
    "ServerProfile",
    "SystemClock",
    "advise",
    "cancel_export",
    "choose_mode",
    "connect",
    "download_all",
    "download_available",
    "ensure_started",
    "increment",
    "load_extracted",
    "poll_once",
    "probe_source",
    "run_extractor",
]
