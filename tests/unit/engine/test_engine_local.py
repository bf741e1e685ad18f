"""Kernels run here: rows in, one Parquet file out."""

import json
import secrets
from pathlib import Path

import polars as pl
import pytest

from cohortflow.engine import describe_table, plan_write, read_table, write_table
from cohortflow.errors import ArtifactNotFoundError, StoreUnavailableError
from cohortflow.lake import open_store
from cohortflow.model import EnvDeployment, hash_schema


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "lake"), EnvDeployment({}))


def test_a_table_comes_back_as_it_was_written(store):
    frame = pl.DataFrame({"a": [1, None], "b": [["x"], []], "c": ["ü", None]})
    reference = write_table(frame.lazy(), "condition", "map/condition.parquet", store)
    assert reference.uri == store.child("map/condition.parquet")
    assert reference.rows == 2
    assert reference == describe_table("condition", "map/condition.parquet", store)
    assert reference.schema_hash == hash_schema(frame.schema)
    assert reference.version is None
    assert read_table("map/condition.parquet", store).collect().sort("a").equals(frame.sort("a"))


def test_a_second_run_replaces_the_first(store):
    for number in (3, 1):
        write_table(pl.LazyFrame({"a": range(number)}), "t", "t.parquet", store)
    assert describe_table("t", "t.parquet", store).rows == 1


def test_plans_over_one_source_are_carried_out_together(store):
    reads = []

    def count(frame):
        reads.append(frame.height)
        return frame

    source = pl.LazyFrame({"a": [1, 2, 3]}).map_batches(count, schema={"a": pl.Int64})
    plans = [plan_write(source.filter(pl.col("a") > least), f"{least}.parquet", store) for least in (1, 2)]
    assert store.list() == [], "nothing is written before the plans are collected"
    pl.collect_all(plans, engine="streaming")
    assert [describe_table("t", f"{least}.parquet", store).rows for least in (1, 2)] == [2, 1]
    assert reads == [3], "the source is read once"


def test_no_rows_are_a_table_too(store):
    assert write_table(pl.LazyFrame(schema={"a": pl.String}), "t", "t.parquet", store).rows == 0
    assert read_table("t.parquet", store).collect_schema() == {"a": pl.String}


def test_a_missing_table_is_named_with_what_to_do(store):
    with pytest.raises(
        ArtifactNotFoundError, match=r"map/condition\.parquet: A file of an earlier step"
    ) as e:
        read_table("map/condition.parquet", store)
    assert "Run the whole study again" in e.value.remedy


def test_a_file_that_vanishes_under_a_plan_is_an_error_of_the_lake(store):
    write_table(pl.LazyFrame({"a": [1]}), "t", "a.parquet", store)
    frame = read_table("a.parquet", store)
    Path(store.child("a.parquet")).unlink()
    with pytest.raises(ArtifactNotFoundError):
        write_table(frame, "t", "b.parquet", store)


def test_a_folder_in_the_way_is_an_error_of_the_lake(store):
    store.write("t.parquet/x", b"")
    with pytest.raises(StoreUnavailableError, match="IsADirectoryError"):
        write_table(pl.LazyFrame({"a": [1]}), "t", "t.parquet", store)


def test_polars_gives_up_on_a_silent_endpoint():
    connection = {
        "conn_type": "aws",
        "login": "a",
        "password": secrets.token_hex(4),
        "extra": {"endpoint_url": "http://127.0.0.1:9"},
    }
    store = open_store("s3://lake/x", EnvDeployment({"AIRFLOW_CONN_COHORTFLOW_LAKE": json.dumps(connection)}))
    assert store.polars_options["timeout"] == "60s"
