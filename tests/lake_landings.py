"""Shared by the tests of datasets: frames, landings, and what a reader sees."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import polars as pl

from cohortflow.errors import StaleWriteError
from cohortflow.lake import Landing, land_dataset

EPOCH = datetime(2026, 11, 1, tzinfo=UTC)


def rows(*ids, **columns):
    return pl.LazyFrame({"id": list(ids), **columns}, schema_overrides={"id": pl.Int64})


def landing(interval="2026-11-01", hours=0, content="a", **changed):
    return Landing(
        **(
            {
                "name": "condition",
                "path": "condition",
                "application": "cohortflow/study",
                "interval": interval,
                "transaction_time": EPOCH + timedelta(hours=hours),
                "content": content,
            }
            | changed
        )
    )


def read_ids(store, path="condition"):
    """Return the ids of each interval, sorted, as a reader of the table sees them."""
    frame = pl.read_delta(store.child(path), storage_options=dict(store.options) or None)
    found = {}
    for interval, number in frame.select("data_interval", "id").sort("data_interval", "id").iter_rows():
        found.setdefault(interval, []).append(number)
    return found


def land_together(store, landings):
    """Land all at the same time; returns outcomes and errors."""
    barrier = threading.Barrier(len(landings))

    def work(item):
        number, what = item
        barrier.wait()
        try:
            return land_dataset(rows(number), what, store)
        except StaleWriteError as error:
            return error

    with ThreadPoolExecutor(len(landings)) as pool:
        return list(pool.map(work, enumerate(landings)))
