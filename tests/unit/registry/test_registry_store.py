"""The registry on both of its databases: leases, chains, windows, several processes at once."""

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from registry_worker import SUBJECT, owner_of
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from stack import ProcessGroup, start_postgres

from cohortflow.errors import LeaseLostError, RegistryError
from cohortflow.registry import ExportRecord, LeaseOwner, Registry, Subject
from cohortflow.registry.engine import make_engine
from cohortflow.registry.migrate import HEAD, VERSION_TABLE, current_revision, migrate

WORKER = Path(__file__).with_name("registry_worker.py")
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="session")
def postgres():
    # Not in pytest's folder, which is closed to the user that PostgreSQL runs as.
    folder = Path(tempfile.mkdtemp(prefix="cohortflow-postgres-"))
    folder.chmod(0o711)
    with ProcessGroup(folder / "log") as group:
        yield start_postgres(group, folder / "server").replace("+psycopg2", "+psycopg")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def url(request, tmp_path):
    """An empty database of either kind."""
    if request.param == "sqlite":
        return make_url(f"sqlite:///{tmp_path}/state/registry.db")
    server = make_url(request.getfixturevalue("postgres"))
    name = f"r{os.getpid()}_{time.monotonic_ns()}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.set(database=name)


class FakeClock:
    def __init__(self):
        self.now = NOON

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def registry(url, clock):
    return Registry.at(url, clock)


def text_of(url):
    return url.render_as_string(hide_password=False)


def start(action, url, name, folder):
    command = [sys.executable, str(WORKER), action, text_of(url), name, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def export(folder="fhir/2026-11-01/x", **changes):
    values = {
        "zone": "s3://lake/raw",
        "folder": folder,
        "chain": "c",
        "kind": "full",
        "since": "",
        "base": "",
        "conn_id": "fhir",
        "subject": SUBJECT,
        "request_digest": "d",
        "interval_start": NOON,
        "interval_end": NOON + DAY,
        "phase": "complete",
        "transaction_time": "2026-11-02T01:00:00Z",
        "kicked_off_at": NOON,
        "study": "s",
        "run_id": "r",
        "resources": 3_000_000_000,
        "bytes": 10**13,
    }
    return ExportRecord(**values | changes)


class TestLeases:
    def test_one_holder_at_a_time(self, registry):
        first = registry.acquire(SUBJECT, owner_of("a"), 60)
        assert first is not None
        assert registry.acquire(SUBJECT, owner_of("b"), 60) is None
        assert registry.lease(SUBJECT.key) == first
        assert registry.acquire(Subject.of(SUBJECT.server, "client", "group", "other"), owner_of("b"), 60)
        assert registry.release(SUBJECT.key, first.token)
        assert registry.acquire(SUBJECT, owner_of("b"), 60) is not None

    def test_it_ends_when_nobody_renews_it(self, registry, clock):
        first = registry.acquire(SUBJECT, owner_of("a"), 60)
        clock.now += timedelta(seconds=50)
        renewed = registry.renew(first, 60)
        assert renewed.expires_at == clock.now + timedelta(seconds=60)
        clock.now += timedelta(seconds=59)
        assert registry.acquire(SUBJECT, owner_of("b"), 60) is None
        clock.now += timedelta(seconds=1)
        assert registry.acquire(SUBJECT, owner_of("b"), 60) is not None

    def test_who_comes_back_too_late_notices(self, registry, clock):
        first = registry.acquire(SUBJECT, owner_of("a"), 60)
        clock.now += timedelta(seconds=60)
        second = registry.acquire(SUBJECT, owner_of("b"), 60)
        with pytest.raises(LeaseLostError, match="taken over"):
            registry.renew(first, 60)
        assert not registry.release(SUBJECT.key, first.token)
        assert registry.lease(SUBJECT.key) == second

    def test_a_late_holder_whom_nobody_replaced_goes_on(self, registry, clock):
        first = registry.acquire(SUBJECT, owner_of("a"), 60)
        clock.now += timedelta(seconds=100)
        assert registry.renew(first, 60).token == first.token

    def test_the_same_run_takes_over_at_once_and_ends_its_predecessor(self, registry, clock):
        first = registry.acquire(SUBJECT, owner_of("a"), 60)
        clock.now += timedelta(seconds=1)
        second = registry.acquire(SUBJECT, owner_of("a"), 60)
        assert second.token != first.token
        assert second.acquired_at == first.acquired_at
        with pytest.raises(LeaseLostError):
            registry.renew(first, 60)

    def test_what_is_parked_goes_on_for_the_same_export_only(self, registry):
        lease = registry.acquire(SUBJECT, owner_of("a"), 60)
        registry.renew(dataclasses.replace(lease, machine="", process=0, parked=True), 900)
        assert registry.acquire(SUBJECT, owner_of("b"), 60) is None
        same = dataclasses.replace(owner_of("b"), export=owner_of("a").export)
        taken = registry.acquire(SUBJECT, same, 60)
        assert taken is not None
        assert not taken.parked

    def test_another_machines_process_is_never_thought_dead(self, registry):
        registry.acquire(SUBJECT, LeaseOwner("a", "e", "s", "r", "elsewhere", 2**22 + 1), 60)
        assert registry.acquire(SUBJECT, LeaseOwner("b", "e", "s", "r"), 60) is None

    def test_an_operator_breaks_one_without_its_token(self, registry):
        lease = registry.acquire(SUBJECT, owner_of("a"), 60)
        assert registry.release(SUBJECT.key)
        with pytest.raises(LeaseLostError):
            registry.renew(lease, 60)


class TestProcesses:
    def test_processes_take_turns_and_never_meet(self, url, tmp_path):
        """They also race to make the database."""
        workers = [start("turns", url, f"w{number}", tmp_path) for number in range(3)]
        output = [worker.communicate(timeout=120)[0] for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * 3, output
        turns = Counter((tmp_path / "turns").read_text().split())
        assert turns == {f"w{number}": 8 for number in range(3)}
        assert Registry.at(url).leases() == ()

    def test_a_killed_process_is_succeeded_at_once_by_the_same_export_only(self, url, tmp_path):
        registry = Registry.at(url)
        worker = start("hold", url, "a", tmp_path)
        while not (tmp_path / "held").exists():
            assert worker.poll() is None, worker.communicate()[0]
            time.sleep(0.02)
        same = dataclasses.replace(owner_of("b"), export=owner_of("a").export)
        assert registry.acquire(SUBJECT, same, 60) is None, "it lives"
        worker.kill()
        worker.communicate()
        assert registry.acquire(SUBJECT, owner_of("c"), 60) is None, "another export waits for the end"
        assert registry.acquire(SUBJECT, same, 60) is not None

    def test_threads_of_one_process_may_share_it(self, registry):
        def compete(number):
            return registry.acquire(SUBJECT, owner_of(str(number)), 60) is not None

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(compete, range(24))) == 1


class TestExports:
    def test_what_was_saved_is_read(self, registry, clock):
        saved = export()
        registry.save(saved)
        assert registry.export(saved.id) == saved.evolve(updated_at=clock.now)
        assert registry.export(saved.id[:8]) == registry.export(saved.id)
        assert registry.export("nothing") is None

    def test_an_ambiguous_beginning_names_none(self, registry):
        registry.save(export("a"))
        registry.save(export("b"))
        assert registry.export("") is None
        assert registry.export("%") is None

    def test_an_export_of_the_same_folder_replaces_the_record(self, registry):
        registry.save(export(phase="running"))
        registry.save(export(phase="complete", resources=7))
        assert [(item.phase, item.resources) for item in registry.exports()] == [("complete", 7)]

    def test_a_chain_is_ordered_by_transaction_time_whatever_its_zone_and_form(self, registry):
        times = ["2026-11-02T01:00:00Z", "2026-11-02T00:30:00.123456+00:00", "2026-11-02T02:00:00+02:00"]
        for number, moment in enumerate(times):
            registry.save(export(f"f{number}", transaction_time=moment))
        registry.save(export("other", chain="d", transaction_time="2026-11-03T00:00:00Z"))
        registry.save(export("elsewhere", zone="s3://lake/other"))
        registry.save(export("unfinished", phase="running", transaction_time=""))
        assert [item.folder for item in registry.chain("c", "s3://lake/raw")] == ["f2", "f1", "f0"]

    def test_the_watermark_is_the_latest_of_each_chain(self, registry):
        registry.save(export("a", transaction_time="2026-11-02T00:00:00Z"))
        registry.save(export("b", transaction_time="2026-11-01T00:00:00Z"))
        registry.save(export("c", chain="d", transaction_time="2026-10-01T00:00:00Z"))
        assert [item.folder for item in registry.watermarks()] == ["a", "c"]

    def test_the_last_kick_off_counts_however_it_ended(self, registry):
        assert registry.last_kick_off(SUBJECT.key) is None
        registry.save(export("a", kicked_off_at=NOON))
        registry.save(export("b", kicked_off_at=NOON + DAY, phase="failed"))
        assert registry.last_kick_off(SUBJECT.key) == NOON + DAY

    def test_a_group_appears_as_a_digest(self, registry):
        subject = Subject.of("https://ehr.example.org/fhir", "client", "group", "oncology-2026")
        registry.save(export(subject=subject))
        registry.acquire(subject, owner_of("a"), 60)
        registry.postpone(subject, NOON + DAY, "too recently")
        seen = repr((registry.exports(), registry.leases(), registry.endpoints()))
        assert "oncology" not in seen
        assert subject.group_digest in seen


class TestWindows:
    def test_a_window_ends_by_itself_or_by_an_operator(self, registry, clock):
        assert registry.postponed(SUBJECT.key) is None
        registry.postpone(SUBJECT, NOON + DAY, "too recently")
        registry.postpone(SUBJECT, NOON + 2 * DAY, "still")
        assert registry.postponed(SUBJECT.key).reason == "still"
        clock.now += 2 * DAY
        assert registry.postponed(SUBJECT.key) is None
        registry.postpone(SUBJECT, clock.now + DAY, "again")
        assert registry.resume(SUBJECT.key)
        assert registry.postponed(SUBJECT.key) is None


class TestSchema:
    def test_migrations_make_what_the_code_expects(self, url):
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        from cohortflow.registry.tables import METADATA

        engine = make_engine(url)
        assert migrate(engine, "here") == ("", HEAD)
        assert migrate(engine, "here") == (HEAD, HEAD)
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
            )
            assert compare_metadata(context, METADATA) == []

    def test_the_head_is_the_newest_migration(self):
        from alembic.script import ScriptDirectory

        from cohortflow.registry import migrations

        assert ScriptDirectory(Path(migrations.__file__).parent).get_current_head() == HEAD

    def test_an_older_version_refuses_a_newer_schema(self, url):
        Registry.at(url)
        engine = make_engine(url)
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
        with pytest.raises(RegistryError, match=r"revision 9999.*knows up to"):
            Registry.at(url)
        assert current_revision(engine, "here") == "9999"

    def test_it_leaves_airflows_own_tables_alone(self, url):
        engine = make_engine(url)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
            connection.execute(text("INSERT INTO alembic_version VALUES ('airflows')"))
        Registry.at(url)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [
                "airflows"
            ]


def test_the_file_is_for_its_owner_alone(tmp_path):
    Registry.at(make_url(f"sqlite:///{tmp_path}/state/registry.db")).now()
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()}
    assert modes["registry.db"] == 0o600
    assert set(modes.values()) == {0o600}
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_database_that_cannot_be_used_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError, match="cannot be used"):
        Registry.at(make_url(f"sqlite:///{tmp_path}/file/registry.db"))
    with pytest.raises(RegistryError, match="cannot be used") as caught:
        Registry.at(make_url("postgresql+psycopg://user:s3cr3t@127.0.0.1:9/none"))
    assert "s3cr3t" not in str(caught.value) + repr(caught.value.__cause__)
