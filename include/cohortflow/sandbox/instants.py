"""FHIR dates and instants as ranges of microseconds since 1970, UTC."""

from __future__ import annotations

import calendar
import re
import time
from datetime import UTC, datetime, timedelta

__all__ = ["FOREVER", "date_range", "format_instant", "now", "parse_instant"]

FOREVER = 2**62

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:\d\d)?)?)?)?"
)


def now() -> int:
    """The time, cut to milliseconds, which is how it is written."""
    return time.time_ns() // 1_000_000 * 1000


def format_instant(microseconds: int) -> str:
    """Write a FHIR instant in UTC with milliseconds."""
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_instant(text: str) -> int:
    """Read a FHIR instant: to the second at least, with a time zone.

    Raises:
        ValueError: It is no instant.
    """
    match = _DATE.fullmatch(text)
    if match is None or match[6] is None or match[8] is None:
        raise ValueError("not an instant with seconds and a time zone")
    return date_range(text)[0]


def date_range(text: str) -> tuple[int, int]:
    """Read a FHIR date, dateTime or instant of any precision.

    Returns:
        First microsecond, and last microsecond, of the time that it may mean. No time zone means UTC.

    Raises:
        ValueError: It is no date.
    """
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError("not a FHIR date")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    start = datetime(
        int(year),
        int(month or 1),
        int(day or 1),
        int(hour or 0),
        int(minute or 0),
        int(second or 0),
        tzinfo=UTC,
    )
    if fraction is not None:
        start += timedelta(microseconds=int(fraction[:6].ljust(6, "0")))
        width = timedelta(microseconds=10 ** max(0, 6 - len(fraction)))
    elif second is not None:
        width = timedelta(seconds=1)
    elif minute is not None:
        width = timedelta(minutes=1)
    elif day is not None:
        width = timedelta(days=1)
    elif month is not None:
        width = timedelta(days=calendar.monthrange(int(year), int(month))[1])
    else:
        width = timedelta(days=366 if calendar.isleap(int(year)) else 365)
    first = (start - _EPOCH) // _MICROSECOND - _zone_offset(zone)
    return first, first + width // _MICROSECOND - 1


def _zone_offset(zone: str | None) -> int:
    if zone is None or zone == "Z":
        return 0
    minutes = int(zone[1:3]) * 60 + int(zone[4:6])
    return (minutes if zone[0] == "+" else -minutes) * 60_000_000
