"""What real servers do to a bulk export, case by case, over real sockets."""

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime

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
    InProgress,
    SystemClock,
    connect,
    download_available,
    ensure_started,
    poll_once,
)
from cohortflow.connectors.bulk import read_state
from cohortflow.errors import (
    AuthorizationError,
    ExportRejectedError,
    IncompleteDownloadError,
    TransientSourceError,
)
from cohortflow.sandbox import Fault, generate_client_key, persona_named, running_sandbox

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

write_data = write_bulk_hospital
TYPES = ("Condition", "Patient")
SCOPES = "system/Patient.read system/Condition.read system/Group.read"
GENERIC, EPIC, CERNER = (persona_named(name) for name in ("generic", "epic", "cerner"))
GROUP = ExportRequest("group", "cohort", types=TYPES)


@pytest.fixture(scope="module")
def key():
    return generate_client_key()


@pytest.fixture
def serve(data, key):
    """Start a server of a persona; what it does otherwise is quick."""

    def start(persona=GENERIC, **settings):
        return running_sandbox(config_of(data, key[1], persona=persona, **settings))

    return start


@pytest.fixture
def source(key):
    def connection(sandbox, profile="generic", **extra):
        return source_of(sandbox, key, scopes=SCOPES, profile=profile, **extra)

    return connection


class WaitingClock(SystemClock):
    """Notes how long somebody wants to wait, and does not."""

    slept: list[float] = []  # noqa: RUF012 - frozen base; replaced in the test

    async def sleep(self, seconds):
        self.slept.append(seconds)


async def export(source, raw, request=None, *, clock=None, policy=FAST):
    async with connect(source, policy=policy, clock=clock) as client:
        return await run_export(BulkExport(client), request or ExportRequest(types=TYPES), raw)


@pytest.mark.parametrize("on", ["kickoff", "file"])
async def test_case_04_http_date_in_retry_after_is_waited_for(serve, source, raw, on):
    clock = WaitingClock()
    clock.slept.clear()
    with serve() as sandbox:
        sandbox.faults.add(
            Fault(kind="too-many-requests", on=on, retry_after=90, retry_after_format="http-date")
        )
        result = await export(source(sandbox), raw, clock=clock)
        assert sandbox.log.count("kickoff", status=202) == 1
    [wait] = [seconds for seconds in clock.slept if seconds > 1]
    assert 89 <= wait <= 92
    assert_whole(raw, result)


async def test_case_05_unavailable_three_times_then_well(serve, source, raw):
    with serve() as sandbox:
        sandbox.faults.add(Fault(kind="unavailable", on="kickoff", times=3))
        assert_whole(raw, await export(source(sandbox), raw))
        assert sandbox.log.count("kickoff", status=503) == 3
        assert sandbox.log.count("kickoff", status=202) == 1


async def test_case_05_forbidden_fails_at_once(serve, source, raw):
    with serve() as sandbox:
        sandbox.faults.add(Fault(kind="forbidden", on="kickoff"))
        with pytest.raises(AuthorizationError):
            await export(source(sandbox), raw)
        assert sandbox.log.count("kickoff") == 1


async def test_case_06_redirect_to_another_origin_goes_without_authorization(serve, source, raw):
    with serve(file_delivery="redirect") as sandbox:
        # The sandbox's storage refuses requests with a token, and listens on another port.
        assert_whole(raw, await export(source(sandbox), raw))
        hops = [record for record in sandbox.log.records() if record.path_class == "storage"]
        assert hops
        assert not any(record.authorized for record in hops)
        assert all(record.authorized for record in sandbox.log.records() if record.path_class == "file")


async def test_case_06_files_that_need_no_token_get_none(serve, source, raw):
    with serve(file_delivery="open") as sandbox:
        assert_whole(raw, await export(source(sandbox), raw))
        files = [record for record in sandbox.log.records() if record.path_class == "file"]
        assert files
        assert not any(record.authorized for record in files)


@pytest.mark.parametrize(("severity", "partial"), [("warning", False), ("error", True)])
async def test_case_07_outcomes_are_judged_by_severity(serve, source, raw, severity, partial):
    with serve() as sandbox:
        sandbox.faults.add(Fault(kind="export-outcome", on="kickoff", severity=severity))
        result = await export(source(sandbox), raw)
    assert_whole(raw, result)
    assert result.severities == {severity: 1}
    assert result.is_partial is partial
    document = json.loads(raw.store.read(f"{raw.prefix}/_coverage.json"))
    assert document["status"] == ("partial" if partial else "complete")
    assert {row["status"] for row in document["types"]} == {"partial" if partial else "complete"}
    assert [(row["type"], row["expected"], row["received"]) for row in document["types"]] == [
        ("Condition", CONDITIONS, CONDITIONS),
        ("Patient", PATIENTS, PATIENTS),
    ]
    assert [issue["severity"] for issue in document["issues"]] == [severity]


async def test_case_09_partial_manifests_bring_all_files_once(serve, source, raw):
    request = ExportRequest(types=TYPES, extra=(("allowPartialManifests", "true"),))
    with serve(replace(GENERIC, manifest_files=1), resources_per_file=10, export_seconds=1.0) as sandbox:
        async with connect(source(sandbox), policy=FAST) as client:
            bulk = BulkExport(client)
            await ensure_started(bulk, request, raw)
            early = 0
            while isinstance(answer := await poll_once(bulk, raw), InProgress):
                if answer.waiting_files:
                    early = await download_available(bulk, raw)
            assert early
            result = await run_export(bulk, request, raw)
        assert sandbox.log.count("file") == (PATIENTS + CONDITIONS) // 10
        assert sandbox.log.count("kickoff") == 1
    assert_whole(raw, result)


async def test_case_09_worker_that_dies_with_a_part_of_the_files_does_not_fetch_them_again(
    serve, source, raw
):
    request = ExportRequest(types=TYPES, extra=(("allowPartialManifests", "true"),))
    with serve(replace(GENERIC, manifest_files=1), resources_per_file=10, export_seconds=1.0) as sandbox:
        async with connect(source(sandbox), policy=FAST) as client:
            bulk = BulkExport(client)
            await ensure_started(bulk, request, raw)
            while not (answer := await poll_once(bulk, raw)).waiting_files:
                pass
            assert isinstance(answer, InProgress)
            await download_available(bulk, raw)
        assert_whole(raw, await export(source(sandbox), raw, request))
        assert sandbox.log.count("file") == (PATIENTS + CONDITIONS) // 10


async def test_case_09_outcome_of_the_next_edition_is_read_like_error(serve, source, raw):
    with serve(replace(GENERIC, bulk_version="4.0")) as sandbox:
        sandbox.faults.add(Fault(kind="export-outcome", on="kickoff"))
        asking = source(sandbox)
        asking = replace(asking, profile=asking.profile.with_overrides({"kick_off_method": "POST"}))
        result = await export(asking, raw)
    assert_whole(raw, result)
    assert result.is_partial


async def test_case_09_files_ordered_by_patient_are_parted_by_type(serve, source, raw):
    request = ExportRequest(types=TYPES, extra=(("organizeOutputBy", "Patient"),))
    with serve(resources_per_file=17) as sandbox:
        result = await export(source(sandbox), raw, request)
    assert_whole(raw, result)
    assert result.resources == {"Condition": CONDITIONS, "Patient": PATIENTS}
    for kind, names in result.files.items():
        text = b"".join(raw.store.read(f"{raw.prefix}/{name}") for name in names)
        assert {json.loads(line)["resourceType"] for line in text.splitlines()} == {kind}


@pytest.mark.parametrize(
    ("kind", "gzip_files"),
    [
        ("truncate", True),
        ("cut-file", True),
        ("cut-file", False),
        ("drop-lines", True),
        ("drop-lines", False),
    ],
)
async def test_case_10_truncated_download_is_never_committed(serve, source, raw, kind, gzip_files):
    with serve(gzip_files=gzip_files) as sandbox:
        sandbox.faults.add(Fault(kind=kind, on="file", times=60))
        with pytest.raises((IncompleteDownloadError, TransientSourceError)):
            await export(source(sandbox), raw)
        state = await read_state(raw)
        assert state.phase == "ready"
        assert not any(item.done for item in state.files)
        names = {item.name for item in state.files}
        assert not [path for path in raw.store.list(raw.prefix) if path.removeprefix("export/") in names]
        sandbox.faults.clear()
        assert_whole(raw, await export(source(sandbox), raw))
        assert sandbox.log.count("kickoff") == 1


@pytest.mark.parametrize("compression", ["none", "stored"])
async def test_case_10_broken_download_goes_on_where_it_stopped(serve, source, raw, compression):
    persona = replace(GENERIC, compression=compression)
    with serve(persona, resources_per_file=200) as sandbox:
        sandbox.faults.add(Fault(kind="truncate", on="file", times=5))
        assert_whole(raw, await export(source(sandbox), raw))
        assert not sandbox.faults.waiting()
        # Two files: each is asked for once, and then for the rest after each break.
        assert sandbox.log.count("file") == 2 + 5
        assert sandbox.log.count("file", status=200) == 0


async def test_case_10_malformed_line_is_kept_for_quarantine_and_not_shown(serve, source, raw, caplog):
    caplog.set_level(logging.DEBUG)
    with serve() as sandbox:
        sandbox.faults.add(Fault(kind="malformed-line", on="file"))
        result = await export(source(sandbox), raw)
    assert sum(result.resources.values()) == PATIENTS + CONDITIONS + 1
    told = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("cohortflow.connectors"))
    assert "lines, the manifest says" in told
    assert "p1" not in told
    assert '"id"' not in told


async def test_case_12_duplicates_of_oracle_come_as_they_are_and_no_file_twice(serve, source, raw):
    with serve(CERNER) as sandbox:
        result = await export(source(sandbox, "cerner"), raw, GROUP)
        assert sandbox.log.count("file") == len((await read_state(raw)).files)
    found = ids(raw, result, "Condition")
    assert set(found) == {f"c{n}" for n in range(CONDITIONS)}
    assert len(found) > CONDITIONS


async def test_case_13_ignored_filter_fails_the_run(serve, source, raw):
    """A client that does not know its server asks Epic for changes, and would get everything."""
    request = replace(GROUP, since=datetime(2026, 3, 1, tzinfo=UTC))
    with serve(EPIC) as sandbox:
        asking = source(sandbox, headers={"Epic-Client-ID": "research"})
        with pytest.raises(ExportRejectedError, match="ignored a part of the request"):
            await export(asking, raw, request)
        assert (await read_state(raw)).phase != "complete"


async def test_case_13_filter_that_the_server_ignores_is_refused_before_the_kick_off(serve, source, raw):
    with serve(EPIC) as sandbox:
        with pytest.raises(ExportRejectedError, match="_since"):
            await export(source(sandbox, "epic"), raw, replace(GROUP, since=datetime(2026, 3, 1, tzinfo=UTC)))
        assert sandbox.log.count("kickoff") == 0


async def test_epic_gets_its_client_id_and_escaped_commas(serve, source, raw):
    request = replace(GROUP, type_filters=("Condition?category=encounter-diagnosis,problem-list-item",))
    with serve(EPIC) as sandbox:
        assert_whole(raw, await export(source(sandbox, "epic"), raw, request))


@pytest.mark.parametrize(
    ("request_", "match"),
    [
        (ExportRequest(types=TYPES), "no system export"),
        (replace(GROUP, types=("Practitioner",)), "beside a clinical type"),
        (replace(GROUP, types=("Binary",)), "out of bulk exports"),
        (replace(GROUP, types=(), type_filters=("Condition?code=x",)), "without _type"),
        (replace(GROUP, type_filters=("Patient?gender=male",)), "do not filter Patient"),
        (replace(GROUP, type_filters=("Condition?_lastUpdated=gt2026",)), "_lastUpdated"),
        (replace(GROUP, type_filters=("Condition?code=a", "Condition?code=b")), "for each type"),
        (replace(GROUP, extra=(("_elements", "id"),)), "_elements"),
    ],
)
async def test_oracle_is_not_asked_for_what_it_refuses(serve, source, raw, request_, match):
    with serve(CERNER) as sandbox:
        with pytest.raises(ExportRejectedError, match=match) as caught:
            await export(source(sandbox, "cerner"), raw, request_)
        assert caught.value.remedy
        assert sandbox.log.count("kickoff") == 0
