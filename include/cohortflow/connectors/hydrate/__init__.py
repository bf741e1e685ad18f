"""What an extraction leaves out: resources and documents that others refer to."""

from cohortflow.connectors.hydrate.extractor import HydratedExtractor
from cohortflow.connectors.hydrate.hydrator import Hydrator
from cohortflow.connectors.hydrate.state import NOTE_TYPES, HydrationRequest

__all__ = [
    "NOTE_TYPES",
    "HydratedExtractor",
    "HydrationRequest",
    "Hydrator",
]
