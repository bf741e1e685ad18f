"""Operators: what is retried, what is not, and what they hand on."""

import dataclasses
import json
import secrets
import traceback
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from cohortflow.airflow import operators
from cohortflow.airflow.deployment import AirflowDeployment, FixedDeployment
from cohortflow.airflow.operators import ExtractFhirBulkOperator, RedactDatasetOperator, StudyOperator
from cohortflow.airflow.run import open_run
from cohortflow.errors import (
    AuthorizationError,
    CommitConflictError,
    ConnectionNotFoundError,
    ExportExpiredError,
    ExportRejectedError,
    IncompleteDownloadError,
    PolicyError,
    ProjectKeyError,
    StaleWriteError,
    StoreUnavailableError,
    StudyError,
    TransientSourceError,
    ValidationFailedError,
)
from cohortflow.model import Connection, DatasetRef
from cohortflow.workflow.export_turn import Waiting
from cohortflow.workflow.plan import StepKind
from cohortflow.workflow.run import StepResult
from cohortflow.workflow.runner import StepFailedError
from cohortflow.workflow.steps import extract

MARKER = "Wilhelmina-Testperson"
UNTIL = datetime(2026, 11, 2, 10, tzinfo=UTC)


def waiting(reason, token=""):
    return Waiting(reason, UNTIL, "a reason", subject="s", prefix="p/x", token=token)


@pytest.fixture
def context(monkeypatch, tmp_path, project_copy):
    """What Airflow hands to a task of a nightly run."""
    monkeypatch.setenv("AIRFLOW_VAR_COHORTFLOW_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv(
        "AIRFLOW_CONN_COHORTFLOW_KEY_DEV",
        json.dumps({"conn_type": "generic", "password": secrets.token_hex(32)}),
    )
    end = datetime(2026, 11, 2, 2, tzinfo=UTC)
    dag_run = SimpleNamespace(
        data_interval_start=end - timedelta(days=1),
        data_interval_end=end,
        run_after=end,
        triggering_user_name=None,
    )
    task = SimpleNamespace(start_date=end)
    return {"params": {}, "run_id": "scheduled__1", "dag_run": dag_run, "ti": task}


@pytest.fixture
def redact():
    return RedactDatasetOperator(task_id="redact", study="diabetes_nightly", view="patient")


@pytest.mark.parametrize(
    "kind",
    [
        AuthorizationError,
        ExportRejectedError,
        PolicyError,
        ProjectKeyError,
        StaleWriteError,
        StudyError,
        ValidationFailedError,
    ],
)
def test_a_failure_that_another_try_does_not_mend_is_not_retried(monkeypatch, redact, context, kind):
    def fail(_run, _step):
        raise kind("wrong", remedy="mend it", place="here")

    monkeypatch.setattr(operators, "run_step", fail)
    with pytest.raises(AirflowFailException) as caught:
        redact.execute(context)
    assert str(caught.value) == "here: wrong\n  -> mend it"


@pytest.mark.parametrize(
    "kind",
    [
        CommitConflictError,
        IncompleteDownloadError,
        StepFailedError,
        StoreUnavailableError,
        TransientSourceError,
    ],
)
def test_other_failures_are_retried(monkeypatch, redact, context, kind):
    def fail(_run, _step):
        raise kind("wrong")

    monkeypatch.setattr(operators, "run_step", fail)
    with pytest.raises(kind):
        redact.execute(context)


def test_no_value_reaches_airflow_by_an_error(monkeypatch, redact, context):
    from types import MappingProxyType

    from cohortflow.workflow import steps
    from cohortflow.workflow.plan import StepKind

    def fail(_run, _view):
        raise RuntimeError(MARKER)

    monkeypatch.setattr(steps, "STEPS", MappingProxyType({StepKind.REDACT: fail}))
    with pytest.raises(StepFailedError) as caught:
        redact.execute(context)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)
    assert MARKER not in shown
    assert "redact.patient failed with builtins.RuntimeError" in shown


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"min_age": 400}, "Parameter 'min_age': the value must be at most 120."),
        ({"mn_age": 40}, "no parameter 'mn_age'.\n  -> Did you mean 'min_age'"),
        ({"lab_codes": "hba1"}, "No entry 'hba1' in the catalog's valuesets."),
    ],
)
def test_a_wrong_parameter_of_the_run_fails_at_once(redact, context, params, message):
    with pytest.raises(AirflowFailException, match=message):
        redact.execute(context | {"params": params})


def test_the_run_is_the_one_of_the_context(monkeypatch, redact, context):
    runs = []

    def note(run, step):
        runs.append(run)
        assert step.id == "redact.patient"
        return StepResult((DatasetRef("patient", "u", 1, "h"),), {"policy": "safe_harbor"})

    monkeypatch.setattr(operators, "run_step", note)
    returned = redact.execute(context | {"params": {"min_age": 40, "fresh_export": True}})
    (run,) = runs
    assert run.plan.parameters["min_age"] == 40
    assert run.plan.variant
    assert run.fresh_export
    assert run.run_id == "scheduled__1"
    assert run.interval.key == "2026-11-01", "a run at 02:00 covers the whole day before"
    assert json.loads(json.dumps(returned))["datasets"][0]["rows"] == 1


def test_every_step_has_one_operator():
    kinds = [operator.kind for operator in StudyOperator.__subclasses__()]
    assert sorted(kinds) == sorted(StepKind)


class TestExtract:
    @pytest.fixture
    def operator(self, monkeypatch):
        monkeypatch.setattr(extract, "describe_extraction", lambda _run: StepResult(facts={"bytes": 1}))
        return ExtractFhirBulkOperator(task_id="extract", study="diabetes_nightly")

    def answers(self, monkeypatch, *answers):
        """Makes the turns' results: ``None`` for done, what to wait for, or an error."""
        calls, seen = iter(answers), []

        async def advance(_run, *, waiting_since):
            seen.append(waiting_since)
            answer = next(calls)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(extract, "advance_extraction", advance)
        return seen

    def test_a_wait_for_the_server_is_handed_to_the_triggerer(self, monkeypatch, operator, context, tmp_path):
        self.answers(monkeypatch, waiting("server", token="t"))
        with pytest.raises(TaskDeferred) as caught:
            operator.execute(context)
        assert caught.value.method_name == "resume"
        path, arguments = caught.value.trigger.serialize()
        assert path == "cohortflow.airflow.triggers.BulkExportTrigger"
        assert arguments == {
            "conn_id": "fhir_default",
            "raw_uri": f"{tmp_path}/lake/dev/raw",
            "prefix": "p/x",
            "subject": "s",
            "token": "t",
            "cancel": True,
            "event": {},
        }

    @pytest.mark.parametrize("reason", ["lease", "window"])
    def test_a_wait_for_a_turn_asks_the_registry_only(self, monkeypatch, operator, context, reason):
        self.answers(monkeypatch, waiting(reason))
        with pytest.raises(TaskDeferred) as caught:
            operator.execute(context)
        path, arguments = caught.value.trigger.serialize()
        assert path == "cohortflow.airflow.triggers.ExportTurnTrigger"
        assert (arguments["reason"], arguments["until"], arguments["subject"]) == (
            reason,
            "2026-11-02T10:00:00+00:00",
            "s",
        )
        assert len(arguments["export"]) == 32

    def test_the_first_refusal_is_remembered_over_all_waits(self, monkeypatch, operator, context):
        seen = self.answers(monkeypatch, waiting("window"), waiting("lease"), waiting("window"))
        event = {}
        for _ in range(3):
            with pytest.raises(TaskDeferred) as caught:
                operator.resume(context, event)
            event = caught.value.trigger.event
        first = datetime.fromisoformat(event["waiting_since"])
        assert seen == [None, first, first]

    def test_what_is_ready_is_downloaded_and_described(self, monkeypatch, operator, context):
        self.answers(monkeypatch, None)
        assert operator.resume(context, {}) == {"datasets": [], "bytes": 1}

    def test_an_expired_export_is_started_anew_once(self, monkeypatch, operator, context):
        self.answers(monkeypatch, ExportExpiredError("gone"), waiting("server"))
        with pytest.raises(TaskDeferred) as caught:
            operator.resume(context, {})
        assert caught.value.trigger.event == {"restarts": 1}
        self.answers(monkeypatch, ExportExpiredError("gone"))
        with pytest.raises(ExportExpiredError):
            operator.resume(context, {"restarts": 1})

    @pytest.mark.parametrize(("choice", "cancelled"), [("user", 0), ("always", 1), ("never", 0)])
    def test_a_worker_that_is_told_to_stop_cancels_only_where_the_study_says_so(
        self, monkeypatch, operator, context, choice, cancelled
    ):
        done = []

        async def cancel(run):
            done.append(run)

        def open_chosen(study, context):
            run = open_run(study, context)
            source = run.plan.spec.source.model_copy(update={"cancel_on_kill": choice})
            spec = run.plan.spec.model_copy(update={"source": source})
            return dataclasses.replace(run, plan=dataclasses.replace(run.plan, spec=spec))

        monkeypatch.setattr(operators, "open_run", open_chosen)
        monkeypatch.setattr(extract, "cancel_extraction", cancel)
        operator.on_kill()  # before anything was begun
        self.answers(monkeypatch, None)
        operator.resume(context, {})
        operator.on_kill()
        assert len(done) == cancelled


class TestDeployment:
    def test_connections_and_variables_come_from_airflow(self, monkeypatch):
        monkeypatch.setenv(
            "AIRFLOW_CONN_EHR",
            json.dumps({"conn_type": "fhir", "host": "h", "password": "s3cr3t", "extra": {"a": 1}}),
        )
        monkeypatch.setenv("AIRFLOW_VAR_COHORTFLOW_LAKE", "s3://lake")
        found = AirflowDeployment().connection("ehr")
        assert (found.host, found.password, found.extra) == ("h", "s3cr3t", {"a": 1})
        assert "s3cr3t" not in repr(found)
        assert AirflowDeployment().variable("cohortflow_lake") == "s3://lake"

    def test_a_prepared_one_has_what_was_looked_up_and_nothing_else(self):
        deployment = FixedDeployment({"ehr": Connection("ehr", "fhir", password="s3cr3t")})
        assert deployment.connection("ehr").password == "s3cr3t"
        assert deployment.variable("cohortflow_lake") is None
        assert "s3cr3t" not in repr(deployment)
        with pytest.raises(ConnectionNotFoundError, match="no connection 'other'") as caught:
            deployment.connection("other")
        assert "AIRFLOW_CONN_OTHER" in caught.value.remedy
