"""Operators: what is retried, what is not, and what they hand on."""

import asyncio
import dataclasses
import json
import secrets
import traceback
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from cohortflow import connectors
from cohortflow.airflow import operators, triggers
from cohortflow.airflow.deployment import AirflowDeployment, FixedDeployment
from cohortflow.airflow.operators import ExtractFhirBulkOperator, RedactDatasetOperator, StudyOperator
from cohortflow.airflow.run import open_run
from cohortflow.airflow.triggers import BulkExportTrigger, ExportTurnTrigger
from cohortflow.connectors import InProgress
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
from cohortflow.model import Connection, DatasetRef, EnvDeployment
from cohortflow.registry import LeaseOwner, Subject, open_registry
from cohortflow.workflow.export_turn import Waiting
from cohortflow.workflow.plan import StepKind
from cohortflow.workflow.run import StepResult
from cohortflow.workflow.runner import StepFailedError
from cohortflow.workflow.steps import extract

MARKER = "Wilhelmina-Testperson"
UNTIL = datetime(2026, 11, 2, 10, tzinfo=UTC)
PAUSE = 5.0  # before a worker looks at what the triggerer could not do


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


class TestTrigger:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: BulkExportTrigger("ehr", "s3://lake/raw", "a/b", "s", "t", event={"restarts": 1}),
            lambda: ExportTurnTrigger("window", "2026-11-02T10:00:00+00:00", "s", {"restarts": 1}),
        ],
    )
    def test_it_survives_the_database(self, make):
        from importlib import import_module

        trigger = make()
        path, arguments = json.loads(json.dumps(trigger.serialize()))
        module, _, name = path.rpartition(".")
        restored = getattr(import_module(module), name)(**arguments)
        assert restored.serialize() == trigger.serialize()

    def test_it_carries_no_secret_and_no_url_of_the_export(self):
        _, arguments = BulkExportTrigger("ehr", "s3://lake/raw", "a/b").serialize()
        assert set(arguments) == {"conn_id", "raw_uri", "prefix", "subject", "token", "cancel", "event"}

    @pytest.mark.parametrize(
        ("answers", "waits"),
        [
            pytest.param([None], [], id="ready"),
            pytest.param([InProgress("50%", 7.0), InProgress("", 11.0), None], [7.0, 11.0], id="busy"),
            pytest.param([InProgress("", 7.0), ExportExpiredError("gone")], [7.0, PAUSE], id="expired"),
            pytest.param([TransientSourceError("busy")], [PAUSE], id="unreachable"),
            pytest.param([StoreUnavailableError("down")], [PAUSE], id="lake down"),
        ],
    )
    def test_it_waits_as_long_as_the_server_asks_and_then_wakes_a_worker(
        self, monkeypatch, tmp_path, answers, waits
    ):
        connections = {"ehr": Connection("ehr", "fhir", host="http://127.0.0.1:9/fhir")}
        calls, slept = iter(answers), []

        async def look_up(conn_id):
            return connections.get(conn_id)

        async def poll(_bulk, export):
            assert export.uri("a") == f"{tmp_path}/p/x/a"
            answer = next(calls)
            if isinstance(answer, Exception):
                raise answer
            return answer

        async def sleep(seconds):
            slept.append(seconds)

        async def keep(_trigger, _registry, _seconds):
            return True

        monkeypatch.setattr(triggers, "_look_up", look_up)
        monkeypatch.setattr(connectors, "poll_once", poll)
        monkeypatch.setattr(triggers.asyncio, "sleep", sleep)
        monkeypatch.setattr(BulkExportTrigger, "_keep_lease", keep)

        async def collect():
            trigger = BulkExportTrigger("ehr", str(tmp_path), "p/x", "s", "t", event={"restarts": 1})
            return [event.payload async for event in trigger.run()]

        assert asyncio.run(collect()) == [{"restarts": 1}]
        assert slept == waits

    @pytest.mark.parametrize(
        ("cancel", "token", "kept"), [(True, "", False), (True, "x", True), (False, "", True)]
    )
    def test_a_stopped_task_cancels_its_own_export_only(self, monkeypatch, tmp_path, cancel, token, kept):
        connections = {"ehr": Connection("ehr", "fhir", host="http://127.0.0.1:9/fhir")}
        subject = Subject("http://127.0.0.1:9/fhir", "c")
        registry = open_registry(EnvDeployment({}), {"COHORTFLOW_STATE": str(tmp_path)})
        lease = registry.acquire(subject, LeaseOwner("o", "e", "study", "r"), 60)
        asked = []

        async def look_up(conn_id):
            return connections.get(conn_id)

        async def cancel_export(_bulk, export):
            asked.append(export.prefix)

        monkeypatch.setenv("COHORTFLOW_STATE", str(tmp_path))
        monkeypatch.setattr(triggers, "_look_up", look_up)
        monkeypatch.setattr(connectors, "cancel_export", cancel_export)
        trigger = BulkExportTrigger(
            "ehr", str(tmp_path), "p/x", subject.key, token or lease.token, cancel=cancel
        )
        asyncio.run(trigger.on_kill())
        assert asked == ([] if kept else ["p/x"])
        assert (registry.lease(subject.key) is not None) is kept

    @pytest.mark.parametrize("reason", ["lease", "window"])
    def test_a_turn_comes_when_the_registry_says_so(self, monkeypatch, tmp_path, reason):
        subject = Subject("http://127.0.0.1:9/fhir", "c")
        registry = open_registry(EnvDeployment({}), {"COHORTFLOW_STATE": str(tmp_path)})
        until = datetime.now(UTC) + timedelta(hours=20)
        lease = registry.acquire(subject, LeaseOwner("o", "e", "study", "r"), 60)
        registry.postpone(subject, until, "too recently")
        looks = []

        async def look_up(_conn_id):
            return None

        async def sleep(_seconds):
            looks.append(1)
            if len(looks) == 3:
                registry.release(subject.key, lease.token)
                registry.resume(subject.key)

        monkeypatch.setenv("COHORTFLOW_STATE", str(tmp_path))
        monkeypatch.setattr(triggers, "_look_up", look_up)
        monkeypatch.setattr(triggers.asyncio, "sleep", sleep)

        async def collect():
            trigger = ExportTurnTrigger(reason, until.isoformat(), subject.key, {"restarts": 1})
            return [event.payload async for event in trigger.run()]

        assert asyncio.run(collect()) == [{"restarts": 1}]
        assert len(looks) == 3

    @pytest.mark.parametrize(("export", "turns"), [("mine", [True]), ("another", [])])
    def test_an_export_that_nobody_works_on_wakes_only_who_wants_it(
        self, monkeypatch, tmp_path, export, turns
    ):
        subject = Subject("http://127.0.0.1:9/fhir", "c")
        registry = open_registry(EnvDeployment({}), {"COHORTFLOW_STATE": str(tmp_path)})
        lease = registry.acquire(subject, LeaseOwner("o", "mine", "study", "r"), 60)
        registry.renew(dataclasses.replace(lease, parked=True), 900)
        looks = []

        async def look_up(_conn_id):
            return None

        async def sleep(_seconds):
            looks.append(1)
            if len(looks) == 3:
                registry.release(subject.key)

        monkeypatch.setenv("COHORTFLOW_STATE", str(tmp_path))
        monkeypatch.setattr(triggers, "_look_up", look_up)
        monkeypatch.setattr(triggers.asyncio, "sleep", sleep)

        async def collect():
            until = datetime.now(UTC) + timedelta(hours=1)
            trigger = ExportTurnTrigger("lease", until.isoformat(), subject.key, export=export)
            return [True async for _ in trigger.run() if len(looks) == 1]

        assert asyncio.run(collect()) == turns

    def test_a_window_that_this_registry_does_not_know_is_waited_out(self, monkeypatch, tmp_path):
        looks = []

        async def look_up(_conn_id):
            return None

        async def sleep(_seconds):
            looks.append(1)
            await real_sleep(0.05)

        real_sleep = asyncio.sleep
        monkeypatch.setenv("COHORTFLOW_STATE", str(tmp_path))
        monkeypatch.setattr(triggers, "_look_up", look_up)
        monkeypatch.setattr(triggers.asyncio, "sleep", sleep)
        until = datetime.now(UTC) + timedelta(seconds=0.5)

        async def collect():
            trigger = ExportTurnTrigger("window", until.isoformat(), "unknown")
            return [event.payload async for event in trigger.run()]

        assert asyncio.run(collect()) == [{}]
        assert datetime.now(UTC) >= until
        assert len(looks) > 1

    def test_a_connection_that_the_triggerer_lacks_is_an_error(self, monkeypatch, tmp_path):
        async def look_up(_conn_id):
            return None

        monkeypatch.setattr(triggers, "_look_up", look_up)

        async def collect():
            return [event async for event in BulkExportTrigger("ehr", str(tmp_path), "p/x").run()]

        with pytest.raises(ConnectionNotFoundError, match="no connection 'ehr'"):
            asyncio.run(collect())


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
