"""Landings: one interval's rows are replaced by one commit, everything else stays."""

import json
from datetime import UTC, date, datetime

import polars as pl
import pytest
from deltalake import DeltaTable

from cohortflow.errors import ConfigurationError, LakeError, StaleWriteError
from cohortflow.lake import land_dataset, open_store
from cohortflow.model import EnvDeployment, hash_schema
from lake_landings import landing, read_ids, rows

DAY_1, DAY_2, DAY_3 = "2026-11-01", "2026-11-02", "2026-11-03"
MARKER = "Wilhelmina-Testperson"


def table(store):
    return DeltaTable(store.child("condition"))


def test_the_first_landing_makes_the_table(store):
    outcome = land_dataset(
        rows(1, 2), landing(description="Conditions", metadata={"study": "s", "policy": "safe_harbor"}), store
    )
    assert outcome.committed
    assert (outcome.dataset.name, outcome.dataset.rows, outcome.dataset.version) == ("condition", 2, 0)
    assert read_ids(store) == {DAY_1: [1, 2]}
    assert table(store).metadata().description == "Conditions"
    assert table(store).metadata().partition_columns == ["data_interval"]
    facts = table(store).history()[0]["cohortflow"]
    assert facts["study"] == "s"
    assert facts["content"] == "a"
    assert facts["interval"] == DAY_1


def test_the_reference_tells_the_shape(store):
    outcome = land_dataset(rows(1), landing(), store)
    schema = pl.scan_delta(store.child("condition")).collect_schema()
    assert outcome.dataset.schema_hash == hash_schema(schema)
    assert json.loads(json.dumps(outcome.dataset.to_dict()))["version"] == 0


def test_intervals_lie_side_by_side(store):
    land_dataset(rows(1), landing(DAY_1), store)
    outcome = land_dataset(rows(2, 3), landing(DAY_2), store)
    assert outcome.dataset.rows == 2, "the rows of this interval, not of the table"
    assert read_ids(store) == {DAY_1: [1], DAY_2: [2, 3]}


def test_the_same_content_is_not_written_twice(store):
    first = land_dataset(rows(1), landing(), store)
    land_dataset(rows(2), landing(DAY_2), store)
    again = land_dataset(rows(1), landing(), store)
    assert not again.committed
    assert again.dataset == first.dataset
    assert table(store).version() == 1


def test_a_newer_export_with_equal_content_keeps_exports_between_the_two_out(store):
    land_dataset(rows(1), landing(), store)
    assert land_dataset(rows(1), landing(hours=5), store).committed
    assert read_ids(store) == {DAY_1: [1]}
    with pytest.raises(StaleWriteError):
        land_dataset(rows(2), landing(hours=3, content="b"), store)


def test_changed_content_replaces_its_interval_only(store):
    land_dataset(rows(1, 2), landing(DAY_1), store)
    land_dataset(rows(3), landing(DAY_2), store)
    outcome = land_dataset(rows(7), landing(DAY_1, content="b"), store)
    assert outcome.committed
    assert outcome.dataset.rows == 1
    assert read_ids(store) == {DAY_1: [7], DAY_2: [3]}


def test_content_that_comes_back_is_written_again(store):
    for content, number in (("a", 1), ("b", 2), ("a", 1)):
        assert land_dataset(rows(number), landing(content=content), store).committed
    assert read_ids(store) == {DAY_1: [1]}


def test_older_data_never_replace_newer(store):
    land_dataset(rows(1), landing(hours=2, content="new"), store)
    with pytest.raises(StaleWriteError, match="2026-11-01 already holds data of a later transaction time"):
        land_dataset(rows(2), landing(hours=1, content="old"), store)
    assert read_ids(store) == {DAY_1: [1]}
    assert land_dataset(rows(3), landing(DAY_2, hours=0), store).committed, "other intervals have their own"


def test_readers_can_go_back_to_a_version(store):
    first = land_dataset(rows(1), landing(), store)
    land_dataset(rows(2), landing(content="b"), store)
    old = pl.read_delta(store.child("condition"), version=first.dataset.version)
    assert old["id"].to_list() == [1]


class TestEmpty:
    def test_no_rows_make_an_empty_interval(self, store):
        outcome = land_dataset(rows(), landing(), store)
        assert (outcome.committed, outcome.dataset.rows) == (True, 0)
        assert pl.read_delta(store.child("condition")).schema == {"id": pl.Int64, "data_interval": pl.String}

    def test_no_rows_replace_earlier_ones(self, store):
        land_dataset(rows(1), landing(DAY_1), store)
        land_dataset(rows(2), landing(DAY_2), store)
        land_dataset(rows(), landing(DAY_1, content="b"), store)
        assert read_ids(store) == {DAY_2: [2]}


class TestSchema:
    def test_a_new_column_is_added(self, store):
        land_dataset(rows(1), landing(DAY_1), store)
        land_dataset(rows(2, unit=["%"]), landing(DAY_2), store)
        frame = pl.read_delta(store.child("condition")).sort("id")
        assert frame["unit"].to_list() == [None, "%"]

    def test_a_column_that_is_gone_is_null(self, store):
        land_dataset(rows(1, unit=["%"]), landing(DAY_1), store)
        land_dataset(rows(2), landing(DAY_2), store)
        assert pl.read_delta(store.child("condition")).sort("id")["unit"].to_list() == ["%", None]

    def test_a_changed_type_is_refused_and_nothing_is_published(self, store):
        land_dataset(rows(1), landing(), store)
        with pytest.raises(LakeError) as caught:
            land_dataset(pl.LazyFrame({"id": [MARKER]}), landing(DAY_2), store)
        assert caught.value.message == "The type of id differs from the published dataset's."
        assert caught.value.place == store.child("condition")
        assert "new name" in caught.value.remedy
        assert read_ids(store) == {DAY_1: [1]}

    def test_a_value_that_cannot_be_computed_is_not_quoted(self, store):
        land_dataset(rows(1), landing(), store)
        broken = pl.LazyFrame({"id": [MARKER]}).with_columns(pl.col("id").cast(pl.Int64))
        with pytest.raises(LakeError, match="could not be written") as caught:
            land_dataset(broken, landing(DAY_2), store)
        assert MARKER not in str(caught.value)
        assert caught.value.__suppress_context__
        assert read_ids(store) == {DAY_1: [1]}

    def test_every_column_type_comes_back_as_it_was(self, store):
        frame = pl.DataFrame(
            {
                "s": ["a", None],
                "b": [True, None],
                "i": [1, None],
                "f": [1.5, None],
                "n": [pl.Series([1.25]).cast(pl.Decimal(38, 10))[0], None],
                "d": [date(1, 1, 1), None],
                "t": [datetime(2026, 11, 1, 1, 2, 3, 4, tzinfo=UTC), None],
                "l": [["a", "b"], None],
            },
            schema_overrides={"n": pl.Decimal(38, 10), "t": pl.Datetime("us", "UTC")},
        )
        land_dataset(frame.lazy(), landing(), store)
        landed = pl.read_delta(store.child("condition")).drop("data_interval")
        assert landed.schema == frame.schema
        assert landed.sort("i", nulls_last=True).equals(frame)


class TestPartitions:
    def test_columns_follow_the_interval(self, store):
        frame = rows(1, 2, 3, category=["lab", "vital", None])
        land_dataset(frame, landing(partition_by=("category",)), store)
        assert table(store).metadata().partition_columns == ["data_interval", "category"]
        assert read_ids(store) == {DAY_1: [1, 2, 3]}
        assert len(table(store).file_uris()) == 3

    def test_a_new_landing_clears_the_partitions_that_it_does_not_write(self, store):
        by = {"partition_by": ("category",)}
        land_dataset(rows(1, 2, category=["lab", "vital"]), landing(**by), store)
        land_dataset(rows(3, category=["lab"]), landing(DAY_2, **by), store)
        land_dataset(rows(4, category=["lab"]), landing(content="b", **by), store)
        assert read_ids(store) == {DAY_1: [4], DAY_2: [3]}

    def test_values_are_quoted_in_paths(self, store):
        odd = ["a/b", "c d", "e=f", "ü", "100%", ""]
        land_dataset(rows(*range(6), category=odd), landing(partition_by=("category",)), store)
        landed = pl.read_delta(store.child("condition")).sort("id")
        assert landed["category"].to_list()[:5] == odd[:5]


def test_an_interval_with_a_time_is_its_own(store):
    for key in ("2026-11-01T000000", "2026-11-01T010000"):
        land_dataset(rows(1), landing(key), store)
    land_dataset(rows(2), landing("2026-11-01T010000", content="b"), store)
    assert read_ids(store) == {"2026-11-01T000000": [1], "2026-11-01T010000": [2]}


@pytest.mark.parametrize("name", ["my lake", "lac-ü", "100%", "a#b", "a=b"])
def test_a_folder_whose_name_readers_trip_over_is_refused(tmp_path, name):
    with pytest.raises(ConfigurationError, match="letters, digits"):
        open_store(str(tmp_path / name), EnvDeployment({}))
    assert not (tmp_path / name).exists()


def test_polars_reads_what_lands_in_a_folder_with_allowed_special_characters(tmp_path):
    store = open_store(str(tmp_path / "a.b_c-d+e@f~g"), EnvDeployment({}))
    land_dataset(rows(1), landing(), store)
    assert read_ids(store) == {DAY_1: [1]}


def test_variants_do_not_meet(store):
    land_dataset(rows(1), landing(), store)
    assert land_dataset(rows(2), landing(path="trial/condition", application="study~1"), store).committed
    assert read_ids(store) == {DAY_1: [1]}
    assert read_ids(store, "trial/condition") == {DAY_1: [2]}


class TestLatestOnly:
    def land(self, store, day, *numbers, **changed):
        return land_dataset(rows(*numbers), landing(day, latest_only=True, **changed), store)

    def test_a_later_interval_replaces_an_earlier_one_in_one_commit(self, store):
        self.land(store, DAY_1, 1, 2)
        self.land(store, DAY_2, 3)
        assert pl.read_delta(store.child("condition")).rows() == [(3, DAY_2)]
        assert table(store).version() == 1

    def test_an_earlier_interval_is_refused(self, store):
        self.land(store, DAY_2, 3)
        with pytest.raises(StaleWriteError, match=f"Interval {DAY_2} is published") as caught:
            self.land(store, DAY_1, 1, 2)
        assert "snapshots" in caught.value.remedy
        assert pl.read_delta(store.child("condition")).rows() == [(3, DAY_2)]

    def test_an_earlier_interval_is_refused_also_where_the_later_one_has_no_rows(self, store):
        self.land(store, DAY_2)
        with pytest.raises(StaleWriteError):
            self.land(store, DAY_1, 1)

    def test_the_same_content_is_not_committed_twice(self, store):
        self.land(store, DAY_1, 1)
        assert not self.land(store, DAY_1, 1).committed

    def test_what_lay_side_by_side_before_is_replaced(self, store):
        land_dataset(rows(1), landing(DAY_1), store)
        land_dataset(rows(2), landing(DAY_2), store)
        assert self.land(store, DAY_2, 2).committed
        assert pl.read_delta(store.child("condition")).rows() == [(2, DAY_2)]

    def test_a_week_that_ends_later_replaces_its_days(self, store):
        self.land(store, DAY_1, 1)
        self.land(store, "2026-10-26--2026-12-31", 5)
        assert pl.read_delta(store.child("condition")).height == 1
