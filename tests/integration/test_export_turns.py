"""Runs that share a source: turns, windows, and workers that are really killed."""

import asyncio
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from export_runs import DAY, ONE_DAY, OTHER, name_profile, requests
from sqlalchemy.engine import make_url
from stack import ProcessGroup, start_postgres

from cohortflow.errors import LeaseLostError, SourceBusyError, StoreUnavailableError, TransientSourceError
from cohortflow.registry import open_registry
from cohortflow.sandbox import Fault, SandboxConfig, running_sandbox
from cohortflow.workflow import export_turn
from cohortflow.workflow.steps.extract import (
    advance_extraction,
    cancel_extraction,
    extract_bulk,
    plan_extraction,
)

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("own_state"), pytest.mark.timeout(120)]

WORKER = Path(__file__).with_name("extract_worker.py")
STUDY = "diabetes_nightly"


@pytest.fixture(scope="module")
def postgres():
    # Not in pytest's folder, which is closed to the user that PostgreSQL runs as.
    folder = Path(tempfile.mkdtemp(prefix="cohortflow-postgres-"))
    folder.chmod(0o711)
    with ProcessGroup(folder / "log") as group:
        yield start_postgres(group, folder / "server")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def site(folder_site):
    return folder_site


@pytest.fixture
def registry(site):
    return open_registry(site.deployment)


@pytest.fixture
def epic_site(patients, make_site, tmp_path):
    """A server that exports a Group once a day."""
    config = SandboxConfig(data=patients, export_seconds=0.2)
    with running_sandbox(config, persona="epic") as sandbox:
        site = make_site(sandbox, str(tmp_path / "lake"), tmp_path)
        name_profile(site, "epic")
        yield site


def start(site, study=STUDY, run_id="r", day=DAY):
    return subprocess.Popen(
        [sys.executable, str(WORKER), study, str(day), run_id],
        env={**os.environ, **site.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    return json.loads(output)


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.communicate()


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the awaited moment did not come"
        time.sleep(0.01)


class TestTurns:
    def test_two_processes_that_want_the_same_export_share_one(self, site):
        workers = [start(site, run_id=name) for name in "ab"]
        first, second = (finish(worker) for worker in workers)
        assert first == second
        assert requests(site) == ["kickoff", "end"]

    def test_studies_that_want_different_exports_of_a_group_take_turns(self, site, registry):
        site.sandbox.faults.add(Fault(kind="slow", on="file", times=2, seconds=1.0))
        workers = [start(site, study, run_id=study) for study in (STUDY, OTHER)]
        for worker in workers:
            finish(worker)
        assert requests(site) == ["kickoff", "end", "kickoff", "end"]
        assert registry.leases() == ()
        assert {(item.study, item.phase) for item in registry.exports()} == {
            (STUDY, "complete"),
            (OTHER, "complete"),
        }

    def test_they_take_turns_over_postgresql_too(self, site, postgres):
        url = make_url(postgres)
        connection = {
            "conn_type": "postgres",
            "host": url.host,
            "port": url.port,
            "schema": url.database,
            "login": url.username,
            "password": url.password,
        }
        site.environ["AIRFLOW_CONN_COHORTFLOW_REGISTRY"] = json.dumps(connection)
        studies = enumerate((STUDY, OTHER, STUDY))
        workers = [start(site, study, run_id=f"run-{number}") for number, study in studies]
        for worker in workers:
            finish(worker)
        assert requests(site) == ["kickoff", "end", "kickoff", "end"]
        registry = open_registry(site.deployment)
        assert registry.engine.dialect.name == "postgresql"
        assert registry.leases() == ()
        assert len(registry.watermarks()) == 2

    def test_who_does_not_want_to_wait_is_told_who_works(self, site, registry):
        run = dataclasses.replace(site.open_run(), wait=False)
        other = site.open_run(OTHER, run_id="other")
        turn = asyncio.run(advance_extraction(other))
        assert turn.reason == "server"
        with pytest.raises(
            SourceBusyError, match=r"wait until 20\d\d-.*'kidney_lab_registry' exports this group"
        ):
            extract_bulk(run)
        assert requests(site) == ["kickoff"]

    def test_a_worker_whose_lease_was_broken_stops(self, site, registry, monkeypatch):
        monkeypatch.setattr(export_turn, "_BEAT_SECONDS", 0.2)
        site.sandbox.faults.add(Fault(kind="slow", on="file", times=50, seconds=30.0))
        run = site.open_run()
        other = site.open_run(OTHER, run_id="other")
        subject = plan_extraction(run).subject

        async def work():
            task = asyncio.create_task(advance_extraction(run))
            while site.sandbox.log.count("file") == 0:
                done, _ = await asyncio.wait({task}, timeout=0.1)
                if done:
                    task = asyncio.create_task(advance_extraction(run))
            await asyncio.to_thread(registry.release, subject.key)
            assert await asyncio.to_thread(registry.acquire, subject, owner(other), 60)
            await task

        with pytest.raises(LeaseLostError, match="taken over"):
            asyncio.run(work())
        assert registry.lease(subject.key).owner == "other", "the new holder keeps it"


def owner(run):
    from cohortflow.registry import LeaseOwner

    return LeaseOwner(run.run_id, "another export", run.plan.name, run.run_id)


class TestKilledWorkers:
    def test_killed_after_the_kick_off_the_next_process_polls_the_same_export(self, site):
        """Case 2."""
        site.sandbox.faults.add(Fault(kind="too-many-requests", on="status", times=1, retry_after=60))
        worker = start(site)
        wait_until(lambda: site.sandbox.log.count("status") >= 1)
        kill(worker)
        began = time.monotonic()
        result = finish(start(site, run_id="another run"))
        assert sum(result["resources"].values()) > 0
        assert requests(site) == ["kickoff", "end"]
        assert time.monotonic() - began < 60, "it must not wait for the dead one's lease to end"

    def test_killed_during_the_download_nothing_is_fetched_twice_in_vain(self, site, registry):
        site.sandbox.faults.add(Fault(kind="slow", on="file", times=50, seconds=5.0))
        worker = start(site)
        wait_until(lambda: site.sandbox.log.count("file") >= 2)
        kill(worker)
        assert [lease.run_id for lease in registry.leases()] == ["r"]
        site.sandbox.faults.clear()
        finish(start(site))
        assert requests(site) == ["kickoff", "end"]
        assert registry.leases() == ()

    def test_another_export_of_the_group_waits_for_the_dead_ones_lease(self, site, registry):
        site.sandbox.faults.add(Fault(kind="too-many-requests", on="status", times=1, retry_after=60))
        worker = start(site)
        wait_until(lambda: site.sandbox.log.count("status") >= 1)
        kill(worker)
        other = site.open_run(OTHER, run_id="other")
        waiting = asyncio.run(advance_extraction(other))
        assert waiting.reason == "lease"
        assert waiting.until > datetime.now(UTC)
        assert requests(site) == ["kickoff"]

    def test_a_failed_run_leaves_the_export_to_whoever_wants_the_same(self, site, registry, monkeypatch):
        from cohortflow.lake import RawExport

        async def fail(*_arguments):
            raise StoreUnavailableError("the disk is full")

        with monkeypatch.context() as broken:
            broken.setattr(RawExport, "write_file", fail)
            with pytest.raises(StoreUnavailableError):
                extract_bulk(site.open_run(run_id="first"))
        assert asyncio.run(advance_extraction(site.open_run(OTHER, run_id="o"))).reason == "lease"
        extract_bulk(site.open_run(run_id="second"))
        assert requests(site) == ["kickoff", "end"]


class TestWindows:
    def test_a_group_that_was_exported_today_waits_for_the_windows_end(self, epic_site):
        """Case 3: one refusal, then not a single request until the window has ended."""
        site, registry = epic_site, open_registry(epic_site.deployment)
        extract_bulk(site.open_run())
        kicked_off = registry.exports()[0].kicked_off_at
        tomorrow = site.open_run(day=DAY + ONE_DAY, run_id="tomorrow")
        before = site.sandbox.log.count("kickoff")
        waiting = asyncio.run(advance_extraction(tomorrow))
        assert waiting.reason == "window"
        assert waiting.until - kicked_off == timedelta(days=1, seconds=60)
        assert registry.leases() == (), "others need not wait for the one that waits"
        again = asyncio.run(advance_extraction(tomorrow))
        assert again.until == waiting.until
        assert site.sandbox.log.count("kickoff") == before + 1
        with pytest.raises(SourceBusyError, match=waiting.until.strftime("%Y-%m-%d %H:%M:%S UTC")):
            extract_bulk(dataclasses.replace(tomorrow, wait=False))
        assert site.sandbox.log.count("kickoff") == before + 1
        site.sandbox.end_kickoff_windows()
        assert registry.resume(waiting.subject)
        extract_bulk(tomorrow)

    def test_the_servers_own_time_goes_first(self, site):
        site.sandbox.faults.add(Fault(kind="too-many-requests", on="kickoff", retry_after=7200))
        before = datetime.now(UTC)
        waiting = asyncio.run(advance_extraction(site.open_run()))
        assert waiting.reason == "window"
        assert timedelta(hours=2) <= waiting.until - before < timedelta(hours=2, seconds=30)

    def test_the_command_line_waits_the_window_out(self, site):
        name_profile(site, "generic", kick_off_attempts=1, kick_off_window_seconds=2.0)
        site.sandbox.faults.add(Fault(kind="too-recent", on="kickoff"))
        extract_bulk(site.open_run())
        assert requests(site) == ["kickoff", "kickoff", "end"]

    def test_a_server_that_refuses_for_ever_is_given_up(self, site):
        site.sandbox.faults.add(Fault(kind="too-many-requests", on="kickoff", retry_after=7200))
        long_ago = datetime.now(UTC) - timedelta(days=31)
        with pytest.raises(TransientSourceError):
            asyncio.run(advance_extraction(site.open_run(), waiting_since=long_ago))


class TestCancel:
    def test_a_cancelled_export_is_removed_from_the_server_and_started_anew(self, site, registry):
        run = site.open_run()
        assert asyncio.run(advance_extraction(run)).reason == "server"
        asyncio.run(cancel_extraction(run))
        assert requests(site) == ["kickoff", "end"]
        assert [item.phase for item in registry.exports()] == ["cancelled"]
        assert registry.leases() == ()
        extract_bulk(run)
        assert requests(site) == ["kickoff", "end", "kickoff", "end"]

    def test_another_runs_export_is_left_alone(self, site):
        assert asyncio.run(advance_extraction(site.open_run(run_id="first"))).reason == "server"
        asyncio.run(cancel_extraction(site.open_run(run_id="second")))
        assert requests(site) == ["kickoff"]


class TestModes:
    @pytest.mark.parametrize("mode", ["crawl", "auto"])
    def test_other_ways_bring_the_same_patients(self, site, registry, mode):
        run = site.open_run()
        bulk = extract_bulk(run).facts
        source = run.plan.spec.source.model_copy(update={"mode": mode})
        spec = run.plan.spec.model_copy(update={"source": source})
        other = dataclasses.replace(run, plan=dataclasses.replace(run.plan, spec=spec))
        found = extract_bulk(other).facts
        assert found["resources"]["Patient"] == bulk["resources"]["Patient"]
        site.sandbox.log.clear()
        assert extract_bulk(other).facts == found
        assert site.sandbox.log.count("search") + site.sandbox.log.count("kickoff") == 0
        assert {item.phase for item in registry.exports()} == {"complete"}
        assert registry.leases() == ()
