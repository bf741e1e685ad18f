"""Marked records through the lake: all that is published, down to what tables say of themselves."""

import json
import os
import re
import signal
import stat
import time
from datetime import date

import polars as pl
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from marked_records import permit, read_everything, read_lines, write_marked

from cohortflow.lake import open_store
from cohortflow.model import EnvDeployment
from cohortflow.sandbox import SandboxConfig, running_sandbox
from cohortflow.workflow.runner import run_plan
from cohortflow.workflow.steps.release import list_releases, read_release

pytestmark = pytest.mark.integration

ENVIRONMENTS = ("dev", "staging", "prod")
PRIVATE = ("raw/", "work/")


@pytest.fixture(scope="module")
def hospital(patients, tmp_path_factory):
    """A server of marked records, and what must not be seen of them."""
    folder = tmp_path_factory.mktemp("marked") / "data"
    secrets = write_marked(patients, folder, permit(read_lines(patients / "Patient.ndjson")[0]["id"]))
    config = SandboxConfig(data=folder, export_seconds=0.1, resources_per_file=2000)
    with running_sandbox(config) as sandbox:
        yield sandbox, secrets


@pytest.fixture(scope="module")
def secrets(hospital):
    return hospital[1]


def make_keys(site):
    for environment in ENVIRONMENTS:
        key = json.dumps({"conn_type": "generic", "password": os.urandom(32).hex()})
        site.environ[f"AIRFLOW_CONN_COHORTFLOW_KEY_{environment.upper()}"] = key
    return site


@pytest.fixture(scope="module")
def lake(hospital, tmp_path_factory, make_site):
    """A lake with a release in each environment, and a checkpoint in each table's log."""
    folder = tmp_path_factory.mktemp("lake")
    site = make_keys(make_site(hospital[0], str(folder / "lake"), folder))
    for environment in ENVIRONMENTS:
        run, _ = site.run(environment=environment)
        for view in run.plan.published:
            DeltaTable(run.datasets.child(view)).create_checkpoint()
    return folder / "lake"


@pytest.fixture
def real_site(hospital, tmp_path, make_site):
    """A lake of its own, and a source that is not declared synthetic."""
    site = make_keys(make_site(hospital[0], str(tmp_path / "lake"), tmp_path))
    connection = json.loads(site.environ["AIRFLOW_CONN_FHIR_DEFAULT"])
    del connection["extra"]["synthetic"]
    site.environ["AIRFLOW_CONN_FHIR_DEFAULT"] = json.dumps(connection)
    return site


def published(folder):
    """Return the contents of a lake's files outside the private zones of one environment."""
    return read_everything(folder, without=PRIVATE)


def find(secrets, contents):
    return {name: hits for name, content in contents.items() if (hits := secrets.find(content))}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize(
    ("place", "files", "says"),
    [
        ("log", r"/_delta_log/\d+\.json$", b"minValues"),
        ("checkpoint", r"/_delta_log/.*checkpoint.*$", b"maxValues"),
        ("table", r"/data_interval=.*\.parquet$", b"delta-rs version"),
        ("release document", r"/_releases/.*\.json$", b'"leak_scan"'),
        ("validation report", r"/_reports/.*\.validation\.(json|html)$", b"expectation|Expectation"),
        ("coverage report", r"/_reports/.*\.coverage\.(json|html)$", b"icd10cm"),
        ("risk report", r"/_reports/.*/risk\.(json|html)$", b"k"),
        ("leak report", r"/_reports/.*/leaks\.json$", b'"clean": true'),
        ("audit event", r"^audit/", b"AuditEvent"),
    ],
)
def test_nothing_of_the_records_is_in_a(place, files, says, environment, lake, secrets):
    contents = {
        name: content for name, content in published(lake / environment).items() if re.search(files, name)
    }
    assert any(re.search(says, content) for content in contents.values()), f"there is a {place}"
    assert find(secrets, contents) == {}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_nothing_of_the_records_is_anywhere_else(environment, lake, secrets):
    """Every file and every path, known or not; among the paths the folders of partitions."""
    contents = published(lake / environment)
    assert find(secrets, contents) == {}
    assert any("category_code=" in name or "data_interval=" in name for name in contents)
    assert find(secrets, read_everything(lake / environment / "raw"))


def test_private_zones_are_for_their_owner_alone(lake):
    for environment in ENVIRONMENTS:
        assert is_private(lake / environment / "raw")
        assert not any(path.is_file() for path in (lake / environment / "work").rglob("*"))


def test_replaced_interval_leaves_no_rows_and_no_documents(real_site, secrets, tmp_path):
    """Old versions of a table cannot be read; its log tells no more than redacted values."""
    first, _ = real_site.run(day=date(2026, 10, 30))
    run, _ = real_site.run()
    assert list_releases(run.datasets) == [run.interval.key] != [first.interval.key]
    files = run.datasets.list()
    assert not [name for name in files if first.interval.key in name]
    for view in run.plan.published:
        table = DeltaTable(run.datasets.child(view), version=0)
        assert table.version() == 0
        with pytest.raises((DeltaError, OSError, pl.exceptions.PolarsError, FileNotFoundError)):
            pl.read_delta(run.datasets.child(view), version=0)
    assert find(secrets, published(tmp_path / "lake" / "dev")) == {}


def test_suppressed_values_were_never_in_a_file(real_site, project_copy):
    """What the assessment takes out is in no file of a table, nor among the extremes in its log."""
    study = project_copy.root / "dags" / "studies" / "diabetes_nightly.yaml"
    study.write_text(study.read_text() + "  minimum_k: 6\n")
    real_site.project = project_copy
    run = real_site.open_run()
    redacted = []

    def look(step, result):
        if step.kind == "validate" and result is None:
            redacted.append(pl.read_parquet(run.work.child(run.output_path("redact", "patient"))))

    run_plan(run, on_step=look)
    left = real_site.rows(run, "patient")
    names = [name for name in redacted[0].columns if redacted[0][name].count() > left[name].count()]
    assert names, "values were suppressed"
    files = [name for name in run.datasets.list("patient") if name.endswith(".parquet")]
    written = pl.concat([pl.read_parquet(run.datasets.child(name), columns=names) for name in files])
    assert written.sort(pl.all()).equals(left.select(names).sort(pl.all()))
    log = run.datasets.read("patient/_delta_log/00000000000000000000.json").splitlines()
    extremes = [json.loads(entry["add"]["stats"]) for entry in map(json.loads, log) if "add" in entry]
    for name in names:
        values = set(left[name].drop_nulls())
        told = {stats[kind].get(name) for stats in extremes for kind in ("minValues", "maxValues")}
        assert told - {None} <= values


@pytest.mark.parametrize("killed_at", ["redact", "cohort/_delta_log"])
def test_killed_run_leaves_nothing_outside_the_private_zones(
    killed_at, hospital, secrets, tmp_path, make_site
):
    site = make_keys(make_site(hospital[0], str(tmp_path / "lake"), tmp_path))
    for name in ("tmp", "state"):
        (tmp_path / name).mkdir()
    site.environ |= {"TMPDIR": str(tmp_path / "tmp"), "COHORTFLOW_STATE": str(tmp_path / "state")}
    process = site.start_cli("study", "run", "diabetes_nightly", "--date", "2026-10-31")
    deadline = time.monotonic() + 120
    while not [path for path in (tmp_path / "lake").rglob("*") if f"/{killed_at}" in path.as_posix()]:
        assert process.poll() is None, process.communicate()[0][-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    contents = {
        **published(tmp_path / "lake" / "dev"),
        **{f"tmp/{name}": content for name, content in read_everything(tmp_path / "tmp").items()},
        **{f"state/{name}": content for name, content in read_everything(tmp_path / "state").items()},
        "output": output.encode(),
    }
    assert find(secrets, contents) == {}
    lake = tmp_path / "lake" / "dev"
    left = [path for zone in ("raw", "work") for path in (lake / zone).rglob("*") if path.is_file()]
    assert any("work" in path.parts for path in left), "the run was killed at work"
    for path in left:
        assert any(is_private(folder) for folder in path.parents if folder.is_relative_to(lake)), path.name


def is_private(folder):
    return stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_release_names_the_versions_that_can_be_read(lake):
    for environment in ENVIRONMENTS:
        store = open_store(str(lake / environment / "datasets" / "diabetes_nightly"), EnvDeployment({}))
        (interval,) = list_releases(store)
        for dataset in read_release(store, interval)["datasets"]:
            frame = pl.read_delta(store.child(dataset["name"]), version=dataset["version"])
            assert frame.height == dataset["rows"]
