"""Finds names of persons who are known from the raw zone among the words of texts."""

from __future__ import annotations

from typing import Final

import polars as pl

from cohortflow.redaction.scrub.identity import Identities, delete_one, fold
from cohortflow.redaction.scrub.lexicon import Lexicon
from cohortflow.redaction.scrub.spans import find_spans

__all__ = ["WORD", "find_names", "split_words"]

WORD: Final = r"[\pL\pM\pN]+"
"""A word, as an expression: what the leak gate parts words by does so here."""

_NEW_SENTENCE: Final = r"[.!?:;\n\r\x{2022}*|-]"
_INITIAL: Final = r"^\p{Lu}$"
_SHORTEST_TYPO: Final = 4


def split_words(texts: pl.Series, subjects: pl.Series, lexicon: Lexicon) -> pl.DataFrame:
    """Return the words of texts.

    Args:
        texts: The texts.
        subjects: Whose each of them is.
        lexicon: Words that mean something else.

    Returns:
        ``at: u32`` (a number for each word), ``row``, ``start``, ``end``, ``text``, ``gap`` as of
        ``find_spans``, ``word`` (the form that is looked for), ``owner``, ``capital`` (begins with one),
        ``digit`` (has one), ``rare`` (letters that are no common word).
    """
    found = find_spans(texts, WORD)
    distinct = pl.DataFrame({"text": found["text"].unique()})
    distinct = distinct.with_columns(
        word=fold(distinct["text"]),
        capital=pl.col("text").str.contains(r"^\p{Lu}"),
        digit=pl.col("text").str.contains(r"\pN"),
    )
    rare = ~pl.col("word").is_in(sorted(lexicon.common)) & ~pl.col("digit")
    distinct = distinct.with_columns(rare=rare)
    owners = subjects.gather(found["row"]).alias("owner")
    words = found.with_columns(owners).join(distinct, on="text", how="left", maintain_order="left")
    return words.with_row_index("at")


def find_names(words: pl.DataFrame, known: Identities, lexicon: Lexicon) -> pl.DataFrame:
    """Return the words that are names of persons.

    Args:
        words: As of ``split_words``, complete and in order.
        known: Names.
        lexicon: What is no name where it stands.

    Returns:
        ``row``, ``start``, ``end``.
    """
    hits = pl.concat(
        [
            _find_own(words, known),
            _find_others(words, known),
            _find_typed(words, known),
        ]
    ).unique()
    hits = pl.concat([hits, _find_beside(words, hits, lexicon)]).unique()
    hits = pl.concat([hits, _find_initials(words, known), _find_initials_beside(words, hits)])
    return words.join(hits, on="at", how="semi").select("row", "start", "end")


def _find_own(words: pl.DataFrame, known: Identities) -> pl.DataFrame:
    candidates = words.filter(pl.col("word").is_in(known.own["word"].unique().implode()))
    met = candidates.join(known.own, on=["owner", "word"])
    # "Will follow up" is not about William; "spoke with Will" is.
    opens = (pl.col("start") == pl.col("gap").str.len_bytes()) | pl.col("gap").str.contains(_NEW_SENTENCE)
    opening = pl.col("nickname") & opens & ~pl.col("rare")
    return met.filter((pl.col("any_case") | pl.col("capital")) & ~opening).select("at")


def _find_others(words: pl.DataFrame, known: Identities) -> pl.DataFrame:
    # In any case, and before "disease" too: the leak gate would not tell them apart.
    return words.filter(pl.col("word").is_in(known.others["word"].implode())).select("at")


def _find_beside(words: pl.DataFrame, hits: pl.DataFrame, lexicon: Lexicon) -> pl.DataFrame:
    """Find words with a capital that stand before or after a name and mean nothing else: ``Zelda Doe``."""
    named = words.join(hits, on="at", how="semi")
    found = []
    for step in (-1, 1):
        beside = _neighbour(words, named, step)
        gap = named["gap"] if step < 0 else beside["gap"]
        plain = (
            pl.col("capital")
            & (gap == " ")
            & pl.col("rare")
            & ~pl.col("word").is_in(sorted(lexicon.titles | lexicon.eponym_heads))
            & pl.col("text").str.contains(r"^\p{Lu}\p{Ll}[\pL\pM]+$")
        )
        found.append(beside.filter(plain).select("at"))
    return pl.concat(found)


def _neighbour(words: pl.DataFrame, some: pl.DataFrame, step: int) -> pl.DataFrame:
    """Return the words that stand some steps from others; nulls where a text begins or ends."""
    place = some["at"].cast(pl.Int64) + step
    inside = pl.select(pl.when(place.is_between(0, words.height - 1)).then(place)).to_series()
    beside = words[["at", "row", "text", "gap", "word", "capital", "rare"]].select(pl.all().gather(inside))
    same = beside["row"] == some["row"]
    return beside.select(pl.when(same).then(pl.all()))


def _find_typed(words: pl.DataFrame, known: Identities) -> pl.DataFrame:
    """Find names of the patient with one slip: a letter wrong, too much, missing, or two changed places."""
    able = words.filter("capital", "rare").filter(pl.col("word").str.len_chars() >= _SHORTEST_TYPO)
    # Words that could be anyone's name come first: they are fewer than those of each patient.
    near = delete_one(able.select("word").unique()).join(known.typed, on="key", how="semi")
    distinct = able.select("owner", "word").unique().join(near, on="word", how="semi")
    near = delete_one(distinct).join(known.typed.rename({"word": "name"}), on=["owner", "key"])
    pairs = near.select("word", "name").unique()
    real = [_is_one_slip(word, name) for word, name in pairs.iter_rows()]
    near = near.join(pairs.filter(pl.Series(real, dtype=pl.Boolean)), on=["word", "name"], how="semi")
    return able.join(near, on=["owner", "word"], how="semi").select("at")


def _is_one_slip(word: str, name: str) -> bool:
    """Whether words that have a common rest after a letter of each was taken out differ by one slip."""
    if len(word) != len(name):
        return True
    wrong = [place for place, (one, other) in enumerate(zip(word, name, strict=True)) if one != other]
    if len(wrong) <= 1:
        return True
    left, right = wrong[0], wrong[-1]
    return len(wrong) == 2 and right == left + 1 and word[left : right + 1] == name[left : right + 1][::-1]  # noqa: PLR2004


def _find_initials(words: pl.DataFrame, known: Identities) -> pl.DataFrame:
    """Find the patient's initials where points part them: ``J. Q. D.``."""
    single = words.filter(pl.col("text").str.contains(_INITIAL))
    found = []
    for size in (2, 3):
        steps = range(1, size)
        parts = [pl.col("word").shift(-step) for step in steps]
        together = [
            (pl.col("at").shift(-step) == pl.col("at") + step)
            & (pl.col("row").shift(-step) == pl.col("row"))
            & pl.col("gap").shift(-step).str.contains(r"^\. ?$")
            for step in steps
        ]
        starts = single.with_columns(phrase=pl.concat_str(pl.col("word"), *parts, separator=" ")).filter(
            pl.all_horizontal(together)
        )
        met = starts.join(known.initials, on=["owner", "phrase"], how="semi")
        found += [met.select(pl.col("at") + step) for step in range(size)]
    return pl.concat(found)


def _find_initials_beside(words: pl.DataFrame, hits: pl.DataFrame) -> pl.DataFrame:
    """Find single letters beside a name: ``J. Doe``, ``Doe, J.``, and what ``O'Brien`` begins with."""
    named = words.join(hits, on="at", how="semi")
    before, after, further = (_neighbour(words, named, step) for step in (-1, 1, 2))
    single = pl.col("text").str.contains(_INITIAL)
    found = before.filter(single & named["gap"].str.contains(r"^(?:\. ?|['\x{2019}])$")).select("at")
    ended = after["gap"].str.contains(r"^,? $") & further["gap"].str.starts_with(".")
    return pl.concat([found, after.filter(single & ended).select("at")])
