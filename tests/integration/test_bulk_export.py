"""Bulk export from the sandbox EHR, over real sockets."""

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta

import pytest

from cohortflow.connectors import (
    BulkExport,
    ExportRequest,
    FhirSource,
    InProgress,
    RetryPolicy,
    cancel_export,
    connect,
    ensure_started,
    poll_once,
    run_export,
)
from cohortflow.errors import AuthorizationError, ExportExpiredError, ExportRejectedError
from cohortflow.lake.raw import RawExport
from cohortflow.lake.store import open_store
from cohortflow.model import Connection, EnvDeployment
from cohortflow.sandbox import Fault, SandboxConfig, generate_client_key, running_sandbox

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

PATIENTS = 25
# The sandbox has a Group of its own, which an export of everything would hold.
REQUEST = ExportRequest(types=("Patient", "Condition"))
FAST = RetryPolicy(base=0.02, cap=0.05)


class FolderSink:
    def __init__(self, root):
        self.root = root
        root.mkdir()

    async def read_state(self):
        path = self.root / "_state.json"
        return path.read_bytes() if path.exists() else None

    async def write_state(self, state):
        temporary = self.root / "_state.tmp"
        temporary.write_bytes(state)
        temporary.replace(self.root / "_state.json")

    async def write_file(self, name, chunks):
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:
                async for chunk in chunks:
                    file.write(chunk)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    async def file_size(self, name):
        path = self.root / name
        return path.stat().st_size if path.exists() else None

    async def remove_files(self):
        for path in self.root.rglob("*.ndjson"):
            path.unlink()

    def ids(self, kind):
        lines = [
            line for path in self.root.glob(f"{kind}/*.ndjson") for line in path.read_text().splitlines()
        ]
        return sorted(json.loads(line)["id"] for line in lines)


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hospital")
    meta = {"lastUpdated": "2026-01-01T00:00:00Z"}
    patients = [{"resourceType": "Patient", "id": f"p{number}", "meta": meta} for number in range(PATIENTS)]
    conditions = [
        {
            "resourceType": "Condition",
            "id": f"c{number}",
            "meta": meta,
            "subject": {"reference": f"Patient/p{number % PATIENTS}"},
            "code": {"coding": [{"system": "http://snomed.info/sct", "code": "44054006"}]},
        }
        for number in range(4 * PATIENTS)
    ]
    for kind, resources in (("Patient", patients), ("Condition", conditions)):
        text = "".join(json.dumps(item) + "\n" for item in resources)
        (folder / f"{kind}.ndjson").write_text(text)
    return folder


@pytest.fixture
def sink(tmp_path):
    return FolderSink(tmp_path / "raw")


@pytest.fixture(scope="module")
def client_key():
    return generate_client_key()


@pytest.fixture
def sandbox(data, client_key):
    with running_sandbox(config_of(data, client_key)) as running:
        yield running


def config_of(data, client_key, **settings):
    quick = {"export_seconds": 0.0, "export_polls": 1, "retry_after": 0, "resources_per_file": 40}
    return SandboxConfig(data=data, clients={"research": client_key[1]}, **(quick | settings))


def source_of(sandbox, client_key, **extra):
    """As a user writes it: a connection, whose token endpoint is discovered."""
    return FhirSource.from_connection(
        Connection(
            conn_id="sandbox",
            conn_type="fhir",
            host=sandbox.base_url,
            login="research",
            password=json.dumps(client_key[0]),
            extra={"scopes": "system/*.rs", **extra},
        )
    )


async def export(source, sink, request=None):
    async with connect(source, policy=FAST) as client:
        return await run_export(BulkExport(client), request or REQUEST, sink)


def assert_whole(result, sink):
    assert result.resources == {"Patient": PATIENTS, "Condition": 4 * PATIENTS}
    assert sink.ids("Patient") == sorted(f"p{number}" for number in range(PATIENTS))
    assert sink.ids("Condition") == sorted(f"c{number}" for number in range(4 * PATIENTS))


@pytest.mark.parametrize("delivery", ["token", "open", "redirect"])
@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
async def test_whole_export(data, sink, delivery, algorithm):
    key = generate_client_key(algorithm)
    config = config_of(data, key, file_delivery=delivery, gzip_files=algorithm == "ES384")
    with running_sandbox(config) as sandbox:
        result = await export(source_of(sandbox, key), sink)
        # The sandbox refuses storage requests that carry a token, so success means that none did.
        assert sandbox.log.count("storage", status=200) == (4 if delivery == "redirect" else 0)
        assert sandbox.log.count("status", method="DELETE", status=202) == 1
    assert_whole(result, sink)
    assert list(result.files["Condition"]) == [
        f"Condition/Condition.000{number}.ndjson" for number in (1, 2, 3)
    ]
    assert datetime.fromisoformat(result.transaction_time) <= datetime.now(UTC) + timedelta(minutes=1)


async def test_raw_zone_holds_an_interrupted_export_once_it_is_whole(sandbox, client_key, tmp_path):
    store = open_store(str(tmp_path / "lake"), EnvDeployment({}))
    zone = RawExport(store, "raw/export")
    source = source_of(sandbox, client_key, concurrency=1)
    sandbox.faults.add(Fault(kind="truncate", on="file"), Fault(kind="forbidden", on="file", after=2))
    with pytest.raises(AuthorizationError):
        await export(source, zone)
    result = await export(source, zone)
    names = [name for names in result.files.values() for name in names]
    assert store.list("raw/export") == sorted(
        ["raw/export/_state.json", "raw/export/_coverage.json", *(f"raw/export/{name}" for name in names)]
    )
    assert sum(store.read(f"raw/export/{name}").count(b"\n") for name in names) == 5 * PATIENTS
    assert sandbox.log.count("kickoff") == 1


async def test_open_server_needs_no_login(data, sink):
    with running_sandbox(SandboxConfig(data=data, open=True, export_seconds=0.0, retry_after=0)) as sandbox:
        source = FhirSource.from_connection(Connection("open", "fhir", sandbox.base_url))
        assert_whole(await export(source, sink), sink)
        assert not any(record.authorized for record in sandbox.log.records())


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([Fault(kind="unavailable", on="kickoff", times=3)], id="503-three-times"),
        pytest.param([Fault(kind="unavailable", on="token", times=2)], id="token-endpoint-busy"),
        pytest.param(
            [Fault(kind="too-many-requests", on="kickoff", retry_after=1, retry_after_format="http-date")],
            id="429-with-date",
        ),
        pytest.param([Fault(kind="gateway-timeout", on="status", times=2, retry_after=0)], id="poll-504"),
        pytest.param([Fault(kind="server-error", on="status", retry_after=0)], id="poll-500-transient"),
        pytest.param([Fault(kind="unauthorized", on="status")], id="poll-401"),
        pytest.param([Fault(kind="unauthorized", on="file")], id="file-401"),
        pytest.param([Fault(kind="server-error", on="file")], id="file-500"),
        pytest.param([Fault(kind="truncate", on="file", times=2)], id="truncated"),
        pytest.param([Fault(kind="drop-lines", on="file", lines=3)], id="lines-missing"),
    ],
)
@pytest.mark.parametrize("gzip_files", [True, False])
async def test_passing_faults_change_nothing(data, client_key, sink, faults, gzip_files):
    with running_sandbox(config_of(data, client_key, gzip_files=gzip_files)) as sandbox:
        sandbox.faults.add(*faults)
        result = await export(source_of(sandbox, client_key), sink)
        assert not sandbox.faults.waiting()
        assert sandbox.log.count("kickoff", status=202) == 1
    assert_whole(result, sink)


async def test_forbidden_kick_off_fails_at_once(sandbox, client_key, sink):
    sandbox.faults.add(Fault(kind="forbidden", on="kickoff"))
    with pytest.raises(AuthorizationError):
        await export(source_of(sandbox, client_key), sink)
    assert sandbox.log.count("kickoff") == 1


async def test_revoked_token_is_replaced_in_mid_poll(sandbox, client_key, sink):
    async with connect(source_of(sandbox, client_key), policy=FAST) as client:
        bulk = BulkExport(client)
        await ensure_started(bulk, REQUEST, sink)
        assert isinstance(await poll_once(bulk, sink), InProgress)
        sandbox.revoke_tokens()
        assert_whole(await run_export(bulk, REQUEST, sink), sink)
    assert sandbox.log.count("token", status=200) == 2


async def test_short_lived_tokens_are_enough(sandbox, client_key, sink):
    sandbox.faults.add(Fault(kind="token-lifetime", on="token", seconds=1, times=50))
    async with connect(source_of(sandbox, client_key), policy=FAST) as client:
        bulk = BulkExport(client)
        await ensure_started(bulk, REQUEST, sink)
        await asyncio.sleep(1.1)
        assert_whole(await run_export(bulk, REQUEST, sink), sink)
    assert sandbox.log.count("status", status=401) == 0


async def test_killed_worker_is_taken_over_with_one_kick_off(sandbox, client_key, sink):
    async with connect(source_of(sandbox, client_key), policy=FAST) as client:
        await ensure_started(BulkExport(client), REQUEST, sink)
    assert_whole(await export(source_of(sandbox, client_key), sink), sink)
    assert sandbox.log.count("kickoff") == 1


async def test_failed_download_is_taken_up_where_it_stopped(sandbox, client_key, sink):
    sandbox.faults.add(Fault(kind="forbidden", on="file", after=2))
    source = source_of(sandbox, client_key, concurrency=1)
    with pytest.raises(AuthorizationError):
        await export(source, sink)
    assert_whole(await export(source, sink), sink)
    assert sandbox.log.count("kickoff") == 1
    assert sandbox.log.count("file", status=200) == 4


async def test_expired_export_is_started_anew(sandbox, client_key, sink):
    async with connect(source_of(sandbox, client_key), policy=FAST) as client:
        await ensure_started(BulkExport(client), REQUEST, sink)
    sandbox.expire_exports()
    assert_whole(await export(source_of(sandbox, client_key), sink), sink)
    assert sandbox.log.count("kickoff") == 2


async def test_export_that_always_expires_fails(sandbox, client_key, sink):
    sandbox.faults.add(Fault(kind="gone", on="status", times=2))
    with pytest.raises(ExportExpiredError):
        await export(source_of(sandbox, client_key), sink)
    assert sandbox.log.count("kickoff") == 2


@pytest.mark.parametrize(("severity", "partial"), [("warning", False), ("error", True)])
async def test_error_files_mark_an_export_by_severity(sandbox, client_key, sink, severity, partial):
    sandbox.faults.add(Fault(kind="export-outcome", on="kickoff", severity=severity))
    result = await export(source_of(sandbox, client_key), sink)
    assert_whole(result, sink)
    assert result.severities == {severity: 1}
    assert result.is_partial is partial


async def test_malformed_line_is_kept_for_the_reader_to_judge(sandbox, client_key, sink):
    sandbox.faults.add(Fault(kind="malformed-line", on="file"))
    result = await export(source_of(sandbox, client_key), sink)
    assert sum(result.resources.values()) == 5 * PATIENTS + 1


async def test_next_export_starts_at_the_transaction_time(sandbox, client_key, tmp_path):
    source = source_of(sandbox, client_key)
    sandbox.set_time(datetime(2026, 2, 1, tzinfo=UTC))
    first = await export(source, FolderSink(tmp_path / "first"))
    sandbox.set_time(datetime(2026, 2, 2, tzinfo=UTC))
    sandbox.put({"resourceType": "Patient", "id": "new"})
    sandbox.delete("Condition", "c7")
    second = FolderSink(tmp_path / "second")
    since = datetime.fromisoformat(first.transaction_time)
    result = await export(source, second, ExportRequest(types=REQUEST.types, since=since))
    assert second.ids("Patient") == ["new"]
    assert result.resources == {"Patient": 1}
    [bundle] = (second.root / result.deleted_files[0]).read_text().splitlines()
    assert [entry["request"]["url"] for entry in json.loads(bundle)["entry"]] == ["Condition/c7"]


async def test_group_types_and_filters_reach_the_server(sandbox, client_key, sink):
    member = {"entity": {"reference": "Patient/p3"}}
    sandbox.put({"resourceType": "Group", "id": "g1", "type": "person", "actual": True, "member": [member]})
    request = ExportRequest(
        "group",
        "g1",
        types=("Patient", "Condition"),
        type_filters=("Condition?code=http://snomed.info/sct|44054006,http://snomed.info/sct|0",),
    )
    result = await export(source_of(sandbox, client_key), sink, request)
    assert sink.ids("Patient") == ["p3"]
    assert result.resources["Condition"] == 4


async def test_unknown_group_is_refused(sandbox, client_key, sink):
    with pytest.raises(ExportRejectedError, match="404"):
        await export(source_of(sandbox, client_key), sink, ExportRequest("group", "nobody"))


async def test_cancelled_export_is_gone_from_the_server(sandbox, client_key, sink):
    async with connect(source_of(sandbox, client_key), policy=FAST) as client:
        bulk = BulkExport(client)
        state = await ensure_started(bulk, REQUEST, sink)
        await cancel_export(bulk, sink)
        with pytest.raises(ExportExpiredError):
            await bulk.poll(state.status_url)


async def test_wrong_key_and_wrong_scope_are_told_apart(sandbox, client_key, sink):
    with pytest.raises(AuthorizationError, match="invalid_client"):
        await export(source_of(sandbox, generate_client_key()), sink)
    with pytest.raises(AuthorizationError, match="invalid_scope"):
        await export(source_of(sandbox, client_key, scopes="user/Patient.read"), sink)


async def test_logs_hold_no_address_and_no_token(sandbox, client_key, sink, caplog):
    caplog.set_level(logging.DEBUG)
    await export(source_of(sandbox, client_key), sink)
    text = "\n".join(record.getMessage() for record in caplog.records if "sandbox" not in record.name)
    assert "is complete" in text
    for part in ("/exports/", "http://", "Bearer", "eyJ"):
        assert part not in text
