import json
import secrets
from datetime import date

import pytest

from cohortflow.model import DataInterval, EnvDeployment
from cohortflow.workflow.plan import compile_plan
from cohortflow.workflow.run import Run

KEY = "AIRFLOW_CONN_COHORTFLOW_KEY_DEV"


@pytest.fixture
def open_run(project, tmp_path):
    """Returns a run in a lake of its own, with a project key."""
    environ = {
        "AIRFLOW_VAR_COHORTFLOW_LAKE": str(tmp_path / "lake"),
        KEY: json.dumps({"conn_type": "generic", "password": secrets.token_hex(32)}),
    }

    def make(run_id="r1", interval=date(2026, 11, 1), overrides=None, environment="dev", **changed):
        variables = {name: value for name, value in (environ | changed).items() if value is not None}
        plan = compile_plan(project.load_study("diabetes_nightly"), environment, project, overrides)
        return Run(plan, DataInterval.of_day(interval), run_id, EnvDeployment(variables), project.catalog)

    return make
