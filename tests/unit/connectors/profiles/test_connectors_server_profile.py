"""Profiles of servers: quiet hours, days, overrides, and what is refused before a kick-off."""

import json
from datetime import UTC, datetime

import pytest
from connectors_doubles import BASE, STATUS, Ehr, FakeClock, bulk_of, outcome, reply

from cohortflow.connectors import GENERIC, PROFILES, ExportRequest, FhirSource, ServerProfile
from cohortflow.connectors.profiles.server import QuietHours
from cohortflow.connectors.transport.outcome import parse_outcome
from cohortflow.errors import ConfigurationError, ExportRejectedError, TransientSourceError
from cohortflow.model import Connection

NEW_YORK = "America/New_York"


def quiet(*hours, zone="UTC"):
    return ServerProfile(quiet_hours=tuple(QuietHours.parse(text) for text in hours), time_zone=zone)


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "zone", "now", "seconds"),
    [
        ("07:00-19:00", "UTC", "2026-03-02T06:59", 0),
        ("07:00-19:00", "UTC", "2026-03-02T07:00", 12 * 3600),
        ("07:00-19:00", "UTC", "2026-03-02T19:00", 0),
        ("22:00-04:00", "UTC", "2026-03-02T23:00", 5 * 3600),
        ("22:00-04:00", "UTC", "2026-03-02T03:00", 3600),
        ("07:00-19:00", NEW_YORK, "2026-03-02T11:59", 0),
        ("07:00-19:00", NEW_YORK, "2026-03-02T12:00", 12 * 3600),
        # Clocks go forward in this night: it is an hour shorter.
        ("22:00-04:00", NEW_YORK, "2026-03-08T04:00", 4 * 3600),
    ],
)
def test_quiet_hours_end_when_local_clocks_say_so(hours, zone, now, seconds):
    assert quiet(hours, zone=zone).quiet_seconds(at(now)) == seconds


def test_tomorrow_begins_at_local_midnight():
    assert quiet(zone=NEW_YORK).seconds_to_tomorrow(at("2026-03-02T04:00")) == 3600


@pytest.mark.anyio
async def test_no_kick_off_in_quiet_hours():
    clock = FakeClock(at("2026-03-02T08:00").timestamp())
    ehr = Ehr()
    async with bulk_of(
        ehr, source=FhirSource("ehr", BASE, profile=quiet("07:00-19:00")), clock=clock
    ) as bulk:
        with pytest.raises(TransientSourceError) as caught:
            await bulk.kick_off(ExportRequest())
    assert caught.value.retry_after == 11 * 3600
    assert not ehr.requests
    assert not clock.slept


def test_overrides_change_single_values_and_merge_mappings():
    epic = PROFILES["epic"]
    changed = epic.with_overrides(
        {
            "poll_seconds": 1800,
            "quiet_hours": ["07:00-18:30"],
            "time_zone": NEW_YORK,
            "codes": {"59100": "warn", "4999": "partial"},
            "levels": ["group", "patient"],
            "page_limits": {"Observation": 40},
        }
    )
    assert (changed.poll_seconds, changed.levels) == (1800.0, frozenset({"group", "patient"}))
    assert changed.codes["59100"] == "warn"
    assert changed.codes["4999"] == "partial"
    assert changed.codes["4101"] == epic.codes["4101"] == "ignore"
    assert epic.codes["59100"] == "fail"
    assert changed.page_limits["Observation"] == 40
    assert changed.name == "epic"
    assert changed.quiet_seconds(at("2026-03-02T12:00")) == 11.5 * 3600


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("poll_second", 5),
        ("name", "x"),
        ("poll_seconds", 0),
        ("poll_seconds", "5"),
        ("poll_seconds", True),
        ("levels", []),
        ("levels", ["groups"]),
        ("codes", {"59100": "explode"}),
        ("codes", ["59100"]),
        ("quiet_hours", ["7 to 8"]),
        ("quiet_hours", ["07:00-07:00"]),
        ("quiet_hours", "07:00-08:00"),
        ("time_zone", "Mars/Olympus"),
        ("kick_off_method", "PUT"),
        ("single_flight", "yes"),
        ("filters_per_type", 0),
    ],
)
def test_wrong_overrides_are_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=name) as caught:
        GENERIC.with_overrides({name: value})
    assert caught.value.remedy


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_value_of_a_profile_can_be_overridden_by_itself(profile):
    names = ["page_limits", "search_demands", "codes"]
    values = {
        name: {k: v if isinstance(v, str | int) else list(v) for k, v in getattr(profile, name).items()}
        for name in names
    }
    values |= {
        name: list(getattr(profile, name)) for name in ("levels", "unfilterable_types", "not_exported")
    }
    assert profile.with_overrides(values) == profile


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "header", "wait"), [(429, "", 86400), (400, "", 86400), (429, "7200", 7200)]
)
async def test_group_that_was_requested_too_recently_waits_for_the_window_and_is_not_asked_again(
    clock, status, header, wait
):
    body = outcome("error", "business-rule", diagnostics="Client requested this Group too recently")
    headers = {"Retry-After": header} if header else {}
    ehr = Ehr().on("GET", f"{BASE}/Group/g/$export", reply(status, body=body, headers=headers))
    source = FhirSource("ehr", BASE, client_id="app", profile=PROFILES["epic"])
    async with bulk_of(ehr, source=source, clock=clock) as bulk:
        with pytest.raises(TransientSourceError) as caught:
            await bulk.kick_off(ExportRequest("group", "g"))
    assert caught.value.retry_after == wait
    assert len(ehr.requests) == 1
    assert not clock.slept


@pytest.mark.anyio
async def test_daily_limit_waits_for_tomorrow():
    clock = FakeClock(at("2026-03-02T18:00").timestamp())
    body = outcome("error", "processing", details="4135")
    ehr = Ehr().on("GET", f"{BASE}/Group/g/$export", reply(400, body=body))
    source = FhirSource("ehr", BASE, profile=PROFILES["epic"])
    async with bulk_of(ehr, source=source, clock=clock) as bulk:
        with pytest.raises(TransientSourceError, match="4135") as caught:
            await bulk.kick_off(ExportRequest("group", "g"))
    assert caught.value.retry_after == 6 * 3600


@pytest.mark.anyio
async def test_one_export_at_a_time_is_left_to_the_scheduler(clock):
    ehr = Ehr().on("GET", f"{BASE}/Group/g/$export", reply(429, body=outcome("error", "throttled")))
    source = FhirSource("ehr", BASE, profile=PROFILES["cerner"])
    async with bulk_of(ehr, source=source, clock=clock) as bulk:
        with pytest.raises(TransientSourceError) as caught:
            await bulk.kick_off(ExportRequest("group", "g"))
    assert caught.value.retry_after == PROFILES["cerner"].poll_seconds
    assert len(ehr.requests) == 1


@pytest.mark.anyio
async def test_repository_that_exports_one_day_by_default_is_asked_for_all():
    ehr = Ehr().on("GET", f"{BASE}/$export", reply(202, headers={"Content-Location": STATUS}))
    async with bulk_of(ehr, source=FhirSource("ehr", BASE, profile=PROFILES["hdr"])) as bulk:
        await bulk.kick_off(ExportRequest())
        await bulk.kick_off(ExportRequest(since=datetime(2026, 1, 1, tzinfo=UTC)))
    assert [r.url.params["_since"] for r in ehr.requests] == ["1900-01-01T00:00:00Z", "2026-01-01T00:00:00Z"]


@pytest.mark.anyio
async def test_epic_gets_its_client_id_on_every_request_with_credentials():
    ehr = Ehr().on("GET", f"{BASE}/Group/g/$export", reply(202, headers={"Content-Location": STATUS}))
    ehr.on("GET", STATUS, reply(202))
    source = FhirSource("ehr", BASE, client_id="app-1", profile=PROFILES["epic"])
    async with bulk_of(ehr, source=source) as bulk:
        await bulk.kick_off(ExportRequest("group", "g"))
        await bulk.poll(STATUS)
    assert [r.headers["Epic-Client-ID"] for r in ehr.requests] == ["app-1", "app-1"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("issue", "fails"),
    [
        ({"severity": "warning", "code": "not-supported", "expression": ["_typeFilter"]}, True),
        ({"severity": "information", "code": "informational", "diagnostics": "ignored _typeFilter"}, True),
        ({"severity": "warning", "code": "invalid", "details": {"text": "unsupported: _typeFilter"}}, True),
        # It was not asked for, or nothing is wrong with it.
        ({"severity": "warning", "code": "not-supported", "diagnostics": "_since"}, False),
        ({"severity": "information", "code": "informational", "diagnostics": "applied _typeFilter"}, False),
    ],
)
async def test_filter_that_any_server_says_it_ignores_refuses_the_export(issue, fails):
    body = {"resourceType": "OperationOutcome", "issue": [issue]}
    ehr = Ehr().on("GET", f"{BASE}/$export", reply(202, body=body, headers={"Content-Location": STATUS}))
    ehr.on("DELETE", STATUS, reply(202))
    request = ExportRequest(type_filters=("Condition?code=x",))
    async with bulk_of(ehr) as bulk:
        if fails:
            with pytest.raises(ExportRejectedError, match="_typeFilter"):
                await bulk.kick_off(request)
        else:
            assert await bulk.kick_off(request) == STATUS
    assert len(ehr.sent("DELETE", STATUS)) == fails


@pytest.mark.anyio
async def test_filters_that_shape_answers_are_refused_for_any_server():
    async with bulk_of(Ehr()) as bulk:
        for text in ("Condition?_include=Condition:subject", "Condition?code=x&_sort=date", "Patient?x=y"):
            with pytest.raises(ExportRejectedError):
                await bulk.kick_off(ExportRequest(types=("Condition",), type_filters=(text,)))


@pytest.mark.anyio
async def test_patients_are_named_in_the_body_only():
    ehr = Ehr().on("POST", f"{BASE}/Patient/$export", reply(202, headers={"Content-Location": STATUS}))
    async with bulk_of(ehr) as bulk:
        await bulk.kick_off(ExportRequest("patient", extra=(("patient", "Patient/a,Patient/b"),)))
    assert b'{"name":"patient","valueReference":{"reference":"Patient/b"}}' in ehr.requests[0].content
    assert "patient" not in ehr.requests[0].url.params


def test_overrides_of_a_connection_reach_the_profile_and_errors_name_the_connection():
    def read(overrides):
        extra = {"profile": "epic", "profile_overrides": overrides}
        return FhirSource.from_connection(Connection("hospital", "fhir", BASE, extra=extra)).profile

    assert read({"poll_seconds": 5}).poll_seconds == 5
    for wrong in ({"poll_secs": 5}, ["poll_seconds"]):
        with pytest.raises(ConfigurationError, match="hospital"):
            read(wrong)


def test_name_in_the_place_of_a_type_is_left_out():
    value = outcome("error")
    value["issue"][0]["expression"] = ["Jane.Doe"]
    [issue] = parse_outcome(json.dumps(value))
    assert issue.type == ""
