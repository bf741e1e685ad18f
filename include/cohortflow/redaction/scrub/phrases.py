"""Finds phrases and numbers that are known from the raw zone among the words of texts.

Phrases of several words are met by joining: the words that begin one, with those that follow, beside all
phrases of that size. An automaton over all phrases would have to be built anew for every batch, and says
where it matched, but not within which words.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import polars as pl

from cohortflow.redaction.scrub.identity import LONGEST_PHRASE, Identities, phrase_bit
from cohortflow.redaction.scrub.words import MOST_DIGITS, Places, Words

__all__ = ["find_numbers", "find_phrases"]

_PARTS: Final = 6
_WITHIN, _MOST_WITHIN = b" .()/_+-", 2
"""What may stand between the parts of a number, and how many characters of it."""
_FOUND: Final = pl.Schema({"row": pl.UInt32(), "start": pl.Int64(), "end": pl.Int64(), "tag": pl.String()})


def find_phrases(words: Words, known: Identities) -> pl.DataFrame:
    """Return where known phrases stand.

    Args:
        words: All words of the texts.
        known: Phrases; those of a patient count in that patient's texts.

    Returns:
        ``row``, ``start``, ``end``, ``tag``.
    """
    met = words.distinct.select("word").join(known.places, on="word", how="left", maintain_order="left")
    bits = met["bits"].fill_null(0).to_numpy()[words.code]
    begins = np.flatnonzero(bits)
    parts: list[tuple[Places, int]] = []
    for size in range(1, LONGEST_PHRASE + 1):
        starts = words.follow(begins[bits[begins] & phrase_bit(size, 0) != 0], size - 1)
        for place in range(1, size):
            starts = starts[bits[starts + place] & phrase_bit(size, place) != 0]
        parts.append((starts, size))
    candidates = _put_together(words, parts, " ")
    return _meet(candidates.rename({"joined": "phrase"}), known.phrases, "phrase")


def find_numbers(words: Words, known: Identities) -> pl.DataFrame:
    """Return where known numbers stand, whichever way their digits are grouped.

    Args:
        words: All words of the texts.
        known: Numbers; short ones of a patient count in that patient's texts.

    Returns:
        ``row``, ``start``, ``end``, ``tag``.
    """
    digits = words.flags(pl.col("digit"))
    # "MRN-00 12 34": letters in front belong to some numbers.
    letters = known.numbers["number"].str.extract(r"^([^0-9]+)").unique().drop_nulls()
    short = words.flags(pl.col("word").is_in(letters.implode()))
    short[:-1] &= digits[1:]
    short[-1:] = False
    shortest = int(str(known.numbers["number"].str.len_bytes().min() or 0))
    starts = np.flatnonzero(digits | short)
    linked = words.link(_WITHIN, _MOST_WITHIN)
    number = _Number(words, starts)
    parts: list[tuple[Places, int]] = []
    values = _to_values(known.numbers["number"])
    values.sort()
    for size in range(1, _PARTS + 1):
        if size > 1:
            # Those whose parts are near each other go on to the next size.
            inside = starts + size <= len(words)
            inside[inside] = linked[starts[inside] + size - 1]
            starts = starts[inside]
            number = number.extend(words, starts + size - 1, inside)
        able = (number.length >= shortest) & ((number.value < 0) | _is_among(number.value, values))
        parts.append((starts[able], size))
    candidates = _put_together(words, parts, "")
    candidates = candidates.with_columns(pl.col("joined").str.strip_chars_start("0"))
    return _meet(candidates.rename({"joined": "number"}), known.numbers, "number")


class _Number:
    """What words are as numbers together, so that few have to be written as texts.

    Attributes:
        length: How many characters.
        value: Its value; -1 for what has letters or is too long.
    """

    def __init__(self, words: Words, at: Places) -> None:
        self.length = words.distinct["size"].to_numpy()[words.code[at]]
        self.value = words.distinct["value"].to_numpy()[words.code[at]]

    def extend(self, words: Words, at: Places, kept: np.ndarray[Any, np.dtype[np.bool_]]) -> _Number:
        """Return some of the numbers with another word behind each."""
        other = _Number(words, at)
        value, length = self.value[kept], self.length[kept] + other.length
        able = (value >= 0) & (other.value >= 0) & (length <= MOST_DIGITS)
        # Where it is not able, neither the power nor the product means anything.
        power = 10 ** np.where(able, other.length, 0)
        other.value = np.where(able, np.where(able, value, 0) * power + other.value, -1)
        other.length = length
        return other


def _to_values(numbers: pl.Series) -> Places:
    short = numbers.filter(numbers.str.len_bytes() <= MOST_DIGITS)
    return short.cast(pl.Int64, strict=False).drop_nulls().to_numpy(writable=True)


def _is_among(values: Places, ordered: Places) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if not len(ordered):
        return np.zeros(len(values), dtype=np.bool_)
    place = np.searchsorted(ordered, values).clip(0, len(ordered) - 1)
    return np.asarray(ordered[place] == values, dtype=np.bool_)


def _put_together(words: Words, parts: list[tuple[Places, int]], between: str) -> pl.DataFrame:
    """Return words, each with so many that follow: ``row``, ``start``, ``end``, ``owner``, ``joined``.

    Args:
        words: All words of the texts.
        parts: First words, with how many words are put together.
        between: What parts them.
    """
    starts = np.concatenate([first for first, _ in parts])
    sizes = np.repeat([size for _, size in parts], [len(first) for first, _ in parts])
    spelled = []
    for step in range(max((size for first, size in parts if len(first)), default=1)):
        has = sizes > step
        word = words.spell(np.where(has, starts + step, 0))
        spelled.append(pl.when(pl.Series(has)).then(word).alias(f"@{step}"))
    frame = words.locate(starts, starts + sizes - 1)
    return frame.with_columns(joined=pl.concat_str(spelled, separator=between, ignore_nulls=True))


def _meet(candidates: pl.DataFrame, known: pl.DataFrame, key: str) -> pl.DataFrame:
    met = candidates.join(known.rename({"owner": "of"}), on=key)
    return met.filter(pl.col("of").is_null() | (pl.col("of") == pl.col("owner"))).select(_FOUND.names())
