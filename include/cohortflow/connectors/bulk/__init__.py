"""Bulk Data export: kick-off, polling, manifests, downloads that resume, coverage."""

from cohortflow.connectors.bulk.client import BulkExport, InProgress
from cohortflow.connectors.bulk.export import (
    cancel_export,
    download_all,
    download_available,
    ensure_started,
    poll_once,
)
from cohortflow.connectors.bulk.extractor import BulkExtractor
from cohortflow.connectors.bulk.manifest import Manifest, ManifestFile
from cohortflow.connectors.bulk.request import ExportRequest
from cohortflow.connectors.bulk.state import ExportState, FileState, read_state

__all__ = [
    "BulkExport",
    "BulkExtractor",
    "ExportRequest",
    "ExportState",
    "FileState",
    "InProgress",
    "Manifest",
    "ManifestFile",
    "cancel_export",
    "download_all",
    "download_available",
    "ensure_started",
    "poll_once",
    "read_state",
]
