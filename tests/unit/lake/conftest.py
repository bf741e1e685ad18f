import pytest

from cohortflow.lake import open_store
from cohortflow.lake.terminology import TerminologyStore
from cohortflow.model import EnvDeployment


@pytest.fixture
def store(tmp_path):
    """A store in a local folder whose name holds what a variant does."""
    return open_store(str(tmp_path / "lake~1"), EnvDeployment({}))


@pytest.fixture
def terminologies(store):
    return TerminologyStore(store)
