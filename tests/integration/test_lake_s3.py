"""The lake on a real S3 endpoint: what a folder promises, and what happens when the endpoint fails."""

import asyncio
import json
import traceback

import polars as pl
import pytest
from stack import ProcessGroup, start_s3

from cohortflow.engine import read_table, write_table
from cohortflow.errors import StaleWriteError, StoreUnavailableError
from cohortflow.lake import land_dataset, open_store, prepare_lake
from cohortflow.model import EnvDeployment
from lake_landings import land_together, landing, read_ids, rows

pytestmark = pytest.mark.integration

VARIABLE = "AIRFLOW_CONN_COHORTFLOW_LAKE"


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s3")
    with ProcessGroup(folder / "log") as group:
        yield start_s3(group, folder / "data")


@pytest.fixture(scope="module")
def deployment(s3):
    deployment = EnvDeployment({VARIABLE: s3.connection()})
    prepare_lake("s3://lake", deployment)
    return deployment


@pytest.fixture
def store(request, deployment):
    """A place of its own per test, with what a variant's name holds."""
    return open_store(f"s3://lake/{request.node.name}~1/x", deployment)


def test_preparing_a_lake_twice_changes_nothing(deployment):
    prepare_lake("s3://second/with/prefix", deployment)
    prepare_lake("s3://second/with/prefix", deployment)
    assert open_store("s3://second", deployment).list() == []


def test_files(store):
    assert store.read("a/b") is None
    assert store.create("a/b", b"one")
    assert not store.create("a/b", b"two")
    store.write("a/c", b"three")
    store.write("ab", b"")
    assert (store.read("a/b"), store.size("a/c"), store.list("a")) == (b"one", 5, ["a/b", "a/c"])
    assert store.delete("a", keep="a/b") == 1
    assert store.list() == ["a/b", "ab"]
    assert store.delete("") == 2


@pytest.mark.parametrize("fails", [False, True])
def test_a_stream_is_written_whole_or_not_at_all(store, fails):
    async def chunks():
        for _ in range(20):
            yield b"x" * 1_000_000
        if fails:
            raise ValueError("connection lost")

    if fails:
        with pytest.raises(ValueError, match="connection lost"):
            asyncio.run(store.write_stream("big", chunks()))
    else:
        asyncio.run(store.write_stream("big", chunks()))
    assert store.size("big") == (None if fails else 20_000_000)


def test_tables(store):
    frame = pl.DataFrame({"a": [1, 2], "b": ["x", None]})
    assert write_table(frame.lazy(), "t", "redact/t.parquet", store).rows == 2
    assert read_table("redact/t.parquet", store).collect().sort("a").equals(frame)


def test_landings(store):
    first = land_dataset(rows(1, 2), landing(), store)
    assert (first.committed, first.dataset.version, first.dataset.rows) == (True, 0, 2)
    assert not land_dataset(rows(1, 2), landing(), store).committed
    land_dataset(rows(3), landing("2026-11-02"), store)
    land_dataset(rows(4), landing(hours=1, content="b"), store)
    with pytest.raises(StaleWriteError):
        land_dataset(rows(5), landing(content="c"), store)
    assert read_ids(store) == {"2026-11-01": [4], "2026-11-02": [3]}


def test_writers_at_the_same_time_lose_nothing(store):
    intervals = [f"2026-11-0{number + 1}" for number in range(4)]
    outcomes = land_together(store, [landing(interval) for interval in intervals])
    assert all(outcome.committed for outcome in outcomes)
    assert read_ids(store) == {interval: [number] for number, interval in enumerate(intervals)}
    outcomes = land_together(store, [landing(hours=number, content=str(number)) for number in range(1, 5)])
    assert read_ids(store)["2026-11-01"] == [3]


def attempts(store, what=None):
    return {
        "read": lambda: store.read("a"),
        "write": lambda: store.write("a", b""),
        "create": lambda: store.create("a", b""),
        "list": store.list,
        "delete": lambda: store.delete("a"),
        "write table": lambda: write_table(pl.LazyFrame({"a": [1]}), "t", "t.parquet", store),
        "read table": lambda: read_table("t.parquet", store),
        "land": lambda: land_dataset(rows(1), what or landing(), store),
    }


@pytest.mark.parametrize(
    "attempt", ["read", "write", "create", "list", "delete", "write table", "read table", "land"]
)
def test_wrong_credentials_are_refused_with_a_remedy_and_without_secrets(s3, attempt):
    wrong = json.loads(s3.connection()) | {"password": "wrong-s3cr3t"}
    store = open_store("s3://lake/x", EnvDeployment({VARIABLE: json.dumps(wrong)}))
    with pytest.raises(StoreUnavailableError) as caught:
        attempts(store)[attempt]()
    shown = "".join(traceback.format_exception(caught.value))
    assert caught.value.place.startswith("s3://lake/x")
    assert "redentials" in shown or "endpoint" in shown
    assert "s3cr3t" not in shown
    assert "Signature" not in shown


def test_wrong_credentials_at_preparation(s3):
    wrong = json.loads(s3.connection()) | {"password": "wrong-s3cr3t"}
    with pytest.raises(StoreUnavailableError, match="s3://lake") as caught:
        prepare_lake("s3://lake", EnvDeployment({VARIABLE: json.dumps(wrong)}))
    assert "cohortflow_lake" in caught.value.remedy
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.timeout(90)  # a task must not hang on an endpoint that is gone
@pytest.mark.parametrize("attempt", ["read", "write table", "land"])
def test_an_endpoint_that_goes_down_loses_nothing(tmp_path, attempt):
    with ProcessGroup(tmp_path / "log") as group:
        server = start_s3(group, tmp_path / "data")
        deployment = EnvDeployment({VARIABLE: server.connection()})
        prepare_lake("s3://lake", deployment)
        store = open_store("s3://lake/x", deployment)
        land_dataset(rows(1), landing(), store)
        group.processes[0].stop()
        with pytest.raises(StoreUnavailableError) as caught:
            attempts(store, landing(hours=1, content="b"))[attempt]()
        assert caught.value.place.startswith("s3://lake/x")
        assert "endpoint" in caught.value.remedy
        port = int(server.endpoint.rpartition(":")[2])
        start_s3(group, tmp_path / "data", port=port)
        assert read_ids(store) == {"2026-11-01": [1]}
        assert land_dataset(rows(2), landing(hours=1, content="b"), store).committed
