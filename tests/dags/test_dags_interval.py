"""Which data a run covers, whatever schedule or hand started it."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohortflow.airflow.run import LogProgress, resolve_interval


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        pytest.param("2026-11-01T02:00", "2026-11-02T02:00", ("2026-11-01", "2026-11-02"), id="nightly"),
        pytest.param("2026-11-01T00:00", "2026-11-02T00:00", ("2026-11-01", "2026-11-02"), id="midnight"),
        pytest.param("2026-11-01T04:00", "2026-11-08T04:00", ("2026-11-01", "2026-11-08"), id="weekly"),
        pytest.param("2026-11-01T00:00", "2026-12-01T00:00", ("2026-11-01", "2026-12-01"), id="monthly"),
        pytest.param(
            "2026-11-01T05:00", "2026-11-01T06:00", ("2026-11-01T05:00", "2026-11-01T06:00"), id="hourly"
        ),
        pytest.param("2026-11-03T10:00", "2026-11-03T10:00", ("2026-11-02", "2026-11-03"), id="empty"),
        pytest.param(None, None, ("2026-11-02", "2026-11-03"), id="by hand"),
    ],
)
def test_the_interval_of_a_run(start, end, expected):
    interval = resolve_interval(start and at(start), end and at(end), at("2026-11-03T10:00"))
    assert (interval.start, interval.end) == tuple(map(at, expected))


def test_days_are_those_of_utc():
    zone = timezone(timedelta(hours=9))
    start = datetime(2026, 11, 2, 5, tzinfo=zone)  # 1 November, 20:00 in UTC
    interval = resolve_interval(start, start + timedelta(days=1), start)
    assert interval.key == "2026-11-01"
    assert resolve_interval(None, None, start).key == "2026-10-31"


@given(
    first=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    days=st.integers(1, 40),
)
def test_successive_intervals_touch_and_never_overlap(first, days):
    second, third = first + timedelta(days=days), first + timedelta(days=2 * days)
    earlier, later = resolve_interval(first, second, second), resolve_interval(second, third, third)
    assert earlier.end == later.start
    assert earlier.start < earlier.end <= second
    assert earlier.key != later.key


def test_progress_is_logged_as_counts(caplog):
    progress = LogProgress()
    with caplog.at_level("INFO", "cohortflow.airflow.run"):
        for done in (0, 1, 2, 1234):
            progress.update("download", done, 1234, "files")
        progress.update("lines", 0)
    assert [record.message for record in caplog.records] == [
        "download: 0 of 1,234 files",
        "download: 1,234 of 1,234 files",
        "lines: 0 ",
    ]
