"""Object storage, zones and Delta tables."""

from cohortflow.lake.bucket import prepare_lake
from cohortflow.lake.delta import Landing, LandingOutcome, land_dataset
from cohortflow.lake.outbox import Outbox, Parcel
from cohortflow.lake.raw import RawExport
from cohortflow.lake.store import LAKE_CONNECTION, Store, open_store, storage_errors
from cohortflow.lake.terminology import TerminologyStore
from cohortflow.lake.terminology_release import StoredRelease, StoredTable
from cohortflow.lake.tombstones import is_recorded, load_tombstones, record_tombstones
from cohortflow.lake.vacuum import list_tables, vacuum_tables
from cohortflow.lake.withdrawal import Withdrawal, WithdrawalCommit, list_withdrawals, withdraw_rows

__all__ = [
    "LAKE_CONNECTION",
    "Landing",
    "LandingOutcome",
    "Outbox",
    "Parcel",
    "RawExport",
    "Store",
    "StoredRelease",
    "StoredTable",
    "TerminologyStore",
    "Withdrawal",
    "WithdrawalCommit",
    "is_recorded",
    "land_dataset",
    "list_tables",
    "list_withdrawals",
    "load_tombstones",
    "open_store",
    "prepare_lake",
    "record_tombstones",
    "storage_errors",
    "vacuum_tables",
    "withdraw_rows",
]
