"""The words of texts, with their places.

Texts have a million words to eight megabytes, of which some ten thousand differ. What a word is like is told
of each distinct one; where it stands is kept in arrays, and only of the few that matter a table is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from cohortflow.redaction.leaks.normalize import normalize
from cohortflow.redaction.scrub.lexicon import Lexicon

__all__ = ["MOST_DIGITS", "WORD", "Places", "Words", "fold", "split_runs", "split_words"]

WORD: Final = r"[\pL\pM\pN]+"
"""A word, as an expression: what the leak gate parts words by does so here."""

MOST_DIGITS: Final = 18
"""Digits of numbers whose value is told."""
_RUN: Final = r"\pN+|\p{Lu}?[^\pN\p{Lu}]+|\p{Lu}+"
_GLUED: Final = r"[^\pN]\pN|\pN[^\pN]|\p{Ll}\p{Lu}"
"""A word in which others stand: letters and digits, or a capital after a small letter."""
_BESIDE: Final = 5
_NEW_LINE: Final = ord("\n")
_CODE_POINTS: Final = 0x110000

Places = np.ndarray[Any, np.dtype[np.int64]]
"""Numbers of words, or places in texts."""
_Bytes = np.ndarray[Any, np.dtype[np.uint8]]
_Flags = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Words:
    """The words of texts in their order.

    Attributes:
        distinct: One row for each distinct word: ``text``, ``word`` (the form that is looked for),
            ``capital`` (begins with one), ``single`` (is one), ``digit`` (has one), ``size`` (bytes of
            ``word``), ``value`` (of what is digits alone, else -1), ``rare`` (letters, and no common word).
        code: By word, the row in ``distinct``.
        row: By word, the number of its text.
        start: By word, the byte of ``data`` at which it begins.
        end: By word, the byte before which it ends.
        owners: By text, whose it is.
        pieces: What stands between words, and words, in turn.
        data: The bytes of all texts, one behind another.
        begin: By text, where it begins in them.
        borders: By word, where what is taken out with it begins and ends; the word itself where ``None``.
    """

    distinct: pl.DataFrame = field(repr=False)
    code: Places = field(repr=False)
    row: Places = field(repr=False)
    start: Places = field(repr=False)
    end: Places = field(repr=False)
    owners: pl.Series = field(repr=False)
    pieces: pl.Series = field(repr=False)
    data: _Bytes = field(repr=False)
    begin: Places = field(repr=False)
    borders: tuple[Places, Places] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.code)

    def where(self, is_one: pl.Expr) -> Places:
        """Return the numbers of the words for whose row in ``distinct`` an expression holds."""
        return np.flatnonzero(self.flags(is_one))

    def flags(self, is_one: pl.Expr) -> _Flags:
        """Return by word whether an expression holds for its row in ``distinct``."""
        told = self.distinct.select(is_one.fill_null(value=False)).to_series()
        return np.asarray(told.to_numpy(), dtype=np.bool_)[self.code]

    def pick(self, at: Places) -> pl.DataFrame:
        """Return some words: ``at``, what ``locate`` returns, and the columns of ``distinct``."""
        told = self.distinct.select(pl.all().gather(pl.Series(self.code[at], dtype=pl.UInt32)))
        return pl.DataFrame([pl.Series("at", at, dtype=pl.Int64), *self.locate(at, at), *told])

    def locate(self, first: Places, last: Places) -> pl.DataFrame:
        """Return where the first to the last of some words stand: ``row``, ``start``, ``end``, ``owner``."""
        row = self.row[first]
        begin = self.begin[row]
        rows = pl.Series("row", row, dtype=pl.UInt32)
        start, end = (self.start, self.end) if self.borders is None else self.borders
        places = (pl.Series("start", start[first] - begin), pl.Series("end", end[last] - begin))
        return pl.DataFrame([rows, *places, self.owners.gather(rows).alias("owner")])

    def spell(self, at: Places) -> pl.Series:
        """Return the forms of some words that are looked for."""
        return self.distinct["word"].gather(pl.Series(self.code[at], dtype=pl.UInt32))

    def gaps(self, at: Places) -> pl.Series:
        """Return what stands before each of some words; it may begin in the text before."""
        return self.pieces.gather(pl.Series(at * 2, dtype=pl.UInt32))

    def link(self, between: bytes, most: int) -> _Flags:
        """Return by word whether only few characters, of some, are between it and the one before in its text.

        Args:
            between: The characters, of ASCII.
            most: How many of them there may be.
        """
        able = np.zeros(256, dtype=np.bool_)
        able[np.frombuffer(between, dtype=np.uint8)] = True
        found = np.zeros(len(self), dtype=np.bool_)
        size = self.start[1:] - self.end[:-1]
        found[1:] = (size <= most) & (self.row[1:] == self.row[:-1])
        for step in range(most):
            more = np.flatnonzero(found[1:] & (size > step))
            found[more + 1] = able[self.data[self.end[more] + step]]
        return found

    def after_breaks(self) -> Places:
        """Return the words before which a line of their text ends, that are not its first."""
        ends = np.flatnonzero(self.data == _NEW_LINE)
        at = np.searchsorted(self.start, ends)
        at = at[at < len(self)]
        at = at[np.diff(at, prepend=-1) > 0]
        return at[self.follows(at, -1)]

    def follows(self, at: Places, steps: int) -> _Flags:
        """Return of some words whether there are as many after them in their text, or before if negative."""
        last = at + steps
        inside = (last >= 0) & (last < len(self))
        last[~inside] = 0
        return np.asarray(inside & (self.row[last] == self.row[at]), dtype=np.bool_)

    def follow(self, at: Places, steps: int) -> Places:
        """Return those of some words for which ``follows`` holds."""
        return at[self.follows(at, steps)]


def fold(words: pl.Series) -> pl.Series:
    """Return single words in the form in which they are looked for."""
    return normalize(words).str.replace_all(" ", "", literal=True)


def split_words(texts: pl.Series, subjects: pl.Series, lexicon: Lexicon) -> Words:
    """Return the words of texts.

    Args:
        texts: The texts.
        subjects: Whose each of them is.
        lexicon: Words that mean something else.
    """
    array = texts.fill_null("").rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer or b"", dtype=np.uint8)[: offsets[-1]]
    starts, ends = _find_borders(data, offsets)
    row = np.repeat(np.arange(len(texts)), np.diff(np.searchsorted(starts, offsets)))
    pieces = _cut(starts, ends, data)
    code, distinct = _tell_apart(pieces.gather_every(2, 1))
    places = (code, row, starts, ends)
    owners = subjects.cast(pl.String)
    return Words(_describe(distinct, lexicon), *places, owners, pieces, data, offsets[:-1])


def split_runs(words: Words, lexicon: Lexicon) -> Words:
    """Return what words that are glued together consist of: ``MRN00123457``, ``White2020``, ``DrWhite``.

    Args:
        words: The words.
        lexicon: Words that mean something else.

    Returns:
        The runs of letters and of digits of such words, and the numbers near them; without ``pieces``. With
        one of them the whole word is taken out: what is left of it could be another name.
    """
    glued = words.where(pl.col("text").str.contains(_GLUED))
    near = np.zeros(len(words), dtype=np.bool_)
    for step in range(-_BESIDE, _BESIDE + 1):
        near[(glued + step).clip(0, len(words) - 1)] = True
    near &= words.flags(pl.col("digit"))
    near[glued] = True
    chosen = np.flatnonzero(near)
    codes, of = np.unique(words.code[chosen], return_inverse=True)
    parts = words.distinct["text"].gather(pl.Series(codes, dtype=pl.UInt32)).str.extract_all(_RUN)
    counts = parts.list.len().cast(pl.Int64).to_numpy()
    runs = parts.explode().drop_nulls()
    size = runs.str.len_bytes().cast(pl.Int64).to_numpy()
    begin = np.cumsum(size) - size
    first = np.cumsum(counts) - counts
    begin -= np.repeat(begin[first], counts) if len(begin) else begin
    # Each word with as many rows as it has runs.
    times = counts[of]
    rows = np.repeat(first[of] - (np.cumsum(times) - times), times) + np.arange(int(times.sum()))
    start = np.repeat(words.start[chosen], times) + begin[rows]
    places = (rows, np.repeat(words.row[chosen], times), start, start + size[rows])
    nothing = pl.Series(dtype=pl.String)
    borders = (np.repeat(words.start[chosen], times), np.repeat(words.end[chosen], times))
    table = _describe(runs, lexicon)
    return Words(table, *places, words.owners, nothing, words.data, words.begin, borders)


def _find_borders(data: _Bytes, offsets: Places) -> tuple[Places, Places]:
    """Return where words begin and end in texts that stand one behind another."""
    inside = np.zeros(256, dtype=np.bool_)
    inside[np.frombuffer(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", np.uint8)] = True
    marks = inside[data]
    marks[: offsets[0]] = False
    _mark_wide(data, marks)
    begins, closes = marks.copy(), marks.copy()
    begins[1:] &= ~marks[:-1]
    closes[:-1] &= ~marks[1:]
    # A word ends with its text.
    first, last = offsets[:-1][offsets[:-1] < len(data)], offsets[1:][offsets[1:] > 0] - 1
    begins[first] = marks[first]
    closes[last] = marks[last]
    return np.flatnonzero(begins), np.flatnonzero(closes) + 1


def _mark_wide(data: _Bytes, marks: _Flags) -> None:
    """Mark the bytes of letters and digits beyond ASCII."""
    lead = np.flatnonzero(data >= 0xC0)  # noqa: PLR2004 - the first byte of a character of several
    if not lead.size:
        return
    first = data[lead].astype(np.int64)
    size = 2 + (first >= 0xE0) + (first >= 0xF0)  # noqa: PLR2004 - three bytes, four
    point = first & np.array([0, 0, 0x1F, 0x0F, 0x07])[size]
    for step in (1, 2, 3):
        more = size > step
        point[more] = (point[more] << 6) | (data[lead[more] + step] & 0x3F)
    seen = np.zeros(_CODE_POINTS, dtype=np.bool_)
    seen[point] = True
    points = np.flatnonzero(seen)
    characters = pl.Series([chr(one) for one in points], dtype=pl.String)
    seen[points] = characters.str.contains(WORD).to_numpy()
    told = seen[point]
    marks[lead] = told
    for step in (1, 2, 3):
        more = size > step
        marks[lead[more] + step] = told[more]


def _cut(starts: Places, ends: Places, data: _Bytes) -> pl.Series:
    """Return what stands between words, and words, in turn, without a copy of the texts."""
    borders = np.zeros(2 * len(starts) + 2, dtype=np.int64)
    borders[1:-1:2], borders[2:-1:2], borders[-1] = starts, ends, len(data)
    buffers = [None, pa.py_buffer(borders), pa.py_buffer(data)]
    pieces = pa.LargeStringArray.from_buffers(len(borders) - 1, *buffers[1:])
    return pl.Series("text", pl.from_arrow(pieces), dtype=pl.String)


def _tell_apart(words: pl.Series) -> tuple[Places, pl.Series]:
    """Return a number for each word, and the distinct words by their numbers."""
    coded = words.cast(pl.Categorical(pl.Categories.random()))
    first = coded.arg_unique()
    numbers = coded.to_physical().cast(pl.Int64).to_numpy()
    places = np.zeros(int(numbers.max(initial=-1)) + 1, dtype=np.int64)
    places[numbers[first.to_numpy()]] = np.arange(len(first))
    return places[numbers], words.gather(first)


def _describe(distinct: pl.Series, lexicon: Lexicon) -> pl.DataFrame:
    text, word = pl.col("text"), pl.col("word")
    frame = pl.DataFrame([distinct.alias("text"), fold(distinct).alias("word")])
    return frame.with_columns(
        capital=text.str.contains(r"^\p{Lu}"),
        single=text.str.contains(r"^\p{Lu}$"),
        digit=text.str.contains(r"\pN"),
        size=word.str.len_bytes().cast(pl.Int64),
        value=pl.when(word.str.contains(rf"^[0-9]{{1,{MOST_DIGITS}}}$"))
        .then(word)
        .cast(pl.Int64, strict=False)
        .fill_null(-1),
    ).with_columns(rare=~word.is_in(sorted(lexicon.common)) & ~pl.col("digit"))
