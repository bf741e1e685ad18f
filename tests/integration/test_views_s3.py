"""Views over NDJSON on a real S3 endpoint: plain, packed, malformed, truncated, and not there."""

import gzip
import json

import polars as pl
import pytest

from cohortflow.cli.main import run
from cohortflow.errors import (
    ArtifactNotFoundError,
    CohortflowError,
    MalformedDataError,
    StoreUnavailableError,
)
from cohortflow.fhir.ndjson import Malformation, read_views
from cohortflow.fhir.views import compile_view
from cohortflow.lake import open_store
from cohortflow.model import EnvDeployment

pytestmark = pytest.mark.integration

VARIABLE = "AIRFLOW_CONN_COHORTFLOW_LAKE"
PEOPLE = {
    "name": "people",
    "resource": "Patient",
    "select": [{"column": [{"name": "id", "path": "id"}, {"name": "born", "path": "birthDate"}]}],
}
COUNT = 30_000


def patients(prefix, count=COUNT):
    lines = (
        json.dumps({"resourceType": "Patient", "id": f"{prefix}{number}", "birthDate": "1970-06"})
        for number in range(count)
    )
    return "\n".join(lines).encode() + b"\n"


def pack(data):
    """Pack as servers do that write a file in parts: several members."""
    middle = data.index(b"\n", len(data) // 2) + 1
    return gzip.compress(data[:middle]) + gzip.compress(data[middle:])


def pack_zstd(data, folder):
    file = folder / "packed"
    pl.read_ndjson(data).write_ndjson(file, compression="zstd", check_extension=False)
    return file.read_bytes()


@pytest.fixture
def store(s3, request):
    """A place of its own per test."""
    return open_store(f"s3://lake/views/{request.node.name}", EnvDeployment({VARIABLE: s3.connection()}))


@pytest.fixture
def environ(s3, monkeypatch):
    """What a user exports before a command that reads from S3."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.login)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.password)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")


def read(store, *names, options=None):
    view = compile_view(PEOPLE)
    uris = [store.child(name) for name in names]
    found = read_views([view], uris, storage_options=options or store.polars_options)
    frames, malformed = found.collect()
    return frames["people"], malformed


def test_plain_and_packed_objects_are_one_table(store, tmp_path):
    store.write("Patient.ndjson", patients("a"))
    store.write("Patient.ndjson.gz", pack(patients("b")))
    store.write("Patient.ndjson.zst", pack_zstd(patients("c"), tmp_path))
    found, malformed = read(store, "Patient.ndjson", "Patient.ndjson.gz", "Patient.ndjson.zst")
    assert found["id"].n_unique() == 3 * COUNT
    assert found["born"].unique().to_list() == ["1970-06"]
    assert malformed.is_empty()


@pytest.mark.parametrize("packed", [False, True])
def test_malformed_lines_are_listed_by_uri_and_line(store, packed):
    data = patients("a") + b"oops\n\n" + b'{"resourceType":"Patient","id":["x"]}\n' + patients("b")
    store.write("p", pack(data) if packed else data)
    found, malformed = read(store, "p")
    assert found["id"].n_unique() == 2 * COUNT
    uri = store.child("p")
    assert malformed.rows() == [
        (uri, COUNT + 1, Malformation.NOT_JSON),
        (uri, COUNT + 3, Malformation.WRONG_JSON_TYPE),
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_bytes_that_are_not_utf8(store, packed):
    data = patients("a", 100) + b'{"resourceType":"Patient","id":"\xff"}\n' + patients("b", 100)
    store.write("p", pack(data) if packed else data)
    found, malformed = read(store, "p")
    assert found["id"].n_unique() == 200
    assert malformed.select("line", "reason").rows() == [(101, Malformation.NOT_UTF8)]


def test_a_truncated_object_is_an_error_that_names_it(store):
    data = pack(patients("a"))
    store.write("p.gz", data[: len(data) // 3])
    with pytest.raises(MalformedDataError, match="cannot be read to its end") as caught:
        read(store, "p.gz")
    assert caught.value.place == store.child("p.gz")


def test_an_object_that_is_not_there(store):
    with pytest.raises(ArtifactNotFoundError):
        read(store, "gone")


def test_credentials_that_are_refused_are_not_told(store):
    store.write("p", patients("a", 1))
    wrong = {**store.polars_options, "aws_secret_access_key": "hush" * 10}
    with pytest.raises(CohortflowError) as caught:
        read(store, "p", options=wrong)
    assert isinstance(caught.value, StoreUnavailableError)
    assert "hush" not in f"{caught.value}{caught.value.__cause__}"


def test_the_command_reads_from_s3(store, environ, tmp_path, capsys):
    store.write("Patient.ndjson.gz", pack(patients("a") + b"oops\n" + patients("b")))
    view = tmp_path / "people.json"
    view.write_text(json.dumps(PEOPLE), encoding="utf-8")
    out, bad = tmp_path / "people.parquet", tmp_path / "bad.csv"
    uri = store.child("Patient.ndjson.gz")
    arguments = ["view", "run", str(view), uri, "-o", str(out), "--malformed", str(bad), "--json"]
    assert run(arguments) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 2 * COUNT
    assert pl.read_parquet(out)["id"].n_unique() == 2 * COUNT
    assert pl.read_csv(bad).rows() == [(uri, COUNT + 1, "not one JSON value")]
