"""The DAG files: every study is a DAG, a broken one hurts itself only, and parsing is cheap."""

import json
import os
import subprocess
import sys

import pytest
from airflow.dag_processing.dagbag import DagBag

STUDIES = ["diabetes_nightly", "kidney_lab_registry"]

_PARSE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
print("\\n" + json.dumps([sorted(bag.dags), bag.import_errors, sorted(sys.modules)]))
"""


def load(project):
    """Load the DAG files of a project; returns ids of DAGs and errors by file name."""
    bag = DagBag(project.root / "dags")
    return sorted(bag.dags), {path.rsplit("/", 1)[-1]: text for path, text in bag.import_errors.items()}


def rewrite(project, old, new):
    path = project.root / "dags" / "studies" / "diabetes_nightly.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return text[: text.index(old)].count("\n") + 1


def test_two_studies_are_two_dags(project):
    assert load(project) == (STUDIES, {})


def test_parsing_needs_no_data_library(project):
    """In a process of its own, as Airflow's DAG processor does it."""
    done = subprocess.run(
        [sys.executable, "-c", _PARSE, str(project.root / "dags")],
        env={**os.environ, "COHORTFLOW_HOME": str(project.root)},
        capture_output=True,
        text=True,
        check=True,
    )
    dags, errors, modules = json.loads(done.stdout.splitlines()[-1])
    assert (dags, errors) == (STUDIES, {})
    assert "cohortflow.airflow.operators" in modules
    heavy = {"polars", "pyarrow", "great_expectations", "deltalake", "obstore", "numpy", "pandas", "boto3"}
    assert heavy.isdisjoint(modules)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("min_age: 18", "mn_age: 18", "has no parameter 'mn_age'.\n  -> Did you mean 'min_age'?"),
        ("2026-11-01", "2026-13-01", "Not valid YAML: month must be in 1..12."),
        ("lab_codes: hba1c", "lab_codes: hba1", "No entry 'hba1' in the catalog's valuesets."),
    ],
    ids=["parameter", "date", "catalog"],
)
def test_a_broken_study_leaves_the_others_and_shows_its_error(project_copy, old, new, message):
    line = rewrite(project_copy, old, new)
    dags, files = load(project_copy)
    assert dags == ["kidney_lab_registry"]
    assert list(files) == ["research_workflows_check.py"]
    (text,) = files.values()
    assert "diabetes_nightly.yaml: " in text
    assert message in text
    if "parameter" in message:
        assert f"diabetes_nightly.yaml:{line}: " in text
    assert "kidney_lab_registry" not in text


def test_an_unknown_environment_is_shown_and_nothing_can_start(project_copy, monkeypatch):
    monkeypatch.setenv("COHORTFLOW_ENVIRONMENT", "prd")
    dags, files = load(project_copy)
    assert dags == []
    (text,) = files.values()
    assert "Unknown environment 'prd'.\n  -> Did you mean 'prod'?" in text


def test_a_new_study_file_is_a_new_dag(project_copy):
    studies = project_copy.root / "dags" / "studies"
    text = (studies / "diabetes_nightly.yaml").read_text()
    (studies / "my_study.yaml").write_text(text.replace("study: diabetes_nightly", "study: my_study"))
    assert load(project_copy)[0] == ["diabetes_nightly", "kidney_lab_registry", "my_study"]
