"""Triggers: what they hold, and when they fire."""

import asyncio
import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest

from cohortflow import connectors
from cohortflow.airflow import triggers
from cohortflow.airflow.triggers import BulkExportTrigger, ExportTurnTrigger
from cohortflow.connectors import InProgress
from cohortflow.errors import (
    ConnectionNotFoundError,
    ExportExpiredError,
    StoreUnavailableError,
    TransientSourceError,
)
from cohortflow.model import Connection, EnvDeployment
from cohortflow.registry import LeaseOwner, Subject, open_registry

PAUSE = 5.0  # before a worker looks at what the triggerer could not do


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
            await real_sleep(0.1)

        real_sleep = asyncio.sleep
        monkeypatch.setenv("COHORTFLOW_STATE", str(tmp_path))
        monkeypatch.setattr(triggers, "_look_up", look_up)
        monkeypatch.setattr(triggers.asyncio, "sleep", sleep)
        until = datetime.now(UTC) + timedelta(seconds=2)  # the first look makes the registry

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
