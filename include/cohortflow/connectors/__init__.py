"""Clients of hospital systems: authorization, retry, bulk export, resume."""

from cohortflow.connectors.bulk import BulkExport, ExportRequest, InProgress, Manifest, ManifestFile
from cohortflow.connectors.client import FhirClient, connect
from cohortflow.connectors.extraction import (
    ExtractionResult,
    cancel_export,
    download_all,
    ensure_started,
    poll_once,
    run_export,
)
from cohortflow.connectors.profile import GENERIC, PROFILES, ServerProfile
from cohortflow.connectors.retry import Clock, RetryPolicy, SystemClock
from cohortflow.connectors.settings import FhirSource
from cohortflow.connectors.state import ExportState, FileState, Phase, RawSink, read_state

__all__ = [
    "GENERIC",
    "PROFILES",
    "BulkExport",
    "Clock",
    "ExportRequest",
    "ExportState",
    "ExtractionResult",
    "FhirClient",
    "FhirSource",
    "FileState",
    "InProgress",
    "Manifest",
    "ManifestFile",
    "Phase",
    "RawSink",
    "RetryPolicy",
    "ServerProfile",
    "SystemClock",
    "cancel_export",
    "connect",
    "download_all",
    "ensure_started",
    "poll_once",
    "read_state",
    "run_export",
]
