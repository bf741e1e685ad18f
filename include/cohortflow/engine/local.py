"""Runs kernels on this machine: Polars' streaming engine, bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from cohortflow.errors import ArtifactNotFoundError
from cohortflow.lake.store import storage_errors
from cohortflow.model import ZSTD_LEVEL, DatasetRef, hash_schema

if TYPE_CHECKING:
    from cohortflow.lake import Store

__all__ = ["describe_table", "plan_write", "read_table", "write_table"]


def plan_write(frame: pl.LazyFrame, path: str, store: Store) -> pl.LazyFrame:
    """Return a plan that writes a frame's rows as one Parquet file when it is collected.

    Several such plans over one source, collected together, share its read.

    Args:
        frame: The rows.
        path: File below the store; an earlier one is replaced.
        store: Where to write.
    """
    plan = frame.sink_parquet(
        store.child(path),
        compression_level=ZSTD_LEVEL,
        storage_options=store.polars_options,
        mkdir=not store.options,
        lazy=True,
    )
    assert plan is not None  # noqa: S101  # lazy=True returns the plan
    return plan


def write_table(frame: pl.LazyFrame, name: str, path: str, store: Store) -> DatasetRef:
    """Write a frame's rows as one Parquet file; see ``plan_write``.

    Raises:
        ArtifactNotFoundError: A file that the plan reads is not there.
        StoreUnavailableError: The object store failed.
    """
    with storage_errors(store.child(path)):
        plan_write(frame, path, store).collect(engine="streaming")
    return describe_table(name, path, store)


def describe_table(name: str, path: str, store: Store) -> DatasetRef:
    """Return the reference of a Parquet file, from its footer."""
    frame = pl.scan_parquet(store.child(path), storage_options=store.polars_options)
    with storage_errors(store.child(path)):
        rows = int(frame.select(pl.len()).collect().item())
        return DatasetRef(name, store.child(path), rows, hash_schema(frame.collect_schema()))


def read_table(path: str, store: Store) -> pl.LazyFrame:
    """Open a Parquet file that an earlier step wrote.

    Raises:
        ArtifactNotFoundError: It is not there.
    """
    if store.size(path) is None:
        raise ArtifactNotFoundError(
            "A file of an earlier step is missing; intermediates are removed when a run ends.",
            place=store.child(path),
            remedy="Run the whole study again: clear the run's first task with all downstream tasks.",
        )
    return pl.scan_parquet(store.child(path), storage_options=store.polars_options)
