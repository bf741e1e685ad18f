"""A hospital, a lake and what joins them."""

import dataclasses
import json
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from exclusion_records import SMALL_TEMPLATE
from integration_data import write_records
from stack import ProcessGroup, start_s3

from cohortflow.lake import RawExport, open_store
from cohortflow.model import DataInterval, EnvDeployment
from cohortflow.sandbox import Sandbox, SandboxConfig, generate_client_key, running_sandbox
from cohortflow.synthetic import generate
from cohortflow.workflow.plan import compile_plan
from cohortflow.workflow.run import Run
from cohortflow.workflow.runner import run_plan
from cohortflow.workflow.study import Project

STUDY = "diabetes_nightly"
DAY = date(2026, 10, 31)
PATIENTS = 60


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def data(request, tmp_path_factory) -> Path:
    """The folder of a hospital's records, which the module's ``write_data`` writes."""
    return request.module.write_data(tmp_path_factory.mktemp("hospital") / "data")


@pytest.fixture
def own_state(tmp_path, monkeypatch):
    """A registry of its own for each test, which its processes share."""
    monkeypatch.setenv("COHORTFLOW_STATE", str(tmp_path / "state"))


@pytest.fixture
def raw(tmp_path) -> RawExport:
    """The folder of one extraction in a raw zone of files."""
    return RawExport(open_store(str(tmp_path / "lake"), EnvDeployment({})), "export")


@pytest.fixture(scope="session")
def patients(tmp_path_factory) -> Path:
    """Synthetic patients as NDJSON."""
    folder = tmp_path_factory.mktemp("patients") / "data"
    generate(folder, patients=PATIENTS, seed=7)
    return folder


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """A real S3 endpoint."""
    folder = tmp_path_factory.mktemp("s3")
    with ProcessGroup(folder / "log") as group:
        server = start_s3(group, folder / "data")
        from cohortflow.lake import prepare_lake

        prepare_lake("s3://lake", EnvDeployment({"AIRFLOW_CONN_COHORTFLOW_LAKE": server.connection()}))
        yield server


@dataclass
class Site:
    """A sandbox EHR, a lake, and the connections between them."""

    sandbox: Sandbox
    lake: str
    environ: dict[str, str]
    project: Project = field(default_factory=Project.default)

    @property
    def deployment(self) -> EnvDeployment:
        return EnvDeployment(self.environ)

    def open_run(
        self, study=STUDY, *, day=DAY, environment="dev", run_id="test", fresh=False, **parameters
    ) -> Run:
        loaded = self.project.load_study(study)
        return Run(
            plan=compile_plan(loaded, environment, self.project, parameters or None),
            interval=DataInterval.of_day(day),
            run_id=run_id,
            deployment=self.deployment,
            catalog=self.project.catalog,
            fresh_export=fresh,
        )

    def run(self, study=STUDY, **options):
        """Run a study in this process; return the run and the steps' results."""
        run = self.open_run(study, **options)
        return run, run_plan(run)

    def start_cli(self, *arguments: str) -> subprocess.Popen:
        """Start the command in a process of its own."""
        return subprocess.Popen(
            [str(Path(sys.executable).parent / "cohortflow"), *arguments],
            env={**os.environ, **self.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def rows(self, run: Run, view: str) -> pl.DataFrame:
        """Return what a reader sees of a dataset, in a fixed order."""
        options = dict(run.datasets.options) or None
        frame = pl.read_delta(run.datasets.child(view), storage_options=options)
        return frame.select(sorted(frame.columns)).sort(pl.all())

    def all_rows(self, run: Run) -> dict[str, pl.DataFrame]:
        views = [step.view for step in run.plan.steps if step.kind == "land"]
        return {view: self.rows(run, view) for view in views}


def _make_site(sandbox, lake, folder, connection=None) -> Site:
    """Register a client and write the connections."""
    private, public = generate_client_key()
    sandbox.register("tests", public)
    key_file = folder / f"key-{uuid.uuid4().hex}.jwk"
    key_file.write_text(json.dumps(private))
    fhir = {
        "conn_type": "fhir",
        "host": sandbox.base_url,
        "login": "tests",
        "extra": {"private_key_file": str(key_file), "synthetic": True},
    }
    environ = {
        "AIRFLOW_CONN_FHIR_DEFAULT": json.dumps(fhir),
        "AIRFLOW_CONN_COHORTFLOW_KEY_DEV": json.dumps(
            {"conn_type": "generic", "password": os.urandom(32).hex()}
        ),
        "AIRFLOW_VAR_COHORTFLOW_LAKE": lake,
    }
    if connection:
        environ["AIRFLOW_CONN_COHORTFLOW_LAKE"] = connection
    return Site(sandbox, lake, environ)


@pytest.fixture(scope="session")
def make_site():
    """Make a site of a running sandbox and a lake."""
    return _make_site


@pytest.fixture
def hospital(patients):
    """A sandbox EHR of its own for each test, quick and well-behaved."""
    with running_sandbox(
        SandboxConfig(data=patients, export_seconds=0.2, resources_per_file=2000)
    ) as sandbox:
        yield sandbox


@pytest.fixture
def small_site(tmp_path, project_copy):
    """Returns a site whose hospital has given records only, and the template to read them all."""
    contexts = []

    def make(*resources):
        folder = write_records(tmp_path / "records", *resources)
        contexts.append(running_sandbox(SandboxConfig(data=folder, export_seconds=0.1)))
        site = _make_site(contexts[-1].__enter__(), str(tmp_path / "lake"), tmp_path)
        return dataclasses.replace(site, project=project_copy), SMALL_TEMPLATE

    yield make
    for context in contexts:
        context.__exit__(None, None, None)


@pytest.fixture
def folder_site(hospital, tmp_path) -> Site:
    """A lake in a folder."""
    return _make_site(hospital, str(tmp_path / "lake"), tmp_path)


@pytest.fixture
def s3_site(hospital, s3, tmp_path) -> Site:
    """A lake in S3."""
    return _make_site(hospital, f"s3://lake/{uuid.uuid4().hex}", tmp_path, s3.connection())
