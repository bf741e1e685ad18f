"""Terminologies on a real S3 endpoint, and a process that is killed while it loads."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from cohortflow.errors import InputError, StoreUnavailableError
from cohortflow.lake import open_store
from cohortflow.lake.terminology import TerminologyStore
from cohortflow.model import EnvDeployment
from cohortflow.terminology.loaders import LOADERS

pytestmark = pytest.mark.integration

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "terminology"
ORDER = GOLDEN / "icd10cm_order/input/icd10cm_order_2026.txt"


def order_file(version="2026"):
    (release,) = LOADERS["icd10cm_order"](ORDER, version=version)
    return release


@pytest.fixture
def deployment(s3):
    return EnvDeployment({"AIRFLOW_CONN_COHORTFLOW_LAKE": s3.connection()})


@pytest.fixture
def terminologies(request, deployment):
    return TerminologyStore(open_store(f"s3://lake/{request.node.name}", deployment))


def test_a_release_in_a_bucket_is_that_of_a_folder(terminologies, tmp_path):
    folder = TerminologyStore(open_store(str(tmp_path / "lake"), EnvDeployment({})))
    terminologies.load(order_file("2025"))
    stored = terminologies.load(order_file())
    assert stored.digest == folder.load(order_file()).digest
    assert [release.version for release in terminologies.releases()] == ["2025", "2026"]
    assert terminologies.load(order_file()) == stored
    found, expected = terminologies.tables("ICD-10-CM"), folder.tables("ICD-10-CM")
    assert found.keys() == expected.keys()
    for name, table in found.items():
        assert table.collect().equals(expected[name].collect()), name


def test_of_two_contents_loaded_at_once_one_is_there(terminologies):
    def load(number):
        release = order_file()
        table = release.tables["concepts"].with_columns(display=pl.lit(str(number)))
        tables = dict(release.tables) | {"concepts": table}
        try:
            return terminologies.load(replace(release, tables=tables))
        except InputError:
            return None

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(load, range(3)))
    (winner,) = [outcome for outcome in outcomes if outcome is not None]
    names = terminologies.tables("ICD-10-CM")["concepts"].collect()["display"].unique().to_list()
    assert names == [str(outcomes.index(winner))]
    assert sum(path.endswith(".parquet") for path in terminologies.store.list()) == len(winner.tables)


def test_refused_credentials_are_not_told(s3):
    wrong = replace(s3, password="not-the-password").connection()
    store = open_store("s3://lake/refused", EnvDeployment({"AIRFLOW_CONN_COHORTFLOW_LAKE": wrong}))
    with pytest.raises(StoreUnavailableError) as caught:
        TerminologyStore(store).load(order_file())
    assert "not-the-password" not in str(caught.value)


KILLED = """
import os, signal, sys
from pathlib import Path
from cohortflow.lake import open_store
from cohortflow.lake.terminology import TerminologyStore
from cohortflow.model import EnvDeployment
from cohortflow.terminology.loaders import LOADERS

write, left = TerminologyStore._write, int(sys.argv[3])

def die(self, frame, path):
    global left
    write(self, frame, path)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

TerminologyStore._write = die
store = open_store(sys.argv[1], EnvDeployment({}))
TerminologyStore(store).load(*LOADERS["icd10cm_order"](Path(sys.argv[2])))
"""


@pytest.mark.parametrize("tables", [1, 5])
def test_a_load_that_is_killed_leaves_no_release(tmp_path, tables):
    lake = tmp_path / "lake"
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(lake), str(ORDER), str(tables)], check=False, timeout=120
    )
    assert process.returncode == -signal.SIGKILL
    terminologies = TerminologyStore(open_store(str(lake), EnvDeployment({})))
    assert sum(path.endswith(".parquet") for path in terminologies.store.list()) == tables
    assert terminologies.releases() == ()
    terminologies.load(order_file())
    assert terminologies.tables("ICD-10-CM")["concepts"].collect().height == 7
