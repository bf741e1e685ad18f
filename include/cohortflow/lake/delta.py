"""Datasets: partitioned Delta tables, one atomic commit per landing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from cohortflow.errors import CommitConflictError, LakeError, StaleWriteError, StoreUnavailableError
from cohortflow.model import DataInterval, DatasetRef, hash_schema

if TYPE_CHECKING:
    from cohortflow.lake.store import Store

__all__ = [
    "INTERVAL_COLUMN",
    "METADATA_KEY",
    "RECENT_COMMITS",
    "Landing",
    "LandingOutcome",
    "describe_failure",
    "land_dataset",
    "list_intervals",
    "open_table",
]

INTERVAL_COLUMN = "data_interval"
"""First partition column of every dataset: the key of the run's data interval."""

METADATA_KEY = "cohortflow"
"""Key of our facts in the metadata of a commit."""

RECENT_COMMITS = 1000
"""Commits that are looked at; a landing further back is not recognized, and is repeated with equal rows."""

_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Landing:
    """What to commit and under which identity.

    Attributes:
        name: Dataset name.
        path: Table folder below the store.
        application: Identity of the writer, the study and its variant.
        interval: Key of the data interval whose rows are replaced.
        transaction_time: The source's time of the data; older data never replace newer.
        content: Digest of everything that decides the rows; with an equal transaction time it is not
            written twice.
        partition_by: Columns to partition by, after the interval.
        description: For the table's metadata.
        metadata: JSON-ready facts for the commit, without patient data.
        latest_only: Whether this interval replaces all earlier ones, and gives way to later ones.
    """

    name: str
    path: str
    application: str
    interval: str
    transaction_time: datetime
    content: str
    partition_by: tuple[str, ...] = ()
    description: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    latest_only: bool = False

    @property
    def app_id(self) -> str:
        """Identity of the Delta application transaction."""
        return f"{self.application}/{self.interval}"

    @property
    def app_version(self) -> int:
        """Version of the application transaction: the transaction time in milliseconds."""
        return int(self.transaction_time.timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class LandingOutcome:
    """The dataset after a landing.

    Attributes:
        dataset: Reference with the rows of this interval and the commit version.
        committed: False where the same content had landed before.
    """

    dataset: DatasetRef
    committed: bool


def land_dataset(
    frame: pl.LazyFrame,
    landing: Landing,
    store: Store,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> LandingOutcome:
    """Replace the rows of one interval in one commit; the other intervals stay as they are.

    Where the landing is for the latest interval only, it replaces the rows of all others, too.

    Rows are streamed, so a frame larger than memory can land. Of two writers of one interval the
    slower repeats its commit on top of the faster one's.

    Raises:
        StaleWriteError: Newer data of this interval are already there, or those of a later one that is to
            stand alone.
        CommitConflictError: Other writers kept winning.
        LakeError: The columns' types do not fit the table.
        StoreUnavailableError: The object store failed.
    """
    frame = frame.with_columns(pl.lit(landing.interval).alias(INTERVAL_COLUMN))
    schema = frame.collect_schema()
    uri = store.child(landing.path)
    for attempt in range(_ATTEMPTS):
        if attempt:
            sleep(random.uniform(0.05, 0.2 * 2 ** min(attempt, 6)))  # noqa: S311  # jitter, not a secret
        table = open_table(uri, store)
        replaced = [landing.interval]
        if table is not None:
            if landing.latest_only:
                replaced = _find_replaced(table, landing)
            landed = _find_landed(table, landing, schema)
            if landed is not None and replaced == [landing.interval]:
                return LandingOutcome(landed, committed=False)
            _check_schema(table, schema, uri)
        try:
            write_deltalake(  # type: ignore[call-overload]  # no overload takes both modes
                table if table is not None else uri,
                frame.collect_batches(lazy=True, maintain_order=False),
                partition_by=[INTERVAL_COLUMN, *landing.partition_by],
                # A table that another writer made since must not be overwritten unseen.
                mode="error" if table is None else "overwrite",
                schema_mode="merge",
                predicate=_any_of(replaced),
                name=landing.name,
                description=landing.description or None,
                storage_options=_options(store),
                commit_properties=CommitProperties(
                    custom_metadata={METADATA_KEY: {**landing.metadata, **_identity(landing)}},
                    max_commit_retries=0,
                    app_transactions=[Transaction(landing.app_id, landing.app_version)],
                ),
            )
        except CommitFailedError:
            continue
        except (DeltaError, OSError) as error:
            if table is None and open_table(uri, store) is not None:
                continue
            # "from None": Arrow quotes the offending value in its cast errors.
            raise describe_failure(error, uri) from None
        return LandingOutcome(_describe(uri, store, landing, schema), committed=True)
    raise CommitConflictError(
        f"Other writers won the commit {_ATTEMPTS} times.",
        place=uri,
        remedy="Run the task again; if it persists, limit the runs of this study that are active at once.",
    )


def _any_of(intervals: list[str]) -> str:
    if len(intervals) == 1:
        return f"{INTERVAL_COLUMN} = '{intervals[0]}'"
    names = ", ".join(f"'{interval}'" for interval in intervals)
    return f"{INTERVAL_COLUMN} IN ({names})"


def _find_replaced(table: DeltaTable, landing: Landing) -> list[str]:
    """Return the intervals that a landing for the latest one alone replaces; its own is the first."""
    present = list_intervals(table)
    # An interval without rows is known from the history only.
    facts = [commit.get(METADATA_KEY) or {} for commit in table.history(RECENT_COMMITS)]
    landed = {str(fact["interval"]) for fact in facts if fact.get("application") == landing.application}
    end = DataInterval.parse(landing.interval).end
    later = [interval for interval in {*present, *landed} if DataInterval.parse(interval).end > end]
    if later:
        raise StaleWriteError(
            f"Interval {max(later)} is published, and the policy publishes none beside the latest.",
            place=table.table_uri,
            remedy="Nothing to do; for intervals side by side see 'snapshots' in the redaction policy.",
        )
    return [landing.interval, *(interval for interval in present if interval != landing.interval)]


def _identity(landing: Landing) -> dict[str, Any]:
    return {
        "application": landing.application,
        "interval": landing.interval,
        "content": landing.content,
        "transaction_time": landing.transaction_time.isoformat(),
    }


def open_table(uri: str, store: Store) -> DeltaTable | None:
    """Return the table as of now, or ``None`` where there is none.

    Raises:
        LakeError: It cannot be read.
        StoreUnavailableError: The object store failed.
    """
    try:
        return DeltaTable(uri, storage_options=_options(store))
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise describe_failure(error, uri) from None


def _find_landed(table: DeltaTable, landing: Landing, schema: pl.Schema) -> DatasetRef | None:
    """Return the dataset where this very landing is the interval's latest; refuse to go back in time.

    Equal content of a later export is committed again: the commit moves the interval's transaction
    time, which is what keeps exports between the two out.
    """
    landed_version = table.transaction_version(landing.app_id)
    if landed_version is None or landed_version < landing.app_version:
        return None
    if landed_version > landing.app_version:
        raise StaleWriteError(
            f"Interval {landing.interval} already holds data of a later transaction time.",
            place=table.table_uri,
            remedy="Nothing to do, unless the newer landing was wrong: then export again and re-run.",
        )
    for commit in table.history(RECENT_COMMITS):
        facts = commit.get(METADATA_KEY) or {}
        if facts.get("application") == landing.application and facts.get("interval") == landing.interval:
            if facts.get("content") != landing.content:
                return None
            return _reference(table, landing, schema, int(commit["version"]))
    return None


def _check_schema(table: DeltaTable, schema: pl.Schema, uri: str) -> None:
    """Refuse a changed type before any row is written; new columns are added."""
    present = pl.scan_delta(table).collect_schema()
    changed = [name for name, dtype in schema.items() if name in present and present[name] != dtype]
    if changed:
        raise LakeError(
            f"The type of {', '.join(changed)} differs from the published dataset's.",
            place=uri,
            remedy="Give the changed column a new name in its view, or publish under a new study name.",
        )


def _describe(uri: str, store: Store, landing: Landing, schema: pl.Schema) -> DatasetRef:
    table = DeltaTable(uri, storage_options=_options(store))
    for commit in table.history(RECENT_COMMITS):
        facts = commit.get(METADATA_KEY) or {}
        if facts.get("application") == landing.application and facts.get("interval") == landing.interval:
            return _reference(table, landing, schema, int(commit["version"]))
    raise LakeError("The commit is not in the table's history.", place=uri, remedy="Run the task again.")


def _reference(table: DeltaTable, landing: Landing, schema: pl.Schema, version: int) -> DatasetRef:
    actions = pl.DataFrame(table.get_add_actions(flatten=True))
    mine = actions.filter(pl.col(f"partition.{INTERVAL_COLUMN}") == landing.interval)
    rows = int(mine["num_records"].sum())
    return DatasetRef(landing.name, table.table_uri.rstrip("/"), rows, hash_schema(schema), version)


def _options(store: Store) -> dict[str, str] | None:
    return dict(store.options) or None


def list_intervals(table: DeltaTable) -> list[str]:
    """Return the keys of the intervals that have rows, sorted."""
    actions = pl.DataFrame(table.get_add_actions(flatten=True))
    return [] if actions.is_empty() else actions[f"partition.{INTERVAL_COLUMN}"].unique().sort().to_list()


def describe_failure(error: Exception, uri: str) -> LakeError:
    """Return our error for one of Delta's, whose text may quote values."""
    if isinstance(error, OSError):
        return StoreUnavailableError(
            f"The object store failed during a commit ({type(error).__name__}).",
            place=uri,
            remedy="Nothing was published. Check the endpoint and run the task again.",
        )
    return LakeError(
        f"The dataset could not be written ({type(error).__name__}).",
        place=uri,
        remedy="Nothing was published. Compare the view's columns with the table's schema.",
    )
