"""Intervals and references."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohortflow.model import DataInterval, DatasetRef, hash_schema


class TestInterval:
    def test_of_a_day(self):
        interval = DataInterval.of_day(date(2026, 11, 1))
        assert interval.end - interval.start == timedelta(days=1)
        assert interval.key == "2026-11-01"

    def test_key_has_both_ends_where_it_is_not_one_day(self):
        start = datetime(2026, 11, 1, 6, 30, tzinfo=UTC)
        assert DataInterval(start, start + timedelta(hours=1)).key == "2026-11-01T063000--2026-11-01T073000"
        day = datetime(2026, 11, 1, tzinfo=UTC)
        assert DataInterval(day, day + timedelta(days=7)).key == "2026-11-01--2026-11-08"

    def test_key_is_in_utc(self):
        zone = timezone(timedelta(hours=5))
        start = datetime(2026, 11, 1, 5, tzinfo=zone)
        assert DataInterval(start, start + timedelta(days=1)).key == "2026-11-01"

    def test_naive_and_reversed_are_refused(self):
        naive = datetime(2026, 11, 1)  # noqa: DTZ001  # the case
        with pytest.raises(ValueError, match="aware"):
            DataInterval(naive, naive)
        start = datetime(2026, 11, 1, tzinfo=UTC)
        with pytest.raises(ValueError, match="end before"):
            DataInterval(start, start - timedelta(seconds=1))

    @given(first=st.datetimes(timezones=st.just(UTC)), second=st.datetimes(timezones=st.just(UTC)))
    def test_keys_of_different_seconds_differ_and_are_safe_in_paths(self, first, second):
        keys = [DataInterval(moment, moment).key for moment in (first, second)]
        assert (keys[0] == keys[1]) == (first.replace(microsecond=0) == second.replace(microsecond=0))
        assert not set("".join(keys)) & set("/: %'+")


def test_a_reference_survives_json():
    reference = DatasetRef("condition", "s3://lake/x", 3, "0123456789abcdef", 7)
    assert DatasetRef.from_dict(reference.to_dict()) == reference


def test_schema_hash_follows_names_types_and_order():
    schemas = [
        {"a": "Int64", "b": "String"},
        {"b": "String", "a": "Int64"},
        {"a": "String", "b": "String"},
        {},
    ]
    hashes = {hash_schema(schema) for schema in schemas}
    assert len(hashes) == 4
    assert all(len(digest) == 16 for digest in hashes)
    assert hash_schema(schemas[0]) == hash_schema(dict(schemas[0]))


@pytest.mark.parametrize(
    "key", ["2026-11-18", "2026-11-16--2026-11-23", "2026-11-18T020000--2026-11-18T140000"]
)
def test_an_interval_is_known_by_its_key(key):
    assert DataInterval.parse(key).key == key


@pytest.mark.parametrize("key", ["", "november", "2026-13-01", "2026-11-18--"])
def test_what_is_no_key_is_refused(key):
    with pytest.raises(ValueError):
        DataInterval.parse(key)
