"""The data interval of a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

__all__ = ["DataInterval"]


@dataclass(frozen=True, slots=True)
class DataInterval:
    """The half-open span of time [start, end) that a run covers, in UTC.

    A cohort is built as of ``end``: facts dated at or after it are not used.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            msg = "A data interval needs aware datetimes."
            raise ValueError(msg)
        if self.end < self.start:
            msg = "A data interval cannot end before it starts."
            raise ValueError(msg)

    @classmethod
    def of_day(cls, day: date) -> DataInterval:
        """Return the interval of one UTC day."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return cls(start, start + timedelta(days=1))

    @classmethod
    def parse(cls, key: str) -> DataInterval:
        """Return the interval of a name that ``key`` gave.

        Raises:
            ValueError: It is no such name.
        """
        start, joined, end = key.partition("--")
        if not joined:
            return cls.of_day(date.fromisoformat(start))
        return cls(_moment(start), _moment(end))

    @property
    def key(self) -> str:
        """Name of the interval in paths and partitions.

        A UTC day is its date, ``2026-11-18``; any other span is start and end, joined by ``--``, so
        that a day and a week which begin together are two intervals.
        """
        start, end = _name(self.start), _name(self.end)
        return start if self == DataInterval.of_day(self.start.astimezone(UTC).date()) else f"{start}--{end}"


def _name(moment: datetime) -> str:
    moment = moment.astimezone(UTC)
    midnight = (moment.hour, moment.minute, moment.second, moment.microsecond) == (0, 0, 0, 0)
    return moment.strftime("%Y-%m-%d" if midnight else "%Y-%m-%dT%H%M%S")


def _moment(name: str) -> datetime:
    form = "%Y-%m-%dT%H%M%S" if "T" in name else "%Y-%m-%d"
    return datetime.strptime(name, form).replace(tzinfo=UTC)
