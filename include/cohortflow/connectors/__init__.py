"""Clients of hospital systems: authorization, retry, bulk export, resume."""

from cohortflow.connectors.bulk import BulkExport, ExportRequest, InProgress, Manifest, ManifestFile
from cohortflow.connectors.client import FhirClient, connect
from cohortflow.connectors.coverage import CoverageRow
from cohortflow.connectors.crawl import CrawlExtractor
from cohortflow.connectors.crawl_state import CrawlLimits, CrawlRequest, PatientSelection
from cohortflow.connectors.extraction import (
    ExtractionResult,
    cancel_export,
    download_all,
    download_available,
    ensure_started,
    poll_once,
    run_export,
)
from cohortflow.connectors.extractor import (
    BulkExtractor,
    Extracted,
    Extractor,
    Mode,
    Pending,
    RawFolder,
    run_extractor,
)
from cohortflow.connectors.hydrate_state import NOTE_TYPES, HydrationRequest
from cohortflow.connectors.hydrated import HydratedExtractor
from cohortflow.connectors.incremental import increment
from cohortflow.connectors.key_set import HostedKey, KeySet
from cohortflow.connectors.keys import SigningKey, load_signing_key
from cohortflow.connectors.modes import RequestedMode, choose_mode, load_extracted, mode_of_folder
from cohortflow.connectors.patients import patients_of_export, read_patients
from cohortflow.connectors.probe import Advice, ProbeReport, advise, probe_source
from cohortflow.connectors.profile import GENERIC, PROFILES, ServerProfile
from cohortflow.connectors.retry import Clock, RetryPolicy, SystemClock
from cohortflow.connectors.settings import FhirSource
from cohortflow.connectors.state import ExportState, FileState, Phase, RawSink, read_state

__all__ = [
    "GENERIC",
    "NOTE_TYPES",
    "PROFILES",
    "Advice",
    "BulkExport",
    "BulkExtractor",
    "Clock",
    "CoverageRow",
    "CrawlExtractor",
    "CrawlLimits",
    "CrawlRequest",
    "ExportRequest",
    "ExportState",
    "Extracted",
    "ExtractionResult",
    "Extractor",
    "FhirClient",
    "FhirSource",
    "FileState",
    "HostedKey",
    "HydratedExtractor",
    "HydrationRequest",
    "InProgress",
    "KeySet",
    "Manifest",
    "ManifestFile",
    "Mode",
    "PatientSelection",
    "Pending",
    "Phase",
    "ProbeReport",
    "RawFolder",
    "RawSink",
    "RequestedMode",
    "RetryPolicy",
    "ServerProfile",
    "SigningKey",
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
    "load_signing_key",
    "mode_of_folder",
    "patients_of_export",
    "poll_once",
    "probe_source",
    "read_patients",
    "read_state",
    "run_export",
    "run_extractor",
]
