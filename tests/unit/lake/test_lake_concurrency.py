"""Writers at the same time, and writers that die."""

import multiprocessing
import os
import signal
from pathlib import Path

import polars as pl
import pytest
from deltalake.exceptions import CommitFailedError

from cohortflow.errors import CommitConflictError, StaleWriteError
from cohortflow.lake import delta, land_dataset, open_store
from cohortflow.model import EnvDeployment
from lake_landings import land_together, landing, read_ids, rows

WRITERS = 4


@pytest.mark.parametrize("exists", [False, True], ids=["new table", "old table"])
def test_writers_of_different_intervals_lose_nothing(store, exists):
    if exists:
        land_dataset(rows(99), landing("2026-10-31"), store)
    intervals = [f"2026-11-0{number + 1}" for number in range(WRITERS)]
    outcomes = land_together(store, [landing(interval) for interval in intervals])
    assert all(outcome.committed for outcome in outcomes)
    expected = {interval: [number] for number, interval in enumerate(intervals)}
    assert read_ids(store) == ({"2026-10-31": [99]} if exists else {}) | expected


def test_writers_of_one_interval_leave_the_rows_of_one(store):
    land_together(store, [landing(content=str(number)) for number in range(WRITERS)])
    (left,) = read_ids(store)["2026-11-01"]
    assert left in range(WRITERS)


def test_the_newest_data_win_whatever_the_order(store):
    outcomes = land_together(store, [landing(hours=number, content=str(number)) for number in range(WRITERS)])
    assert read_ids(store) == {"2026-11-01": [WRITERS - 1]}
    assert outcomes[-1].committed


def test_writers_of_the_same_content_commit_once(store):
    outcomes = land_together(store, [landing()] * WRITERS)
    assert sum(outcome.committed for outcome in outcomes) == 1
    assert len({outcome.dataset.version for outcome in outcomes}) == 1


class TestTableMadeByAnother:
    """Between a writer's look at the lake, where it saw no table, and its commit."""

    @pytest.fixture
    def blind_at_first(self, store, monkeypatch):
        land_dataset(rows(1), landing(hours=1, content="a"), store)
        see, looks = delta.open_table, []

        def look(uri, store):
            looks.append(uri)
            return None if len(looks) == 1 else see(uri, store)

        monkeypatch.setattr(delta, "open_table", look)
        return store

    def test_older_data_do_not_replace_its_rows(self, blind_at_first):
        with pytest.raises(StaleWriteError):
            land_dataset(rows(2), landing(hours=0, content="b"), blind_at_first)
        assert read_ids(blind_at_first) == {"2026-11-01": [1]}

    def test_equal_content_is_not_committed_again(self, blind_at_first):
        outcome = land_dataset(rows(1), landing(hours=1, content="a"), blind_at_first)
        assert (outcome.committed, outcome.dataset.version) == (False, 0)

    def test_another_interval_lands_beside_it(self, blind_at_first):
        assert land_dataset(rows(2), landing("2026-11-02"), blind_at_first).dataset.version == 1
        assert read_ids(blind_at_first) == {"2026-11-01": [1], "2026-11-02": [2]}


def test_a_writer_that_never_wins_gives_up_with_a_remedy(store, monkeypatch):
    def lose(*_args, **_kwargs):
        raise CommitFailedError("Transaction failed: a concurrent transaction")

    monkeypatch.setattr(delta, "write_deltalake", lose)
    pauses = []
    with pytest.raises(CommitConflictError, match="10 times") as caught:
        land_dataset(rows(1), landing(), store, sleep=pauses.append)
    assert "Run the task again" in caught.value.remedy
    assert len(pauses) == 9
    assert sum(pauses) < 120


def _land_in_process(folder, number):
    store = open_store(folder, EnvDeployment({}))
    land_dataset(rows(number), landing(f"2026-11-0{number}"), store)


def _land_until_killed(folder, started):
    """Write rows without end; the parent kills the process while it writes."""

    def batches(frame):
        started.set()
        signal.pause()
        return frame

    frame = pl.concat(
        [rows(*range(200_000)), rows(7).map_batches(batches, schema={"id": pl.Int64}, streamable=True)]
    )
    land_dataset(frame, landing("2026-11-01", hours=1, content="b"), open_store(folder, EnvDeployment({})))


def test_processes_lose_nothing(store):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_land_in_process, args=(store.uri, number)) for number in range(1, 4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert read_ids(store) == {f"2026-11-0{number}": [number] for number in range(1, 4)}


def test_a_killed_writer_leaves_the_table_as_it_was(store):
    land_dataset(rows(1, 2), landing(), store)
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=_land_until_killed, args=(store.uri, started))
    process.start()
    assert started.wait(60), "the writer did not come to write"
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert read_ids(store) == {"2026-11-01": [1, 2]}
    log = Path(store.child("condition")) / "_delta_log"
    assert [path.name for path in sorted(log.glob("*.json"))] == [f"{0:020}.json"]
    # The successor does what the killed one was to do.
    outcome = land_dataset(rows(8), landing(hours=1, content="b"), store)
    assert outcome.committed
    assert read_ids(store) == {"2026-11-01": [8]}
