"""A run: its zones and its key."""

import json
import os
import secrets
from datetime import date

import pytest

from cohortflow.errors import ConfigurationError, ProjectKeyError
from cohortflow.model import DatasetRef
from cohortflow.workflow.run import StepResult

KEY = "AIRFLOW_CONN_COHORTFLOW_KEY_DEV"


class TestKey:
    def test_without_one_nothing_starts(self, open_run):
        with pytest.raises(ProjectKeyError, match="The project key is missing") as caught:
            open_run(**{KEY: None}).key  # noqa: B018  # reading checks
        assert "openssl rand -hex 32" in caught.value.remedy
        assert "cohortflow_key_dev" in str(caught.value)

    @pytest.mark.parametrize("weak", ["", "ab" * 8, "00" * 32, "secret" * 8, "not hex or base64!" * 4])
    def test_a_weak_one_is_refused_and_not_shown(self, open_run, weak):
        with pytest.raises(ProjectKeyError) as caught:
            open_run(**{KEY: json.dumps({"conn_type": "generic", "password": weak})}).key  # noqa: B018
        assert "openssl rand -hex 32" in caught.value.remedy
        assert not weak or weak not in str(caught.value)

    def test_the_same_one_is_accepted_again(self, open_run):
        assert open_run("r1").key == open_run("r2").key

    def test_another_one_than_before_is_refused(self, open_run):
        open_run().key  # noqa: B018
        other = secrets.token_hex(32)
        with pytest.raises(ProjectKeyError, match="was made with project key") as caught:
            open_run(**{KEY: json.dumps({"conn_type": "generic", "password": other})}).key  # noqa: B018
        assert caught.value.remedy == "Give the dataset's key, or publish under another name."
        assert other not in str(caught.value)

    def test_each_environment_has_its_own(self, open_run):
        with pytest.raises(ProjectKeyError, match="cohortflow_key_prod"):
            open_run(environment="prod").key  # noqa: B018

    def test_its_record_in_the_lake_holds_no_secret(self, open_run):
        run = open_run()
        secret = run.deployment.connection("cohortflow_key_dev").password
        run.key  # noqa: B018
        recorded = b"".join(run.datasets.read(path) for path in run.datasets.list())
        assert run.key.fingerprint.encode() in recorded
        assert secret.encode() not in recorded
        assert secret not in repr(run)


class TestZones:
    def test_without_a_lake_the_variable_is_named(self, open_run):
        with pytest.raises(ConfigurationError, match="The variable 'cohortflow_lake' is not set") as caught:
            open_run(AIRFLOW_VAR_COHORTFLOW_LAKE=None).raw  # noqa: B018
        assert "AIRFLOW_VAR_COHORTFLOW_LAKE" in caught.value.remedy

    def test_patient_data_and_datasets_lie_apart(self, open_run, tmp_path):
        run = open_run()
        lake = tmp_path / "lake" / "dev"
        assert run.raw.uri == str(lake / "raw")
        assert run.work.uri.startswith(f"{lake}/work/diabetes_nightly/2026-11-01/")
        assert run.datasets.uri == str(lake / "datasets" / "diabetes_nightly")

    def test_runs_do_not_share_intermediates_but_a_retry_finds_its_own(self, open_run):
        uris = {
            open_run("r1").work.uri,
            open_run("r2").work.uri,
            open_run("r1", date(2026, 11, 2)).work.uri,
            open_run("r1", overrides={"min_age": 40}).work.uri,
        }
        assert len(uris) == 4
        assert open_run("r1").work.uri in uris

    def test_a_run_id_cannot_leave_the_zone(self, open_run, tmp_path):
        run = open_run("manual__2026-11-01T00:00:00+00:00/../../..")
        run.work.write("a", b"")
        assert os.listdir(tmp_path / "lake" / "dev") == ["work"]  # noqa: PTH208  # names only

    def test_changed_parameters_never_touch_the_studys_datasets(self, open_run):
        own, trial = open_run(), open_run(overrides={"min_age": 40})
        assert own.datasets.uri.endswith("/diabetes_nightly")
        assert trial.datasets.uri == f"{own.datasets.uri}~{trial.plan.variant}"


def test_results_of_steps_are_kept_for_the_release(open_run):
    run = open_run()
    table = DatasetRef("patient", "u", 3, "abc")
    run.save_result("transform", StepResult((table,), {"malformed": {}}), 1.23456)
    run.save_result("validate.patient", StepResult(facts={"passed": 2}), 0.5)
    results = open_run().load_results()
    assert list(results) == ["transform", "validate.patient"]
    assert results["transform"]["seconds"] == 1.235
    assert DatasetRef.from_dict(results["transform"]["datasets"][0]) == table
    assert results["validate.patient"]["passed"] == 2
