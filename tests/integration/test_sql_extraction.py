"""Queries on a real PostgreSQL, as on a hospital's reporting database."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl
import pytest
import sqlalchemy as sa
from stack import ProcessGroup, start_postgres

from cohortflow.connectors.sql import extract_query, open_engine, read_sql_state
from cohortflow.errors import (
    AuthorizationError,
    CatalogError,
    ConfigurationError,
    MalformedDataError,
    TransientSourceError,
)
from cohortflow.lake import open_store
from cohortflow.model import Connection, DataInterval, EnvDeployment
from cohortflow.model.sql_query import SqlQuery

pytestmark = pytest.mark.integration

DAY = DataInterval.of_day(date(2026, 11, 18))
SECRET = "Zebulon"
TABLES = f"""
CREATE TABLE problem_list (
  problem_id bigint PRIMARY KEY, pat_id varchar(20), dx_code varchar(10), noted_on date,
  severity numeric(6, 2), chronic boolean, weight double precision, entered_at timestamp, comment text);
INSERT INTO problem_list
SELECT n, 'P' || (n % 97), CASE WHEN n % 5 > 0 THEN 'E11.' || (n % 10) END, date '2020-01-01' + n % 1000,
       n / 100.0, n % 2 = 0, n * 0.5, timestamp '2026-11-17 20:00' + n * interval '1 minute', '{SECRET}'
FROM generate_series(1, 1003) AS n;
CREATE TABLE result (order_id varchar(10), line int, value text);
INSERT INTO result SELECT 'O' || (n / 4), n % 4, 'v' || n FROM generate_series(1, 250) AS n;
CREATE TABLE twins (id int); INSERT INTO twins VALUES (1), (2), (2), (3);
CREATE TABLE holes (id int); INSERT INTO holes VALUES (1), (NULL), (3);
"""


@pytest.fixture(scope="module")
def connection():
    with tempfile.TemporaryDirectory(prefix="cohortflow-sql-") as folder, ProcessGroup(Path(folder)) as group:
        Path(folder).chmod(0o755)  # the server runs as another user
        url = urlsplit(start_postgres(group, Path(folder) / "server"))
        made = Connection(
            "clarity",
            "postgres",
            url.hostname or "",
            url.port,
            "postgres",
            url.username or "",
            url.password or "",
        )
        writable = dataclasses.replace(
            made, extra={"connect_args": {"options": "-c default_transaction_read_only=off"}}
        )
        with open_engine(writable).begin() as session:
            session.execute(sa.text(TABLES))
        yield made


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "raw"), EnvDeployment({}))


def query(sql, columns, key, **options):
    return SqlQuery(
        query="q",
        title="Q",
        key=key,
        sql=sql,
        columns=[{"name": n, "type": t} for n, t in columns.items()],
        **options,
    )


PROBLEMS = query(
    "SELECT problem_id, pat_id, dx_code, noted_on, severity, chronic, weight, entered_at FROM problem_list",
    {
        "problem_id": "integer",
        "pat_id": "string",
        "dx_code": "string",
        "noted_on": "date",
        "severity": "decimal",
        "chronic": "boolean",
        "weight": "float",
        "entered_at": "datetime",
    },
    ["problem_id"],
    timezone="America/New_York",
)


def read(store, state):
    return pl.concat([pl.read_parquet(store.child("x", part.name)) for part in state.parts])


def test_every_row_arrives_once_with_its_types_whatever_the_page(connection, store):
    state = extract_query(open_engine(connection), PROBLEMS, DAY, store, "x", page_rows=100)
    assert len(state.parts) == 11
    frame = read(store, state)
    assert frame["problem_id"].to_list() == list(range(1, 1004))
    assert frame.row(6) == (
        7,
        "P7",
        "E11.7",
        date(2020, 1, 8),
        Decimal("0.07"),
        False,
        3.5,
        datetime(2026, 11, 18, 1, 7, tzinfo=UTC),  # 20:07 in New York
    )
    assert frame["dx_code"].null_count() == 200
    assert frame.schema["severity"] == pl.Decimal(38, 10)


def test_pages_of_a_key_of_two_columns_with_text_lose_and_double_nothing(connection, store):
    results = query(
        "SELECT order_id, line, value FROM result",
        {"order_id": "string", "line": "integer", "value": "string"},
        ["order_id", "line"],
    )
    state = extract_query(open_engine(connection), results, DAY, store, "x", page_rows=7)
    assert sorted(read(store, state)["value"]) == sorted(f"v{n}" for n in range(1, 251))


def test_the_interval_bounds_the_rows(connection, store):
    bounded = PROBLEMS.model_copy(
        update={"sql": PROBLEMS.sql + " WHERE entered_at AT TIME ZONE 'America/New_York' < :interval_end"}
    )
    night = DataInterval(DAY.start, DAY.start + timedelta(hours=5))  # until midnight in New York
    state = extract_query(open_engine(connection), bounded, night, store, "x")
    frame = read(store, state)
    assert frame["problem_id"].to_list() == list(range(1, 240))
    later = extract_query(
        open_engine(connection), bounded, DataInterval.of_day(date(2026, 11, 17)), store, "y"
    )
    assert later.rows == 0
    assert pl.read_parquet(store.child("y", later.parts[0].name)).schema == frame.schema


class DyingStore:
    """A store whose process dies before the n-th write."""

    def __init__(self, store, writes):
        self.store, self.left = store, writes

    def read(self, path):
        return self.store.read(path)

    def write(self, path, content):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.store.write(path, content)


@pytest.mark.parametrize("writes", range(8))
def test_what_was_interrupted_goes_on_after_the_last_page(connection, store, writes):
    engine = open_engine(connection)
    with pytest.raises(KeyboardInterrupt):
        extract_query(engine, PROBLEMS, DAY, DyingStore(store, writes), "x", page_rows=300)
    kept = read_sql_state(store, "x")
    counted = []

    class Watch:
        def update(self, task, done, total=None, unit=""):
            counted.append(done)

    state = extract_query(engine, PROBLEMS, DAY, store, "x", page_rows=300, progress=Watch())
    assert read(store, state)["problem_id"].to_list() == list(range(1, 1004))
    assert counted[0] > (kept.rows if kept else 0)


def test_a_complete_extraction_is_not_repeated(connection, store):
    first = extract_query(open_engine(connection), PROBLEMS, DAY, store, "x")
    unreachable = dataclasses.replace(connection, port=1)
    assert extract_query(open_engine(unreachable), PROBLEMS, DAY, store, "x") == first


class SharedStore:
    """A store in which, at the n-th write of one run, another run does all of its work."""

    def __init__(self, store, writes, other):
        self.store, self.left, self.other = store, writes, other

    def read(self, path):
        return self.store.read(path)

    def write(self, path, content):
        if not self.left:
            self.other()
        self.left -= 1
        self.store.write(path, content)


@pytest.mark.parametrize("writes", range(8))
def test_runs_with_pages_of_other_sizes_do_not_mix_their_files(connection, store, writes):
    engine = open_engine(connection)

    def other():
        extract_query(engine, PROBLEMS, DAY, store, "x", page_rows=70)

    shared = SharedStore(store, writes, other)
    state = extract_query(engine, PROBLEMS, DAY, shared, "x", page_rows=300)
    for told in (state, read_sql_state(store, "x")):
        assert sorted(read(store, told)["problem_id"]) == list(range(1, 1004))


def test_an_extraction_from_before_the_intervals_end_is_made_anew(connection, store):
    engine = open_engine(connection)
    this_day = DataInterval(DAY.start, datetime.now(UTC) + timedelta(days=1))
    early = extract_query(engine, PROBLEMS, this_day, store, "x", page_rows=300)
    assert read(store, early).height == 1003
    again = extract_query(engine, PROBLEMS, this_day, store, "x", page_rows=400)
    assert again.started_at > early.started_at
    assert [part.rows for part in again.parts] == [400, 400, 203]
    over = DataInterval(DAY.start, again.started_at)
    assert extract_query(engine, PROBLEMS, over, store, "x", page_rows=100) == again


@pytest.mark.parametrize(
    ("table", "message"),
    [("twins", "The key (id) is not unique."), ("holes", "The key (id) is null in some rows.")],
)
@pytest.mark.parametrize("page_rows", [1, 2, 100])
def test_a_key_that_would_lose_rows_is_refused(connection, store, table, message, page_rows):
    bad = query(f"SELECT id FROM {table}", {"id": "integer"}, ["id"])
    with pytest.raises(MalformedDataError) as caught:
        extract_query(open_engine(connection), bad, DAY, store, "x", page_rows=page_rows)
    assert caught.value.message == message


def test_a_value_of_another_type_is_named_by_column_and_never_shown(connection, store):
    wrong = query(
        "SELECT problem_id, comment FROM problem_list",
        {"problem_id": "integer", "comment": "float"},
        ["problem_id"],
    )
    with pytest.raises(CatalogError) as caught:
        extract_query(open_engine(connection), wrong, DAY, store, "x")
    assert "The column 'comment' holds values that are no float." in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    cast = wrong.model_copy(update={"sql": "SELECT problem_id, comment::float AS comment FROM problem_list"})
    with pytest.raises(CatalogError) as caught:  # this time it is the database that quotes the value
        extract_query(open_engine(connection), cast, DAY, store, "x")
    assert SECRET not in str(caught.value)
    assert "22P02" in str(caught.value)


def test_times_without_a_zone_are_not_guessed(connection, store):
    with pytest.raises(CatalogError, match="times without a zone need 'timezone'"):
        extract_query(open_engine(connection), PROBLEMS.model_copy(update={"timezone": ""}), DAY, store, "x")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT problem_id FROM no_such_table",
        "SELECT problem_id FROM problem_list; DROP TABLE problem_list",
        "SELECT pat_id FROM problem_list",
        "DELETE FROM problem_list RETURNING problem_id",
    ],
)
def test_a_query_that_the_database_refuses_is_named(connection, store, sql):
    bad = query(sql, {"problem_id": "integer"}, ["problem_id"])
    with pytest.raises(CatalogError, match="does not accept the query"):
        extract_query(open_engine(connection), bad, DAY, store, "x")


def test_nothing_can_be_written_to_the_database(connection):
    with pytest.raises(sa.exc.InternalError, match="read-only"), open_engine(connection).begin() as session:
        session.execute(sa.text("DELETE FROM twins"))


def test_an_unknown_parameter_is_refused(connection, store):
    bad = query("SELECT id FROM twins WHERE id > :today", {"id": "integer"}, ["id"])
    with pytest.raises(CatalogError, match="unknown parameter ':today'"):
        extract_query(open_engine(connection), bad, DAY, store, "x")


def test_wrong_password_and_unreachable_host_are_told_without_the_secret(connection, store):
    wrong = dataclasses.replace(connection, password="not-the-password")
    with pytest.raises((AuthorizationError, TransientSourceError)) as caught:
        extract_query(open_engine(wrong), PROBLEMS, DAY, store, "x")
    assert "not-the-password" not in str(caught.value)
    with pytest.raises(TransientSourceError):
        extract_query(open_engine(dataclasses.replace(connection, port=1)), PROBLEMS, DAY, store, "x")


def test_a_connection_of_another_type_is_refused(connection):
    with pytest.raises(ConfigurationError, match="no database"):
        open_engine(dataclasses.replace(connection, conn_type="fhir"))


QUERY = """
query: ward_weights
title: Weights
key: [id]
columns:
  - {name: id, type: integer, path: Observation.id, role: key, target: Observation}
  - {name: patient_id, type: string, path: Observation.subject.reference, role: subject, target: Patient}
  - {name: weight, type: float, path: Observation.valueQuantity.value}
  - {name: weighed_at, type: datetime, path: Observation.effectiveDateTime, role: time}
  - {name: comment, type: string}
"""
SUITE = {"name": "ward_weights", "expectations": []}


@pytest.fixture
def ward(connection, project_copy, folder_site, patients):
    """A study that reads a ward's database beside the FHIR server."""
    catalog = project_copy.root / "include" / "catalog"
    (catalog / "queries" / "ward_weights.yaml").write_text(QUERY)
    (catalog / "queries" / "ward_weights.sql").write_text("SELECT * FROM ward_weights")
    (catalog / "expectations" / "ward_weights.json").write_text(json.dumps(SUITE))
    template = project_copy.root / "templates" / "lab_registry.yaml"
    text = template.read_text()
    assert "  views: [" in text
    sql = "  sql: {connection: ward, queries: [ward_weights], page_rows: 50}\n"
    template.write_text(text.replace("  views: [", sql + "  views: [", 1))
    ids = [json.loads(line)["id"] for line in (patients / "Patient.ndjson").read_text().splitlines()]
    rows = [
        {
            "id": n,
            "patient": ids[n % len(ids)],
            "weight": 60.0 + n,
            "at": datetime(2026, 10, 1 + n % 30, tzinfo=UTC),
        }
        for n in range(1, 201)
    ]
    writable = dataclasses.replace(
        connection, extra={"connect_args": {"options": "-c default_transaction_read_only=off"}}
    )
    with open_engine(writable).begin() as session:
        session.execute(sa.text("DROP TABLE IF EXISTS ward_weights"))
        session.execute(
            sa.text(
                "CREATE TABLE ward_weights (id bigint, patient_id text, weight float, weighed_at timestamptz,"
                f" comment text DEFAULT '{SECRET}')"
            )
        )
        session.execute(
            sa.text("INSERT INTO ward_weights VALUES (:id, :patient, :weight, :at)"),
            rows,
        )
    folder_site.project = project_copy
    folder_site.environ["AIRFLOW_CONN_WARD"] = json.dumps(
        {
            name: getattr(connection, name)
            for name in ("conn_type", "host", "port", "schema", "login", "password")
        }
    )
    return folder_site


def test_a_study_publishes_what_the_database_has_like_any_view(ward):
    run, results = ward.run("kidney_lab_registry")
    assert results["extract_sql"].facts == {"rows": {"ward_weights": 200}}
    frame = ward.rows(run, "ward_weights")
    cohort = ward.rows(run, "cohort")
    assert 0 < frame.height < 200
    assert set(frame["patient_id"]) <= set(cohort["patient_id"])  # one pseudonym for one patient
    assert set(frame.columns) == {"id", "patient_id", "weight", "weighed_year", "data_interval"}
    assert SECRET not in frame.write_csv()


def test_another_run_of_the_interval_does_not_ask_the_database_again(ward):
    run, _ = ward.run("kidney_lab_registry")
    first = ward.rows(run, "ward_weights")
    ward.environ["AIRFLOW_CONN_WARD"] = ward.environ["AIRFLOW_CONN_WARD"].replace("127.0.0.1", "127.0.0.2")
    again, _ = ward.run("kidney_lab_registry", run_id="again")
    assert ward.rows(again, "ward_weights").equals(first)


def test_airflows_hook_of_the_connection_opens_the_database_read_only(connection, monkeypatch):
    from cohortflow.airflow.database import open_hook_engine

    url = f"postgres://{connection.login}:{connection.password}@{connection.host}:{connection.port}/postgres"
    monkeypatch.setenv("AIRFLOW_CONN_WARD_DB", url)
    with open_hook_engine("ward_db").connect() as session:
        assert session.execute(sa.text("SELECT count(*) FROM twins")).scalar() == 4
        with pytest.raises(sa.exc.InternalError, match="read-only"):
            session.execute(sa.text("DELETE FROM twins"))
    monkeypatch.setenv("AIRFLOW_CONN_NO_DB", "generic://host")
    with pytest.raises(ConfigurationError):
        open_hook_engine("no_db")
