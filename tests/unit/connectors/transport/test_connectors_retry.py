"""The retry policy and the numbers and dates that steer it."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from connectors_doubles import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from cohortflow.connectors import RetryPolicy
from cohortflow.connectors.transport.retry import parse_retry_after
from cohortflow.errors import AuthorizationError, IncompleteDownloadError, TransientSourceError

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
fractions = st.floats(0, 1, exclude_max=True)


@given(
    attempts=st.integers(2, 10_000),
    base=st.floats(0.001, 100),
    cap=st.floats(0.001, 1000),
    fraction=fractions,
    data=st.data(),
)
def test_waits_stay_within_bounds_and_attempts_end(attempts, base, cap, fraction, data):
    policy = RetryPolicy(attempts, base, cap, random=lambda: fraction)
    attempt = data.draw(st.integers(1, attempts - 1))
    delay = policy.delay(attempt)
    assert 0 <= delay <= cap
    assert delay <= base * 2.0 ** min(attempt - 1, 60)
    assert policy.delay(attempts) is None


@given(attempt=st.integers(1, 5), retry_after=st.floats(0.001, 10_000))
def test_the_servers_wish_is_met_exactly_or_handed_on(attempt, retry_after):
    policy = RetryPolicy(attempts=6, max_retry_after=600)
    assert policy.delay(attempt, retry_after) == (retry_after if retry_after <= 600 else None)


@given(seconds=st.integers(-100_000, 1_000_000))
def test_dates_and_seconds_mean_the_same(seconds):
    date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after(date, NOW.timestamp()) == max(0, seconds)
    assert parse_retry_after(str(seconds), NOW.timestamp()) == max(0, seconds)


@given(text=st.text(max_size=40))
def test_any_header_gives_a_wait_or_nothing(text):
    seconds = parse_retry_after(text, NOW.timestamp(), text)
    assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.anyio
@pytest.mark.parametrize("error", [TransientSourceError("busy"), IncompleteDownloadError("short")])
async def test_last_error_is_raised_after_all_attempts(error, clock):
    calls = []

    async def fail():
        calls.append(clock.time())
        raise error

    with pytest.raises(type(error)):
        await RetryPolicy(attempts=4, random=lambda: 0.5).run(fail, clock)
    assert len(calls) == 4
    assert clock.slept == [0.5, 1.0, 2.0]


@pytest.mark.anyio
async def test_permanent_errors_are_not_tried_again():
    clock = FakeClock()

    async def refuse():
        raise AuthorizationError("no")

    with pytest.raises(AuthorizationError):
        await RetryPolicy().run(refuse, clock)
    assert clock.slept == []
