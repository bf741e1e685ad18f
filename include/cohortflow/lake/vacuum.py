"""Vacuum: files of earlier table versions are removed for good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from deltalake.exceptions import DeltaError

from cohortflow.lake.delta import describe_failure, open_table

if TYPE_CHECKING:
    from cohortflow.lake.store import Store

__all__ = ["list_tables", "vacuum_tables"]

_HOUR = timedelta(hours=1)


def list_tables(store: Store) -> list[str]:
    """Return the names of the tables in a folder of datasets, sorted."""
    return sorted({path.partition("/")[0] for path in store.list() if "/_delta_log/" in path})


def vacuum_tables(
    store: Store,
    retention: timedelta,
    keep: Mapping[str, Sequence[int]],
    *,
    dry_run: bool = True,
    abandoned: bool = True,
) -> dict[str, int]:
    """Remove the files that no kept version of a table needs: replaced, withdrawn and abandoned ones.

    Args:
        store: A study's datasets.
        retention: Files that were replaced more recently stay, for readers and writers at work.
        keep: Versions to keep by table, besides the current one.
        dry_run: Count the files only.
        abandoned: Whether files that no version names are removed, too. Without a retention these may be
            of a writer at work.

    Returns:
        Number of files by table.

    Raises:
        LakeError: A table could not be read, or a version to keep is no longer there.
        StoreUnavailableError: The object store failed.
    """
    counts = {}
    for name in list_tables(store):
        table = open_table(store.child(name), store)
        if table is None:
            continue
        try:
            files = table.vacuum(
                retention_hours=int(retention / _HOUR),
                dry_run=dry_run,
                enforce_retention_duration=False,  # the caller decides
                full=abandoned,
                keep_versions=sorted({table.version(), *keep.get(name, ())}),
            )
        except (DeltaError, OSError) as error:
            raise describe_failure(error, store.child(name)) from None
        counts[name] = len(files)
    return counts
