"""The command as a whole: help, usage errors, the smaller commands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cohortflow import __version__
from cohortflow.cli import main
from cohortflow.cli.main import run
from cohortflow.errors import SourceError

COMMAND = Path(sys.executable).with_name("cohortflow")


@pytest.mark.parametrize(
    "command",
    [
        "",
        "study",
        "study lint",
        "study plan",
        "study graph",
        "study run",
        "synth",
        "sandbox serve",
        "lake prepare",
        "source probe",
        "schema write",
    ],
)
def test_every_command_explains_itself(command, capsys):
    assert run([*command.split(), "--help"]) == 0
    assert "Usage: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["study", "plan"], "Missing argument"),
        (["study", "lint", "--enw", "dev"], "No such option"),
        (["synth", "--out", "x", "--patients", "0"], "--patients"),
    ],
)
def test_a_usage_error_is_exit_code_2(arguments, message, capsys):
    assert run(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_installed_command_answers():
    done = subprocess.run([COMMAND, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")


def test_the_commands_start_without_data_libraries():
    code = (
        "import sys; from cohortflow.cli.main import run; run(['study', 'lint']);"
        "print({'polars', 'pyarrow', 'deltalake', 'great_expectations', 'airflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (
            SourceError("the server [eof] said no", remedy="Ask it."),
            1,
            "error: the server [eof] said no\n  -> Ask it.",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_failures_are_a_message_and_an_exit_code(monkeypatch, capsys, error, code, shown):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(main, "make_cli", lambda _arguments: fail)
    assert run(["study", "lint"]) == code
    assert capsys.readouterr().err.strip() == shown


class TestLake:
    def test_prepare_checks_a_folder(self, tmp_path, capsys):
        assert run(["lake", "prepare", str(tmp_path / "lake")]) == 0
        assert "is ready" in " ".join(capsys.readouterr().out.split())

    def test_prepare_takes_the_variables_lake(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setenv("AIRFLOW_VAR_COHORTFLOW_LAKE", str(tmp_path / "lake"))
        assert run(["lake", "prepare"]) == 0
        assert (tmp_path / "lake").is_dir()

    def test_prepare_asks_for_a_lake(self, capsys, monkeypatch):
        monkeypatch.delenv("AIRFLOW_VAR_COHORTFLOW_LAKE", raising=False)
        assert run(["lake", "prepare"]) == 2
        assert "Name a URI, or set AIRFLOW_VAR_COHORTFLOW_LAKE." in capsys.readouterr().err

    def test_prepare_reports_an_endpoint_that_is_down(self, capsys, monkeypatch):
        extra = {"endpoint_url": "http://127.0.0.1:9"}
        monkeypatch.setenv(
            "AIRFLOW_CONN_COHORTFLOW_LAKE",
            json.dumps({"conn_type": "aws", "login": "a", "password": "s3cr3t", "extra": extra}),
        )
        assert run(["lake", "prepare", "s3://lake"]) == 1
        error = capsys.readouterr().err
        assert "s3://lake: The bucket cannot be reached or created" in error
        assert "'cohortflow_lake'" in error
        assert "s3cr3t" not in error


def test_schemas_are_written_beside_what_they_describe(project_copy, capsys):
    paths = [
        project_copy.root / "dags/studies/study.schema.json",
        project_copy.templates / "template.schema.json",
    ]
    for path in paths:
        path.unlink(missing_ok=True)
    assert run(["schema", "write"]) == 0
    for path in paths:
        assert json.loads(path.read_text())["$schema"].startswith("https://json-schema.org/")


def test_synth_says_what_it_made(tmp_path, capsys):
    assert run(["synth", "--out", str(tmp_path), "--patients", "3", "--seed", "7", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["counts"]["Patient"] == 3
    assert Path(summary["files"]["Patient"]).read_text().count("\n") == 3
