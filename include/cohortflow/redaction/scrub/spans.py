"""Where something stands in texts: found by expressions, made one, and written over.

A span is a row of a series of texts and two places in it, counted in bytes of UTF-8. Polars finds what
matches an expression but not where: the texts between the matches tell. All works on whole columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import polars as pl

__all__ = ["SPANS", "cut_texts", "find_spans", "join_neighbours", "merge_spans", "write_over"]

SPANS: Final = pl.Schema(
    {
        "row": pl.UInt32(),
        "start": pl.Int64(),
        "end": pl.Int64(),
        "tag": pl.String(),
        "rank": pl.Int8(),
        "put": pl.String(),
    }
)
"""Schema of spans: ``tag`` is what it is, ``put`` what takes its place; of several that overlap, the one with
the least ``rank`` says what it is."""

_FOUND: Final = pl.Schema({"row": pl.UInt32(), "start": pl.Int64(), "end": pl.Int64(), "text": pl.String()})
_ROW_BITS: Final = 32
_BETWEEN: Final = r"^[ \t]{0,2}[,.'\x{2019}-]?[ \t]{0,2}(?:[A-Z]\.?)?[ \t]{0,2}$"
_LONGEST_BETWEEN: Final = 6

_Ints = np.ndarray[Any, np.dtype[np.int64]]


def find_spans(texts: pl.Series, expression: str) -> pl.DataFrame:
    """Return where an expression matches, leftmost first, without overlaps.

    Args:
        texts: The texts.
        expression: In the syntax of Rust; it never matches the empty text.

    Returns:
        ``row: u32``, ``start: i64``, ``end: i64``, ``text: str``.
    """
    found = texts.str.extract_all(expression)
    rows = (found.list.len() > 0).fill_null(value=False).arg_true()
    found = found.gather(rows)
    counts = found.list.len()
    if rows.is_empty():
        return _FOUND.to_frame()
    lengths = _to_numpy(counts)
    pieces = texts.gather(rows).to_frame("text").select(pl.col("text").str.split(expression, literal=False))
    before = _to_numpy(pieces["text"].explode().str.len_bytes())
    # What stands behind the last match of a text is no gap.
    before = np.delete(before, np.cumsum(lengths + 1) - 1)
    matches = found.explode()
    widths = _to_numpy(matches.str.len_bytes())
    ends = np.cumsum(widths + before)
    last = np.cumsum(lengths) - 1
    ends -= np.repeat(np.concatenate(([0], ends[last][:-1])), lengths)
    row = np.repeat(_to_numpy(rows), lengths)
    places = (
        pl.Series("row", row, dtype=pl.UInt32),
        pl.Series("start", ends - widths),
        pl.Series("end", ends),
    )
    return pl.DataFrame([*places, matches.alias("text")])


def merge_spans(spans: pl.DataFrame, protected: pl.DataFrame) -> pl.DataFrame:
    """Return spans that do not overlap: those that do become one, which says what the first in rank is.

    What takes the place of several is the tag of the first in rank, unless it covers all of them.

    Args:
        spans: Rows with ``SPANS``.
        protected: Rows with ``SPANS`` that stay as they are; what overlaps with one of them is left out.

    Returns:
        Rows with ``SPANS``, in the order of the texts.
    """
    both = pl.concat([protected.with_columns(rank=pl.lit(-1, dtype=pl.Int8)), spans])
    if both.is_empty():
        return SPANS.to_frame()
    both = both.sort("row", "start", "rank")
    both = both.with_columns(group=_group_overlapping(both))
    if not protected.is_empty():
        stays = pl.col("rank") < 0
        both = both.filter(~stays.any().over("group") | stays)
    first = both.sort("group", "rank", pl.col("start") - pl.col("end")).group_by("group", maintain_order=True)
    merged = first.agg(
        pl.col("row", "tag", "rank", "put").first(),
        pl.col("start").min(),
        pl.col("end").max(),
        covered=(pl.col("start").first() == pl.col("start").min())
        & (pl.col("end").first() == pl.col("end").max()),
    )
    put = pl.when("covered").then("put").otherwise(pl.lit(None, dtype=pl.String))
    return merged.with_columns(put=put).select(SPANS.names())


def _group_overlapping(spans: pl.DataFrame) -> pl.Series:
    """Number the groups of sorted spans of which each overlaps with one before it in the group."""
    shift = _to_numpy(spans["row"]) << _ROW_BITS
    starts, ends = shift + _to_numpy(spans["start"]), shift + _to_numpy(spans["end"])
    begins = np.ones(len(starts), dtype=np.int64)
    begins[1:] = starts[1:] >= np.maximum.accumulate(ends)[:-1]
    return pl.Series(np.cumsum(begins))


def join_neighbours(texts: pl.Series, spans: pl.DataFrame, tags: Iterable[str]) -> pl.DataFrame:
    """Make one span of neighbours with one tag between which are only blanks, a comma or an initial.

    Args:
        texts: The texts.
        spans: Rows with ``SPANS``, in order, without overlaps.
        tags: Tags of which neighbours are joined.
    """
    if spans.is_empty():
        return spans
    near = spans.with_columns(
        previous=pl.col("end").shift(1),
        near=(pl.col("row") == pl.col("row").shift(1))
        & pl.col("tag").is_in(list(tags))
        & (pl.col("tag").shift(1) == pl.col("tag"))
        & ((pl.col("start") - pl.col("end").shift(1)) <= _LONGEST_BETWEEN),
    ).with_columns(pl.col("near").fill_null(value=False))
    close = near.with_row_index("at").filter("near")
    gaps = cut_texts(texts, close["row"], close["previous"], close["start"])
    together = close["at"].filter(gaps.str.contains(_BETWEEN))
    begins = np.ones(spans.height, dtype=np.int64)
    begins[_to_numpy(together)] = 0
    grouped = spans.with_columns(group=pl.Series(np.cumsum(begins)))
    merged = grouped.group_by("group", maintain_order=True).agg(
        pl.col("row", "start").first(), pl.col("end").max(), pl.col("tag", "rank", "put").first()
    )
    return merged.select(SPANS.names())


def write_over(texts: pl.Series, spans: pl.DataFrame) -> pl.Series:
    """Return texts with what takes the place of each span; nulls stay null.

    Args:
        texts: The texts.
        spans: Rows with ``SPANS``, in order, without overlaps; none has a null ``put``.
    """
    if spans.is_empty():
        return texts
    before = pl.col("end").shift(1).over("row").fill_null(0)
    pieces = spans.with_columns(before=before)
    gaps = cut_texts(texts, pieces["row"], pieces["before"], pieces["start"])
    last = spans.group_by("row", maintain_order=True).agg(pl.col("end").last())
    rest = cut_texts(texts, last["row"], last["end"], None)
    written = (
        pl.DataFrame({"row": spans["row"], "text": gaps + spans["put"]})
        .group_by("row", maintain_order=True)
        .agg(pl.col("text").str.join(""))
    )
    return texts.clone().scatter(written["row"], written["text"] + rest)


def cut_texts(texts: pl.Series, rows: pl.Series, start: pl.Series, end: pl.Series | None) -> pl.Series:
    """Return parts of texts by bytes; the places are borders of characters."""
    data = texts.gather(rows).cast(pl.Binary)
    frame = pl.DataFrame({"data": data, "start": start, "end": end if end is not None else data.bin.size()})
    part = pl.col("data").bin.slice(pl.col("start"), pl.col("end").cast(pl.Int64) - pl.col("start"))
    return frame.select(part.cast(pl.String)).to_series()


def _to_numpy(values: pl.Series) -> _Ints:
    return values.cast(pl.Int64).to_numpy(writable=True)
