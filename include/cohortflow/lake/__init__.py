"""Object storage, zones and Delta tables."""

from cohortflow.lake.bucket import prepare_lake
from cohortflow.lake.delta import Landing, LandingOutcome, land_dataset
from cohortflow.lake.raw import RawExport
from cohortflow.lake.store import LAKE_CONNECTION, Store, open_store, storage_errors

__all__ = [
    "LAKE_CONNECTION",
    "Landing",
    "LandingOutcome",
    "RawExport",
    "Store",
    "land_dataset",
    "open_store",
    "prepare_lake",
    "storage_errors",
]
