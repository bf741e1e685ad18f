"""Finds names of persons who are known from the raw zone among the words of texts."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from cohortflow.redaction.scrub.identity import Identities, delete_one
from cohortflow.redaction.scrub.lexicon import Lexicon
from cohortflow.redaction.scrub.words import Places, Words

__all__ = ["find_glued", "find_names"]

_NEW_SENTENCE: Final = r"[.!?:;\n\r\x{2022}*|-]"
_AFTER_INITIAL: Final = r"^(?:\. ?| |['`\x{2018}\x{2019}\x{02BC}\xB4])$"
_LONGEST_BREAK: Final = 8
_BREAK: Final = r"^-?[ \t]*\r?\n[ \t]*$"
_SHORTEST_TYPO: Final = 4
_SHORTEST_BROKEN: Final = 4


def find_names(words: Words, known: Identities, lexicon: Lexicon) -> pl.DataFrame:
    """Return the words that are names of persons.

    Args:
        words: All words of the texts.
        known: Names.
        lexicon: What is no name where it stands.

    Returns:
        ``row``, ``start``, ``end``.
    """
    hits = _unite(
        words,
        _find_own(words, known),
        _find_others(words, known),
        _find_typed(words, known),
        _find_broken(words, known),
    )
    hits = _unite(words, hits, _find_beside(words, hits, lexicon))
    hits = _unite(words, hits, _find_initials(words, known), _find_initials_beside(words, hits, known))
    return words.pick(hits).select("row", "start", "end")


def _unite(words: Words, *hits: Places) -> Places:
    """Return the numbers of words in order, each once."""
    marks = np.zeros(len(words), dtype=np.bool_)
    marks[np.concatenate(hits)] = True
    return np.flatnonzero(marks)


def _take(words: pl.DataFrame) -> Places:
    return words["at"].to_numpy()


def _find_own(words: Words, known: Identities) -> Places:
    candidates = words.pick(words.where(pl.col("word").is_in(known.own["word"].unique().implode())))
    met = candidates.join(known.own, on=["owner", "word"])
    # "Will follow up" is not about William; "spoke with Will" is.
    at = _take(met)
    first = (at == 0) | (words.row[at - 1] != words.row[at])
    opens = pl.Series(first) | words.gaps(at).str.contains(_NEW_SENTENCE)
    opening = pl.col("nickname") & opens & ~pl.col("rare")
    return _take(met.filter((pl.col("any_case") | pl.col("capital")) & ~opening))


def _find_others(words: Words, known: Identities) -> Places:
    # In any case, and before "disease" too: the leak gate would not tell them apart.
    return words.where(pl.col("word").is_in(known.others["word"].implode()))


def _find_beside(words: Words, hits: Places, lexicon: Lexicon) -> Places:
    """Find words with a capital that stand before or after a name and mean nothing else: ``Zelda Doe``."""
    rare = pl.col("rare") & ~pl.col("word").is_in(sorted(lexicon.titles | lexicon.eponym_heads))
    able = words.flags(rare & pl.col("text").str.contains(r"^\p{Lu}\p{Ll}[\pL\pM]+$"))
    upper = words.flags(rare & pl.col("text").str.contains(r"^\p{Lu}[\pL\pM]{2,}$"))
    found = []
    for step in (-1, 1):
        beside = words.follow(hits, step) + step
        beside = beside[upper[beside]]
        gaps = words.gaps(beside if step > 0 else beside + 1)
        found.append(beside[((gaps == " ").to_numpy() & able[beside]) | (gaps == "-").to_numpy()])
    return np.concatenate(found)


def _find_typed(words: Words, known: Identities) -> Places:
    """Find names of the patient with one slip: a letter wrong, too much, missing, or two changed places."""
    able = pl.col("capital") & pl.col("rare") & (pl.col("word").str.len_chars() >= _SHORTEST_TYPO)
    # Words that could be anyone's name come first: they are fewer than those of each patient.
    spelled = words.distinct.filter(able).select("word").unique()
    near = delete_one(spelled, each_once=False).join(known.typed, on="key", how="semi")["word"].unique()
    candidates = words.pick(words.where(able & pl.col("word").is_in(near.implode())))
    distinct = candidates.select("owner", "word").unique()
    met = delete_one(distinct).join(known.typed.rename({"word": "name"}), on=["owner", "key"])
    pairs = met.select("word", "name").unique()
    real = [_is_one_slip(word, name) for word, name in pairs.iter_rows()]
    met = met.join(pairs.filter(pl.Series(real, dtype=pl.Boolean)), on=["word", "name"], how="semi")
    return _take(candidates.join(met, on=["owner", "word"], how="semi"))


def _is_one_slip(word: str, name: str) -> bool:
    """Whether words that have a common rest after a letter of each was taken out differ by one slip."""
    if len(word) != len(name):
        return True
    wrong = [place for place, (one, other) in enumerate(zip(word, name, strict=True)) if one != other]
    if len(wrong) <= 1:
        return True
    left, right = wrong[0], wrong[-1]
    return len(wrong) == 2 and right == left + 1 and word[left : right + 1] == name[left : right + 1][::-1]  # noqa: PLR2004


def _find_initials(words: Words, known: Identities) -> Places:
    """Find the patient's initials where points part them: ``J. Q. D.``."""
    single = words.flags(pl.col("single"))
    starts = np.flatnonzero(single)
    found = [np.zeros(0, dtype=np.int64)]
    for size in (2, 3):
        starts = words.follow(starts, size - 1)
        starts = starts[single[starts + size - 1]]
        near = words.gaps(starts + size - 1).str.contains(r"^\. ?$").to_numpy()
        starts = starts[near]
        parts = [words.spell(starts + step).alias(str(step)) for step in range(size)]
        phrases = words.pick(starts).with_columns(pl.concat_str(parts, separator=" ").alias("phrase"))
        met = _take(phrases.join(known.initials, on=["owner", "phrase"], how="semi"))
        found += [met + step for step in range(size)]
    return np.concatenate(found)


def _find_initials_beside(words: Words, hits: Places, known: Identities) -> Places:
    """Find single letters beside a name: ``J. Doe``, ``Doe, J.``, ``Doe J``, ``O'Brien``."""
    single = words.flags(pl.col("single"))
    before = words.follow(hits, -1) - 1
    before = before[single[before]]
    near = words.gaps(before + 1).str.contains(_AFTER_INITIAL).to_numpy()
    after = words.follow(hits, 2) + 1
    after = after[single[after]]
    ended = words.gaps(after).str.contains(r"^,? $") & words.gaps(after + 1).str.starts_with(".")
    return np.concatenate([before[near], after[ended.to_numpy()], _find_letters(words, hits, known)])


def _find_letters(words: Words, hits: Places, known: Identities) -> Places:
    """Find the first letters of the patient's given names after a name: ``White M``, ``White, MQ``."""
    after = words.follow(hits, 1) + 1
    able = words.flags(pl.col("text").str.contains(r"^\p{Lu}{1,3}$"))
    after = after[able[after]]
    after = after[words.gaps(after).str.contains(r"^,? $").to_numpy()]
    return _take(words.pick(after).join(known.letters, on=["owner", "word"], how="semi"))


def _find_broken(words: Words, known: Identities) -> Places:
    """Find names of the patient that are broken at the end of a line: ``Mar-`` and ``garet``."""
    broken = words.after_breaks()
    last = broken[words.start[broken] - words.end[broken - 1] <= _LONGEST_BREAK] - 1
    last = last[words.gaps(last + 1).str.contains(_BREAK).to_numpy()]
    pairs = words.locate(last, last).with_columns(
        at=pl.Series(last, dtype=pl.Int64), word=words.spell(last) + words.spell(last + 1)
    )
    names = known.own.filter(~pl.col("nickname") & (pl.col("word").str.len_chars() >= _SHORTEST_BROKEN))
    met = _take(pairs.join(names, on=["owner", "word"], how="semi"))
    return np.concatenate([met, met + 1])


def find_glued(runs: Words, known: Identities) -> pl.DataFrame:
    """Return the names within words that are glued together.

    Args:
        runs: As of ``split_runs``.
        known: Names.

    Returns:
        ``row``, ``start``, ``end``.
    """
    names = known.own.filter(~pl.col("nickname") & (pl.col("word").str.len_chars() >= _SHORTEST_TYPO))
    own = runs.pick(runs.where(pl.col("word").is_in(names["word"].unique().implode())))
    own = own.join(names, on=["owner", "word"], how="semi").filter(pl.col("capital") | pl.col("rare"))
    hits = _unite(runs, _take(own), _find_others(runs, known))
    return runs.pick(hits).select("row", "start", "end")
