"""cohortflow lake vacuum: nothing is removed unless asked, and what releases name is kept."""

import json
from datetime import UTC, datetime

import polars as pl
import pytest

from cohortflow.cli.main import run
from cohortflow.lake import Landing, land_dataset, open_store
from cohortflow.model import EnvDeployment


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """A study's datasets: three versions of one table, the second of them released."""
    monkeypatch.setenv("AIRFLOW_VAR_COHORTFLOW_LAKE", str(tmp_path / "lake"))
    store = open_store(str(tmp_path / "lake/dev/datasets/diabetes_nightly"), EnvDeployment({}))
    for number in range(3):
        time = datetime(2026, 11, 1, number, tzinfo=UTC)
        landing = Landing(
            "patient", "patient", "cohortflow/diabetes_nightly", "2026-11-01", time, str(number)
        )
        land_dataset(pl.LazyFrame({"n": [number]}), landing, store)
    document = {"datasets": [{"name": "patient", "version": 1, "rows": 1}]}
    store.write("_releases/2026-11-01.json", json.dumps(document).encode())
    return store


def versions(store):
    """Return the versions that can still be read, with what is in them."""
    found = {}
    for version in range(3):
        try:
            found[version] = pl.read_delta(store.child("patient"), version=version)["n"].to_list()
        except (OSError, pl.exceptions.PolarsError):
            continue
    return found


def test_counts_first_and_removes_when_told(datasets, capsys):
    arguments = ["lake", "vacuum", "diabetes_nightly", "--retention-days", "0", "--json"]
    assert run(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"study": "diabetes_nightly", "applied": False, "files": {"patient": 1}}
    assert versions(datasets) == {0: [0], 1: [1], 2: [2]}
    assert run([*arguments, "--apply"]) == 0
    assert versions(datasets) == {1: [1], 2: [2]}


def test_keeps_what_was_replaced_lately(datasets, capsys):
    assert run(["lake", "vacuum", "diabetes_nightly", "--apply"]) == 0
    assert "patient" in capsys.readouterr().out
    assert versions(datasets) == {0: [0], 1: [1], 2: [2]}


def test_a_study_without_datasets_is_an_error(datasets, capsys):
    assert run(["lake", "vacuum", "elsewhere"]) == 2
    assert "'elsewhere' has published no datasets here" in capsys.readouterr().err
