"""Finds phrases and numbers that are known from the raw zone among the words of texts.

Phrases of several words are met by joining: the words that begin one, with those that follow, beside all
phrases of that size. An automaton over all phrases would have to be built anew for every batch, and says
where it matched, but not within which words.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from cohortflow.redaction.scrub.identity import Identities

__all__ = ["find_numbers", "find_phrases"]

_PARTS: Final = 6
_WITHIN: Final = r"^[ .()/_+-]{0,2}$"
_FOUND: Final = pl.Schema({"row": pl.UInt32(), "start": pl.Int64(), "end": pl.Int64(), "tag": pl.String()})


def find_phrases(words: pl.DataFrame, known: Identities) -> pl.DataFrame:
    """Return where known phrases stand.

    Args:
        words: As of ``split_words``, complete and in order.
        known: Phrases; those of a patient count in that patient's texts.

    Returns:
        ``row``, ``start``, ``end``, ``tag``.
    """
    found = [_FOUND.to_frame()]
    firsts = known.phrases["phrase"].str.extract(r"^([^ ]+)").unique()
    starts = words.filter(pl.col("word").is_in(firsts.implode()))
    for (size,), phrases in known.phrases.group_by("size"):
        first = phrases["phrase"].str.extract(r"^([^ ]+)").unique()
        some = starts.filter(pl.col("word").is_in(first.implode()))
        candidates = _put_together(words, some, int(str(size)), " ")
        met = _meet(candidates.rename({"joined": "phrase"}), phrases, "phrase")
        found.append(met.select(_FOUND.names()))
    return pl.concat(found)


def find_numbers(words: pl.DataFrame, known: Identities) -> pl.DataFrame:
    """Return where known numbers stand, whichever way their digits are grouped.

    Args:
        words: As of ``split_words``, complete and in order.
        known: Numbers; short ones of a patient count in that patient's texts.

    Returns:
        ``row``, ``start``, ``end``, ``tag``.
    """
    # "MRN-00 12 34": letters in front belong to some numbers.
    digits = pl.col("digit")
    prefix = digits.shift(-1).fill_null(value=False) & (pl.col("word").str.len_bytes() <= 4)  # noqa: PLR2004
    starts = words.filter(digits | prefix)
    found = [_FOUND.to_frame()]
    for size in range(1, _PARTS + 1):
        candidates = _put_together(words, starts, size, "")
        if size > 1:
            # Those whose parts are near each other go on to the next size.
            candidates = candidates.filter(words["gap"].gather(candidates["last"]).str.contains(_WITHIN))
            starts = starts.join(candidates, on="at", how="semi")
        met = _meet(candidates.rename({"joined": "number"}), known.numbers, "number")
        found.append(met.select(_FOUND.names()))
    return pl.concat(found)


def _put_together(words: pl.DataFrame, starts: pl.DataFrame, size: int, between: str) -> pl.DataFrame:
    """Return words with those that follow them: ``joined``, ``start``, ``end``, ``last`` (its place)."""
    starts = starts.filter(pl.col("at") + size <= words.height).with_columns(last=pl.col("at") + size - 1)
    starts = starts.filter(words["row"].gather(starts["last"]) == starts["row"])
    parts = [words["word"].gather(starts["at"] + step).alias(f"@{step}") for step in range(size)]
    ends = words["end"].gather(starts["last"]).alias("end")
    return starts.with_columns(*parts, ends).with_columns(
        joined=pl.concat_str([f"@{step}" for step in range(size)], separator=between)
    )


def _meet(candidates: pl.DataFrame, known: pl.DataFrame, key: str) -> pl.DataFrame:
    met = candidates.join(known.rename({"owner": "of"}), on=key)
    return met.filter(pl.col("of").is_null() | (pl.col("of") == pl.col("owner")))
