"""JSON lines from columns: a resource is written once as a Python value and filled for all rows at a time.

A template is a JSON value in which some strings are slots:

- ``"Patient/{patient}"``: the column's text goes into the string;
- ``"{=value}"``: the column holds JSON and replaces the string with its quotes;
- the key ``"{+abatement}"``: the column holds a member with a comma after it (``"name":value,``), or
  nothing; such a key never stands last in its object.

Columns and literals need no escaping: generated text has no quotes, backslashes or control characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

__all__ = ["Calendar", "JsonTemplate", "concat", "take", "to_bytes"]

_SLOT = re.compile(r'"\{=(?P<json>\w+)\}"|"\{\+(?P<member>\w+)\}":null,|\{(?P<text>\w+)\}')
_MINUTES = 1440

Text = pl.Series | str


def concat(*pieces: Text) -> pl.Series:
    """Join literals and columns row by row."""
    columns = {f"c{i}": piece for i, piece in enumerate(pieces) if isinstance(piece, pl.Series)}
    expressions = [
        pl.col(f"c{i}") if f"c{i}" in columns else pl.lit(piece)
        for i, piece in enumerate(pieces)
        if isinstance(piece, pl.Series) or piece
    ]
    return pl.DataFrame(columns).select(text=pl.concat_str(expressions)).to_series()


def take(table: pl.Series, index: npt.NDArray[np.integer]) -> pl.Series:
    """Look up texts by position."""
    return table.gather(pl.Series(index.astype(np.uint32)))


def to_bytes(lines: pl.Series) -> memoryview:
    """Return the texts one after another as UTF-8, without copying them a second time."""
    array = lines.rechunk().to_arrow()
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int64, count=len(array) + 1, offset=array.offset * 8)
    return memoryview(array.buffers()[2])[int(offsets[0]) : int(offsets[-1])]


class JsonTemplate:
    """One resource type, or one datatype, as a JSON value with slots.

    Args:
        shape: The JSON value, with slots as the module describes.
        end: What follows the value; a newline makes JSON lines.
    """

    def __init__(self, shape: object, end: str = "\n") -> None:
        text = orjson.dumps(shape).decode() + end
        self._pieces: list[tuple[str, bool]] = []
        position = 0
        for match in _SLOT.finditer(text):
            if match.start() > position:
                self._pieces.append((text[position : match.start()], False))
            self._pieces.append((match[match.lastgroup or 0], True))
            position = match.end()
        self._pieces.append((text[position:], False))
        self.slots = frozenset(name for name, is_slot in self._pieces if is_slot)

    def render(self, columns: Mapping[str, Text]) -> pl.Series:
        """Fill the slots for all rows; a column may be one text for all of them."""
        return concat(*(columns[piece] if is_slot else piece for piece, is_slot in self._pieces))

    def render_one(self, columns: Mapping[str, str]) -> str:
        """Fill the slots once."""
        return "".join(columns[piece] if is_slot else piece for piece, is_slot in self._pieces)


class Calendar:
    """Dates and times as FHIR writes them, by look-up.

    Args:
        first: First day, in days since 1970-01-01.
        last: Last day.
        zones: Offsets from UTC in minutes, by their number.
    """

    def __init__(self, first: int, last: int, zones: tuple[int, ...]) -> None:
        self._first = first
        days = np.arange(first, last + 1).astype("datetime64[D]")
        self._days = pl.Series(np.datetime_as_string(days).tolist(), dtype=pl.String)
        self._zones = np.array(zones, dtype=np.int64)
        clock = [f"T{minute // 60:02}:{minute % 60:02}:00" for minute in range(_MINUTES)]
        offsets = [f"{'-' if zone < 0 else '+'}{abs(zone) // 60:02}:{abs(zone) % 60:02}" for zone in zones]
        self._local = pl.Series([time + offset for offset in offsets for time in clock])
        self._utc = pl.Series([time + "Z" for time in clock])

    def date(self, day: npt.NDArray[np.integer]) -> pl.Series:
        """Write days as ``date``."""
        return take(self._days, day - self._first)

    def local(
        self, day: npt.NDArray[np.integer], minute: npt.NDArray[np.integer], zone: npt.NDArray[np.integer]
    ) -> pl.Series:
        """Write local times as ``dateTime`` with their zone's offset."""
        return concat(self.date(day), take(self._local, zone * _MINUTES + minute))

    def instant(
        self, day: npt.NDArray[np.integer], minute: npt.NDArray[np.integer], zone: npt.NDArray[np.integer]
    ) -> pl.Series:
        """Write the same times as ``instant`` in UTC."""
        utc = day * _MINUTES + minute - self._zones[zone]
        return concat(self.date(utc // _MINUTES), take(self._utc, utc % _MINUTES))
