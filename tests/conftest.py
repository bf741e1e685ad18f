"""What every test may rely on: an Airflow home of its own, and projects to read or to change."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# Airflow reads its settings when it is first imported, so they are made before any test module is.
_HOME = Path(tempfile.mkdtemp(prefix="cohortflow-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ.update(
    {
        "AIRFLOW_HOME": str(_HOME),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME}/airflow.db",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
)
for name in [
    name for name in os.environ if name.startswith(("COHORTFLOW_ENV", "COHORTFLOW_HOME", "COHORTFLOW_STATE"))
]:
    del os.environ[name]

import pytest  # noqa: E402  # after the settings
from hypothesis import settings  # noqa: E402

from cohortflow.workflow.study import Project  # noqa: E402

settings.register_profile("cohortflow", deadline=None)  # a slow machine is no failure
settings.load_profile("cohortflow")

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the slowest files, so that no worker is left alone with one of them at the end."""
    slowest = (
        "test_airflow_scheduler.py",
        "test_pipeline_faults.py",
        "test_demo.py",
        "test_pipeline_study.py",
    )

    def rank(item: pytest.Item) -> int:
        return slowest.index(item.path.name) if item.path.name in slowest else len(slowest)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def project() -> Project:
    """The project as it is shipped; not to be changed."""
    return Project(ROOT)


@pytest.fixture
def project_copy(tmp_path, monkeypatch) -> Project:
    """A copy that a test may change; it is the default project while the test runs."""
    root = tmp_path / "project"
    for folder in ("dags", "templates", "include/catalog"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("COHORTFLOW_HOME", str(root))
    return Project(root)
