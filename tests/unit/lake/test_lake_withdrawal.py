"""Withdrawals: what the source deleted leaves the intervals that landed before, and nothing else does."""

import json
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake.exceptions import CommitFailedError

from cohortflow.errors import CommitConflictError, LakeError
from cohortflow.lake import (
    Withdrawal,
    is_recorded,
    land_dataset,
    list_tables,
    list_withdrawals,
    load_tombstones,
    record_tombstones,
    vacuum_tables,
    withdraw_rows,
    withdrawal,
)
from cohortflow.lake import delta as delta_module
from lake_landings import EPOCH, landing, read_ids, rows

DAY_1, DAY_2 = "2026-11-01", "2026-11-02"
APPLICATION = "cohortflow/study"


def values(*deleted):
    times = [EPOCH + timedelta(hours=hours) for _, hours in deleted]
    return pl.DataFrame(
        {"value": [value for value, _ in deleted], "deleted_at": times},
        schema={"value": pl.String, "deleted_at": pl.Datetime("us", "UTC")},
    )


def withdraw(store, **columns):
    found = {name: values(*deleted) for name, deleted in columns.items()}
    return withdraw_rows(Withdrawal("condition", APPLICATION, found), store)


@pytest.fixture
def published(store):
    """Two intervals: rows 1 to 3 landed at hour 0, rows 4 to 6 at hour 10."""
    land_dataset(rows(1, 2, 3, who=["p", "q", None], key=["a", "b", "c"]), landing(DAY_1), store)
    land_dataset(rows(4, 5, 6, who=["p", "q", "r"], key=["a", "b", "d"]), landing(DAY_2, hours=10), store)
    return store


def test_reaches_the_intervals_that_landed_before_the_deletion(published):
    assert withdraw(published, who=[("p", 5)]) == {DAY_1: 1}
    assert read_ids(published) == {DAY_1: [2, 3], DAY_2: [4, 5, 6]}
    assert withdraw(published, who=[("p", 10)]) == {DAY_2: 1}
    assert read_ids(published) == {DAY_1: [2, 3], DAY_2: [5, 6]}


def test_all_columns_at_once_make_one_commit(published):
    assert withdraw(published, who=[("p", 20), ("nobody", 20)], key=[("b", 5), ("a", 20)]) == {
        DAY_1: 2,
        DAY_2: 1,
    }
    assert read_ids(published) == {DAY_1: [3], DAY_2: [5, 6]}
    (commit,) = list_withdrawals("condition", published)
    assert (commit.version, commit.rows) == (2, {DAY_1: 2, DAY_2: 1})


def test_repeated_it_commits_nothing(published):
    withdraw(published, who=[("p", 20)])
    assert withdraw(published, who=[("p", 20)]) == {}
    assert [commit.version for commit in list_withdrawals("condition", published)] == [2]


def test_an_interval_may_become_empty(published):
    withdraw(published, key=[(key, 20) for key in "abcd"])
    assert read_ids(published) == {}
    assert land_dataset(rows(9, who=["s"], key=["e"]), landing(DAY_1, hours=1), published).committed


def test_what_is_not_there_is_passed_over(published, store):
    assert withdraw(published, elsewhere=[("p", 20)], id=[("1", 20)], who=[]) == {}
    assert withdraw_rows(Withdrawal("missing", APPLICATION, {"who": values(("p", 20))}), store) == {}
    assert list_withdrawals("missing", store) == []


def test_an_interval_of_unknown_age_is_reached(published):
    found = Withdrawal("condition", "cohortflow/another", {"who": values(("p", -1000))})
    assert withdraw_rows(found, published) == {DAY_1: 1, DAY_2: 1}


def test_partitions_and_types_stay(store):
    frame = rows(1, 2, 3, who=["p", "q", "q"], category=["lab", "lab", None], amount=[1.5, None, 2.5])
    land_dataset(frame, landing(partition_by=("category",)), store)
    before = pl.read_delta(store.child("condition"))
    withdraw(store, who=[("p", 5)])
    after = pl.read_delta(store.child("condition")).sort("id")
    assert after.equals(before.filter(pl.col("who") != "p").sort("id"))
    assert delta_module.open_table(store.child("condition"), store).metadata().partition_columns == [
        "data_interval",
        "category",
    ]


def test_a_landing_after_it_replaces_its_interval_as_ever(published):
    withdraw(published, who=[("p", 20)])
    assert land_dataset(rows(7, who=["t"], key=["f"]), landing(DAY_1, content="b"), published).committed
    assert read_ids(published) == {DAY_1: [7], DAY_2: [5, 6]}


def test_the_log_does_not_say_whose_rows_went(published):
    pseudonym = "0123456789abcdef"
    land_dataset(rows(1, 2, who=[pseudonym, "q"], key=["a", "b"]), landing(DAY_1, content="b"), published)
    withdraw(published, who=[(pseudonym, 20)])
    (commit,) = list_withdrawals("condition", published)
    log = Path(published.child("condition")) / "_delta_log" / f"{commit.version:020}.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    told = [action for action in actions if "remove" not in action]  # old statistics are in the log before
    assert pseudonym not in json.dumps(told)


def test_a_writer_between_look_and_commit_is_not_undone(published, monkeypatch):
    replace, landed = withdrawal._replace, []

    def land_between(table, marked, found):
        if not landed:
            landed.append(land_dataset(rows(8, who=["p"], key=["z"]), landing("2026-11-03"), published))
        replace(table, marked, found)

    monkeypatch.setattr(withdrawal, "_replace", land_between)
    found = Withdrawal("condition", APPLICATION, {"who": values(("p", 20))})
    assert withdraw_rows(found, published, sleep=lambda _: None) == {DAY_1: 1, DAY_2: 1, "2026-11-03": 1}
    assert read_ids(published) == {DAY_1: [2, 3], DAY_2: [5, 6]}


def test_a_writer_that_never_wins_gives_up(published, monkeypatch):
    def lose(*_args, **_kwargs):
        raise CommitFailedError("Transaction failed: a concurrent transaction")

    monkeypatch.setattr(withdrawal, "write_deltalake", lose)
    found = Withdrawal("condition", APPLICATION, {"who": values(("p", 20))})
    with pytest.raises(CommitConflictError, match="10 times"):
        withdraw_rows(found, published, sleep=lambda _: None)


class TestTombstones:
    def deletions(self, *pairs):
        return pl.DataFrame(pairs, schema={"type": pl.String, "id": pl.String}, orient="row")

    def test_of_all_exports_of_a_source_are_known(self, store):
        record_tombstones(store, "ehr", self.deletions(("Patient", "p")), EPOCH, "a" * 64)
        later = EPOCH + timedelta(hours=1)
        record_tombstones(store, "ehr", self.deletions(("Patient", "p"), ("Encounter", "e")), later, "b" * 64)
        record_tombstones(store, "other", self.deletions(("Patient", "q")), EPOCH, "c" * 64)
        expected = [("Encounter", "e", later), ("Patient", "p", later)]
        assert list(load_tombstones(store, "ehr").iter_rows()) == expected

    def test_an_export_counts_once(self, store):
        for _ in range(2):
            record_tombstones(store, "ehr", self.deletions(("Patient", "p")), EPOCH, "a" * 64)
        assert len(store.list("ehr")) == 1
        assert list(load_tombstones(store, "ehr").iter_rows()) == [("Patient", "p", EPOCH)]

    def test_a_source_without_deletions_has_none(self, store):
        record_tombstones(store, "ehr", self.deletions(), EPOCH, "a" * 64)
        assert store.list("ehr") == []
        assert load_tombstones(store, "ehr").is_empty()

    def test_of_an_export_are_recorded_or_not(self, store):
        record_tombstones(store, "ehr", self.deletions(("Patient", "p")), EPOCH, "a" * 64)
        assert is_recorded(store, "ehr", EPOCH, "a" * 64)
        assert not is_recorded(store, "ehr", EPOCH, "b" * 64)
        assert not is_recorded(store, "other", EPOCH, "a" * 64)


class TestVacuum:
    def files(self, store):
        return len([path for path in store.list("condition") if path.endswith(".parquet")])

    def test_removes_what_no_kept_version_needs(self, published):
        withdraw(published, who=[("p", 20)])
        count = self.files(published)
        counts = vacuum_tables(published, timedelta(0), {})
        assert counts == {"condition": 2}
        assert self.files(published) == count, "nothing is removed unless asked"
        vacuum_tables(published, timedelta(0), {}, dry_run=False)
        assert self.files(published) == count - 2
        assert read_ids(published) == {DAY_1: [2, 3], DAY_2: [5, 6]}

    def test_keeps_versions_and_what_was_replaced_lately(self, published):
        withdraw(published, who=[("p", 20)])
        vacuum_tables(published, timedelta(days=7), {}, dry_run=False)
        vacuum_tables(published, timedelta(0), {"condition": [1]}, dry_run=False)
        assert pl.read_delta(published.child("condition"), version=1).height == 6

    def test_a_version_that_is_not_there_is_an_error(self, published):
        with pytest.raises(LakeError):
            vacuum_tables(published, timedelta(0), {"condition": [99]})

    def test_tables_are_found_beside_other_files(self, published):
        published.write("_releases/2026-11-01.json", b"{}")
        assert list_tables(published) == ["condition"]
