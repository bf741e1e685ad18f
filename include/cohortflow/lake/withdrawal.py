"""Withdrawal: rows of what the source deleted leave the published datasets by one atomic commit."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from cohortflow.errors import CommitConflictError
from cohortflow.lake.delta import (
    INTERVAL_COLUMN,
    METADATA_KEY,
    RECENT_COMMITS,
    describe_failure,
    list_intervals,
    open_table,
)

if TYPE_CHECKING:
    from cohortflow.lake.store import Store

__all__ = ["Withdrawal", "WithdrawalCommit", "list_withdrawals", "withdraw_rows"]

_ATTEMPTS = 10
_WITHDRAWN = "withdrawn"
_LANDED, _REACHED = "@landed", "@reached"


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What to remove from a dataset.

    Attributes:
        path: Table folder below the store.
        application: Identity of the writer that landed its intervals.
        values: For each column, the values whose rows go: ``value: str, deleted_at: datetime[us, UTC]``.
            Columns that the table lacks, or has with another type, are passed over.
    """

    path: str
    application: str
    values: Mapping[str, pl.DataFrame] = field(repr=False)


@dataclass(frozen=True, slots=True)
class WithdrawalCommit:
    """A withdrawal in a dataset's history.

    Attributes:
        version: The dataset's version after it.
        rows: Removed rows by data interval.
    """

    version: int
    rows: Mapping[str, int]


def withdraw_rows(
    withdrawal: Withdrawal, store: Store, *, sleep: Callable[[float], None] = time.sleep
) -> dict[str, int]:
    """Remove rows from the intervals that landed before their deletion; others stay as they are.

    The intervals at hand are replaced by what is left of them. A delete by predicate would be shorter,
    but Delta writes the predicate, and with it the pseudonyms, into the table's log for good.

    Earlier versions of the table hold the rows until ``vacuum``.

    Returns:
        Removed rows by data interval; empty, and nothing is committed, where there are none.

    Raises:
        CommitConflictError: Other writers kept winning.
        LakeError: The table could not be read or written.
        StoreUnavailableError: The object store failed.
    """
    uri = store.child(withdrawal.path)
    for attempt in range(_ATTEMPTS):
        if attempt:
            sleep(random.uniform(0.05, 0.2 * 2 ** min(attempt, 6)))  # noqa: S311  # jitter, not a secret
        table = open_table(uri, store)
        if table is None:
            return {}
        try:
            marked = _mark(table, withdrawal, store)
            if marked is None:
                return {}
            rows = _count(marked)
            if rows:
                _replace(table, marked, rows)
        except CommitFailedError:
            continue
        except (DeltaError, OSError, pl.exceptions.PolarsError) as error:
            # "from None": the text of the original may hold values.
            raise describe_failure(error, uri) from None
        return rows
    raise CommitConflictError(
        f"Other writers won the commit {_ATTEMPTS} times.", place=uri, remedy="Run the task again."
    )


def list_withdrawals(path: str, store: Store) -> list[WithdrawalCommit]:
    """Return the withdrawals in a dataset's recent history, oldest first."""
    table = open_table(store.child(path), store)
    commits = [] if table is None else table.history(RECENT_COMMITS)
    found = [
        WithdrawalCommit(int(commit["version"]), facts[_WITHDRAWN])
        for commit in commits
        if _WITHDRAWN in (facts := commit.get(METADATA_KEY) or {})
    ]
    return sorted(found, key=lambda commit: commit.version)


def _mark(table: DeltaTable, withdrawal: Withdrawal, store: Store) -> pl.LazyFrame | None:
    """Return the rows of intervals that deletions reach, with ``@reached``; ``None`` where none can be."""
    frame = pl.scan_delta(table, storage_options=dict(store.options) or None)
    schema = frame.collect_schema()
    values = {
        name: _latest(deleted)
        for name, deleted in withdrawal.values.items()
        if schema.get(name) == pl.String and not deleted.is_empty()
    }
    # An interval is as of the transaction time that it landed under: it is reached by later deletions.
    landed = {
        interval: table.transaction_version(f"{withdrawal.application}/{interval}") or 0
        for interval in list_intervals(table)
    }
    last = max((int(deleted["at"].to_numpy().max()) for deleted in values.values()), default=-1)
    landed = {interval: version for interval, version in landed.items() if version <= last}
    if not landed:
        return None
    versions = pl.LazyFrame(
        {INTERVAL_COLUMN: list(landed), _LANDED: list(landed.values())}, schema_overrides={_LANDED: pl.Int64}
    )
    marked = frame.filter(pl.col(INTERVAL_COLUMN).is_in(list(landed))).join(versions, on=INTERVAL_COLUMN)
    reached = pl.lit(value=False)
    for name, deleted in values.items():
        at = f"@{name}"
        marked = marked.join(deleted.lazy().rename({"value": name, "at": at}), on=name, how="left")
        reached |= (pl.col(at) >= pl.col(_LANDED)).fill_null(value=False)
    return marked.select(*schema.names(), reached.alias(_REACHED))


def _latest(deleted: pl.DataFrame) -> pl.DataFrame:
    """Return each value once, with its last deletion in milliseconds, as a landing's version is."""
    return deleted.group_by("value").agg(pl.col("deleted_at").max().dt.epoch("ms").alias("at"))


def _count(marked: pl.LazyFrame) -> dict[str, int]:
    found = marked.filter(_REACHED).group_by(INTERVAL_COLUMN).len().sort(INTERVAL_COLUMN)
    return dict(found.collect(engine="streaming").iter_rows())


def _replace(table: DeltaTable, marked: pl.LazyFrame, rows: Mapping[str, int]) -> None:
    left = marked.filter(pl.col(INTERVAL_COLUMN).is_in(list(rows)) & ~pl.col(_REACHED)).drop(_REACHED)
    intervals = ", ".join(f"'{interval}'" for interval in rows)
    write_deltalake(
        table,
        left.collect_batches(lazy=True, maintain_order=False),
        partition_by=table.metadata().partition_columns,
        mode="overwrite",
        schema_mode="merge",
        predicate=f"{INTERVAL_COLUMN} IN ({intervals})",
        commit_properties=CommitProperties(
            custom_metadata={METADATA_KEY: {_WITHDRAWN: dict(rows)}}, max_commit_retries=0
        ),
    )
