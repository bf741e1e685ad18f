"""What all ways of extracting share: the folder they fill, one interface, what they bring."""

from cohortflow.connectors.extraction.extractor import (
    Extracted,
    ExtractionStatus,
    Extractor,
    Mode,
    Pending,
    Phase,
    run_extractor,
)
from cohortflow.connectors.extraction.folder import RawFolder, RawSink
from cohortflow.connectors.extraction.result import CoverageRow, ExtractionResult

__all__ = [
    "CoverageRow",
    "Extracted",
    "ExtractionResult",
    "ExtractionStatus",
    "Extractor",
    "Mode",
    "Pending",
    "Phase",
    "RawFolder",
    "RawSink",
    "run_extractor",
]
