"""cohortflow registry: what an operator sees and may do."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from cohortflow.cli.main import run
from cohortflow.model import EnvDeployment
from cohortflow.registry import ExportRecord, LeaseOwner, Subject, name_machine, open_registry

SUBJECT = Subject.of("https://ehr.example.org/fhir", "client", "group", "g")
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
WORKER = LeaseOwner("o", "e", "diabetes", "nightly-1", name_machine(), os.getpid())


@pytest.fixture(autouse=True)
def registry(tmp_path, monkeypatch):
    monkeypatch.setenv("COHORTFLOW_STATE", str(tmp_path))
    monkeypatch.delenv("AIRFLOW_CONN_COHORTFLOW_REGISTRY", raising=False)
    return open_registry(EnvDeployment())


def save(registry, folder, **changes):
    values = {
        "zone": "s3://lake/raw",
        "chain": "c",
        "kind": "full",
        "since": "",
        "base": "",
        "conn_id": "fhir_default",
        "subject": SUBJECT,
        "request_digest": "d",
        "interval_start": NOON,
        "interval_end": NOON + timedelta(days=1),
        "phase": "complete",
        "transaction_time": "2026-11-02T01:00:00Z",
        "kicked_off_at": NOON,
    }
    record = ExportRecord(folder=folder, **values | changes)
    registry.save(record)
    return record


def call(capsys, *arguments):
    code = run(["registry", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_exports_and_watermarks_are_listed(registry, capsys):
    save(registry, "a", transaction_time="2026-11-01T00:00:00Z")
    latest = save(registry, "b")
    save(registry, "c", phase="running", transaction_time="")
    _, text, _ = call(capsys, "list", "--json")
    assert [row["folder"] for row in json.loads(text)] == ["c", "b", "a"]
    _, text, _ = call(capsys, "list", "--watermarks", "--json")
    assert [row["id"] for row in json.loads(text)] == [latest.id]
    assert call(capsys, "list", "--limit", "1", "--json")[1].count('"id"') == 1
    code, text, _ = call(capsys, "list")
    assert code == 0
    assert "running" in text


def test_one_export_is_shown_by_the_beginning_of_its_id(registry, capsys):
    record = save(registry, "fhir_default/2026-11-01/abc")
    code, text, _ = call(capsys, "show", record.id[:10])
    assert code == 0
    assert "fhir_default/2026-11-01/abc" in text
    assert json.loads(call(capsys, "show", record.id, "--json")[1])["kind"] == "full"
    code, _, error = call(capsys, "show", "zzz")
    assert (code, "registry list" in error) == (2, True)


def test_locks_show_who_works_and_never_the_token(registry, capsys):
    lease = registry.acquire(SUBJECT, WORKER, 600)
    registry.postpone(SUBJECT, datetime.now(UTC) + timedelta(hours=5), "exported too recently")
    registry.postpone(Subject("https://past", "c"), NOON - timedelta(days=1000), "long ago")
    code, text, _ = call(capsys, "locks", "--json")
    assert code == 0
    assert lease.token not in text
    shown = json.loads(text)
    assert [lock["run_id"] for lock in shown["locks"]] == ["nightly-1"]
    assert [window["reason"] for window in shown["windows"]] == ["exported too recently"]
    assert "until" in call(capsys, "locks")[1]


def test_a_living_lock_is_broken_by_force_only(registry, capsys):
    registry.acquire(SUBJECT, WORKER, 600)
    code, _, error = call(capsys, "release", SUBJECT.key[:8])
    assert code == 1
    assert "nightly-1" in error
    assert "--force" in error
    assert registry.lease(SUBJECT.key) is not None
    assert call(capsys, "release", SUBJECT.key[:8], "--force")[0] == 0
    assert registry.leases() == ()


def test_a_stale_lock_and_a_window_need_no_force(registry, capsys):
    registry.acquire(SUBJECT, WORKER, 0)
    registry.postpone(SUBJECT, datetime.now(UTC) + timedelta(hours=5), "exported too recently")
    assert call(capsys, "release", SUBJECT.key)[0] == 0
    assert (registry.leases(), registry.postponed(SUBJECT.key)) == ((), None)
    assert call(capsys, "release", SUBJECT.key)[0] == 2


def test_migrate_says_what_it_did(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COHORTFLOW_STATE", str(tmp_path / "new"))
    assert json.loads(call(capsys, "migrate", "--json")[1]) == {"before": "", "after": "0001"}
    assert "up to date" in call(capsys, "migrate")[1]
