"""A lake of its own for each test, and the commands that work in it."""

import pytest

from cohortflow.cli.main import run


@pytest.fixture
def lake(tmp_path, monkeypatch):
    """The deployment's lake, which no one has made yet; tables are printed at full width."""
    monkeypatch.setenv("AIRFLOW_VAR_COHORTFLOW_LAKE", str(tmp_path / "lake"))
    monkeypatch.setattr("cohortflow.cli.console.stdout._width", 200)
    return tmp_path / "lake"


@pytest.fixture
def terminology(lake, capsys):
    """Runs cohortflow terminology; returns its exit code, its output and its errors."""

    def terminology(*arguments):
        code = run(["terminology", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return terminology
