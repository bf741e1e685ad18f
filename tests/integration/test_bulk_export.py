"""Bulk export from the sandbox EHR, over real sockets."""

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta

import pytest
from bulk_hospital import (
    CONDITIONS,
    FAST,
    PATIENTS,
    assert_whole,
    config_of,
    ids,
    run_export,
    source_of,
    write_bulk_hospital,
)

from cohortflow.connectors import (
    BulkExport,
    ExportRequest,
    FhirSource,
    InProgress,
    cancel_export,
    connect,
    ensure_started,
    poll_once,
)
from cohortflow.errors import AuthorizationError, ExportExpiredError, ExportRejectedError
from cohortflow.lake.raw import RawExport
from cohortflow.model import Connection
from cohortflow.sandbox import Fault, SandboxConfig, generate_client_key, running_sandbox

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

write_data = write_bulk_hospital
REQUEST = ExportRequest(types=("Patient", "Condition"))


@pytest.fixture(scope="module")
def client_key():
    return generate_client_key()


@pytest.fixture
def sandbox(data, client_key):
    with running_sandbox(config_of(data, client_key[1], export_polls=1)) as running:
        yield running


async def export(source, raw, request=None):
    async with connect(source, policy=FAST) as client:
        return await run_export(BulkExport(client), request or REQUEST, raw)


@pytest.mark.parametrize("delivery", ["token", "open", "redirect"])
@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
async def test_whole_export(data, raw, delivery, algorithm):
    key = generate_client_key(algorithm)
    config = config_of(data, key[1], export_polls=1, file_delivery=delivery, gzip_files=algorithm == "ES384")
    with running_sandbox(config) as sandbox:
        result = await export(source_of(sandbox, key), raw)
        # The sandbox refuses storage requests that carry a token, so success means that none did.
        assert sandbox.log.count("storage", status=200) == (4 if delivery == "redirect" else 0)
        assert sandbox.log.count("status", method="DELETE", status=202) == 1
    assert_whole(raw, result)
    assert list(result.files["Condition"]) == [
        f"Condition/Condition.000{number}.ndjson" for number in (1, 2, 3)
    ]
    assert datetime.fromisoformat(result.transaction_time) <= datetime.now(UTC) + timedelta(minutes=1)


async def test_raw_zone_holds_an_interrupted_export_once_it_is_whole(sandbox, client_key, raw):
    source = source_of(sandbox, client_key, concurrency=1)
    sandbox.faults.add(Fault(kind="truncate", on="file"), Fault(kind="forbidden", on="file", after=2))
    with pytest.raises(AuthorizationError):
        await export(source, raw)
    result = await export(source, raw)
    names = [name for names in result.files.values() for name in names]
    expected = ["_coverage.json", "_state.json", *names]
    assert raw.store.list(raw.prefix) == sorted(f"{raw.prefix}/{name}" for name in expected)
    assert_whole(raw, result)
    assert sandbox.log.count("kickoff") == 1


async def test_open_server_needs_no_login(data, raw):
    with running_sandbox(SandboxConfig(data=data, open=True, export_seconds=0.0, retry_after=0)) as sandbox:
        source = FhirSource.from_connection(Connection("open", "fhir", sandbox.base_url))
        assert_whole(raw, await export(source, raw))
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
async def test_passing_faults_change_nothing(data, client_key, raw, faults, gzip_files):
    with running_sandbox(config_of(data, client_key[1], export_polls=1, gzip_files=gzip_files)) as sandbox:
        sandbox.faults.add(*faults)
        result = await export(source_of(sandbox, client_key), raw)
        assert not sandbox.faults.waiting()
        assert sandbox.log.count("kickoff", status=202) == 1
    assert_whole(raw, result)


async def test_forbidden_kick_off_fails_at_once(sandbox, client_key, raw):
    sandbox.faults.add(Fault(kind="forbidden", on="kickoff"))
    with pytest.raises(AuthorizationError):
        await export(source_of(sandbox, client_key), raw)
    assert sandbox.log.count("kickoff") == 1


async def test_revoked_token_is_replaced_in_mid_poll(sandbox, client_key, raw):
    async with connect(source_of(sandbox, client_key), policy=FAST) as client:
        bulk = BulkExport(client)
        await ensure_started(bulk, REQUEST, raw)
        assert isinstance(await poll_once(bulk, raw), InProgress)
        sandbox.revoke_tokens()
        assert_whole(raw, await run_export(bulk, REQUEST, raw))
    assert sandbox.log.count("token", status=200) == 2


async def test_short_lived_tokens_are_enough(sandbox, client_key, raw):
    sandbox.faults.add(Fault(kind="token-lifetime", on="token", seconds=1, times=50))
    async with connect(source_of(sandbox, client_key), policy=FAST) as client:
        bulk = BulkExport(client)
        await ensure_started(bulk, REQUEST, raw)
        await asyncio.sleep(1.1)
        assert_whole(raw, await run_export(bulk, REQUEST, raw))
    assert sandbox.log.count("status", status=401) == 0


async def test_killed_worker_is_taken_over_with_one_kick_off(sandbox, client_key, raw):
    async with connect(source_of(sandbox, client_key), policy=FAST) as client:
        await ensure_started(BulkExport(client), REQUEST, raw)
    assert_whole(raw, await export(source_of(sandbox, client_key), raw))
    assert sandbox.log.count("kickoff") == 1


async def test_failed_download_is_taken_up_where_it_stopped(sandbox, client_key, raw):
    sandbox.faults.add(Fault(kind="forbidden", on="file", after=2))
    source = source_of(sandbox, client_key, concurrency=1)
    with pytest.raises(AuthorizationError):
        await export(source, raw)
    assert_whole(raw, await export(source, raw))
    assert sandbox.log.count("kickoff") == 1
    assert sandbox.log.count("file", status=200) == 4


async def test_expired_export_is_started_anew(sandbox, client_key, raw):
    async with connect(source_of(sandbox, client_key), policy=FAST) as client:
        await ensure_started(BulkExport(client), REQUEST, raw)
    sandbox.expire_exports()
    assert_whole(raw, await export(source_of(sandbox, client_key), raw))
    assert sandbox.log.count("kickoff") == 2


async def test_export_that_always_expires_fails(sandbox, client_key, raw):
    sandbox.faults.add(Fault(kind="gone", on="status", times=2))
    with pytest.raises(ExportExpiredError):
        await export(source_of(sandbox, client_key), raw)
    assert sandbox.log.count("kickoff") == 2


@pytest.mark.parametrize(("severity", "partial"), [("warning", False), ("error", True)])
async def test_error_files_mark_an_export_by_severity(sandbox, client_key, raw, severity, partial):
    sandbox.faults.add(Fault(kind="export-outcome", on="kickoff", severity=severity))
    result = await export(source_of(sandbox, client_key), raw)
    assert_whole(raw, result)
    assert result.severities == {severity: 1}
    assert result.is_partial is partial


async def test_malformed_line_is_kept_for_the_reader_to_judge(sandbox, client_key, raw):
    sandbox.faults.add(Fault(kind="malformed-line", on="file"))
    result = await export(source_of(sandbox, client_key), raw)
    assert sum(result.resources.values()) == PATIENTS + CONDITIONS + 1


async def test_next_export_starts_at_the_transaction_time(sandbox, client_key, raw):
    source = source_of(sandbox, client_key)
    sandbox.set_time(datetime(2026, 2, 1, tzinfo=UTC))
    first = await export(source, raw)
    sandbox.set_time(datetime(2026, 2, 2, tzinfo=UTC))
    sandbox.put({"resourceType": "Patient", "id": "new"})
    sandbox.delete("Condition", "c7")
    later = RawExport(raw.store, "later")
    since = datetime.fromisoformat(first.transaction_time)
    result = await export(source, later, ExportRequest(types=REQUEST.types, since=since))
    assert ids(later, result, "Patient") == ["new"]
    assert result.resources == {"Patient": 1}
    [bundle] = raw.store.read(f"{later.prefix}/{result.deleted_files[0]}").splitlines()
    assert [entry["request"]["url"] for entry in json.loads(bundle)["entry"]] == ["Condition/c7"]


async def test_group_types_and_filters_reach_the_server(sandbox, client_key, raw):
    member = {"entity": {"reference": "Patient/p3"}}
    sandbox.put({"resourceType": "Group", "id": "g1", "type": "person", "actual": True, "member": [member]})
    request = ExportRequest(
        "group",
        "g1",
        types=("Patient", "Condition"),
        type_filters=("Condition?code=http://snomed.info/sct|44054006,http://snomed.info/sct|0",),
    )
    result = await export(source_of(sandbox, client_key), raw, request)
    assert ids(raw, result, "Patient") == ["p3"]
    assert result.resources["Condition"] == 4


async def test_unknown_group_is_refused(sandbox, client_key, raw):
    with pytest.raises(ExportRejectedError, match="404"):
        await export(source_of(sandbox, client_key), raw, ExportRequest("group", "nobody"))


async def test_cancelled_export_is_gone_from_the_server(sandbox, client_key, raw):
    async with connect(source_of(sandbox, client_key), policy=FAST) as client:
        bulk = BulkExport(client)
        state = await ensure_started(bulk, REQUEST, raw)
        await cancel_export(bulk, raw)
        with pytest.raises(ExportExpiredError):
            await bulk.poll(state.status_url)


async def test_wrong_key_and_wrong_scope_are_told_apart(sandbox, client_key, raw):
    with pytest.raises(AuthorizationError, match="invalid_client"):
        await export(source_of(sandbox, generate_client_key()), raw)
    with pytest.raises(AuthorizationError, match="invalid_scope"):
        await export(source_of(sandbox, client_key, scopes="user/Patient.read"), raw)


async def test_logs_hold_no_address_and_no_token(sandbox, client_key, raw, caplog):
    caplog.set_level(logging.DEBUG)
    await export(source_of(sandbox, client_key), raw)
    text = "\n".join(record.getMessage() for record in caplog.records if "sandbox" not in record.name)
    assert "is complete" in text
    for part in ("/exports/", "http://", "Bearer", "eyJ"):
        assert part not in text
