"""Candidates for a local code: the concepts whose terms are most like its name.

A text is described by its words and by its trigrams (runs of three characters, so that inflected,
abbreviated and misspelt words have something in common). For both, the likeness of two texts is the cosine
of their inverse-document-frequency vectors; their mean is the score, 0 to 1. Equal texts, case, accents and
punctuation aside, have 1. A concept scores as its best term.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from cohortflow.errors import InputError

__all__ = ["CANDIDATES", "TermIndex"]

CANDIDATES: Final = pl.Schema(
    {
        "query": pl.UInt32(),
        "rank": pl.UInt32(),
        "code": pl.String(),
        "term": pl.String(),
        "score": pl.Float64(),
    }
)
"""One row per candidate: place of the text in the query, rank from 1, the concept, its most similar term."""

_WORD, _GRAM = 0, 1
_CHUNK_TERMS = 65_536
"""Terms whose words and trigrams are in memory at once."""


@dataclass(frozen=True, slots=True)
class _Postings:
    """Which terms have each feature, for words or for trigrams.

    Attributes:
        numbers: Feature to its number.
        starts: Where the terms of a feature begin in ``terms``; one more than there are features.
        terms: Places of terms, those of a feature side by side.
        weights: Of each feature, squared.
        unseen: Squared weight of a feature that no term has.
        norms: Of each term.
    """

    numbers: dict[str, int]
    starts: np.ndarray[tuple[int], np.dtype[np.int64]]
    terms: np.ndarray[tuple[int], np.dtype[np.int32]]
    weights: np.ndarray[tuple[int], np.dtype[np.float32]]
    unseen: float
    norms: np.ndarray[tuple[int], np.dtype[np.float32]]

    def score(self, features: list[str]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """Return the cosine of a text, given by its features, with every term."""
        scores = np.zeros(len(self.norms), np.float32)
        squared = 0.0
        for feature in features:
            number = self.numbers.get(feature)
            if number is None:
                squared += self.unseen
                continue
            squared += float(self.weights[number])
            # No term stands twice here, so that adding at these places counts each.
            scores[self.terms[self.starts[number] : self.starts[number + 1]]] += self.weights[number]
        if squared:
            scores /= self.norms * np.float32(np.sqrt(squared))
        return scores


@dataclass(frozen=True, slots=True)
class TermIndex:
    """The terms of a code system, ready to be searched by likeness.

    Memory is about 180 bytes for each term of 40 characters; building needs little more.

    Attributes:
        terms: ``code`` and ``term``, sorted by code.
        concepts: ``code``, sorted, and ``start``, the place of its first term.
    """

    terms: pl.DataFrame
    concepts: pl.DataFrame
    _words: _Postings
    _grams: _Postings

    @classmethod
    def build(cls, terms: pl.LazyFrame) -> TermIndex:
        """Index terms.

        Args:
            terms: Columns ``code`` and ``term``; a concept may have several.

        Raises:
            InputError: There is none.
        """
        kept = (
            terms.select("code", "term", normal_text(pl.col("term")).alias("normal"))
            .filter(pl.col("code").is_not_null(), pl.col("normal").is_not_null())
            .unique(["code", "normal"], keep="first", maintain_order=True)
            .sort("code", "normal")
            .collect()
        )
        if kept.is_empty():
            raise InputError(
                "There are no terms to compare with.",
                remedy="Load the code system with 'cohortflow terminology load'.",
            )
        concepts = (
            kept.select("code")
            .with_row_index("start")
            .group_by("code", maintain_order=True)
            .agg(pl.min("start"))
        )
        return cls(
            kept.select("code", "term"), concepts, *(_post(kept["normal"], kind) for kind in (_WORD, _GRAM))
        )

    def search(self, texts: pl.Series, *, top: int = 5, least: float = 0.0) -> pl.DataFrame:
        """Find the concepts that texts are most like.

        Args:
            texts: Names of local codes; null and blank ones find nothing.
            top: Most candidates for each.
            least: Least score of a candidate.

        Returns:
            Rows of `CANDIDATES`, best first; of equal ones the first in the order of codes.
        """
        described = (
            pl.DataFrame({"text": texts})
            .select(normal_text(pl.col("text")).alias("normal"))
            .select(_features(_WORD).alias("words"), _features(_GRAM).alias("grams"))
        )
        starts = self.concepts["start"].to_numpy().astype(np.int64)
        found = [
            pl.DataFrame(schema=CANDIDATES),
            *(
                self._search_one(number, words, grams, starts, top, least)
                for number, (words, grams) in enumerate(described.iter_rows())
                if words
            ),
        ]
        return pl.concat(found)

    def _search_one(
        self,
        number: int,
        words: list[str],
        grams: list[str],
        starts: np.ndarray[tuple[int], np.dtype[np.int64]],
        top: int,
        least: float,
    ) -> pl.DataFrame:
        scores = self._words.score(words)
        scores += self._grams.score(grams)
        scores *= np.float32(0.5)
        of_concept = np.maximum.reduceat(scores, starts)
        count = min(top, len(of_concept))
        border = max(float(np.partition(of_concept, -count)[-count]), least, float(np.finfo(np.float32).tiny))
        places = np.flatnonzero(of_concept >= np.float32(border))
        # Stable: concepts are in the order of their codes.
        places = places[np.argsort(-of_concept[places], kind="stable")][:count]
        ends = np.append(starts, len(scores))
        best = [int(starts[p] + np.argmax(scores[starts[p] : ends[p + 1]])) for p in places]
        return pl.DataFrame(
            {
                "query": np.full(len(places), number),
                "rank": np.arange(1, len(places) + 1),
                "code": self.concepts["code"].gather(places),
                "term": self.terms["term"].gather(best),
                "score": np.clip(of_concept[places].astype(np.float64), 0.0, 1.0).round(4),
            },
            schema=CANDIDATES,
            strict=False,
        )


def normal_text(text: pl.Expr) -> pl.Expr:
    """Return a text without case, accents, punctuation and repeated blanks; null where nothing is left."""
    plain = (
        text.str.normalize("NFKD")
        .str.replace_all(r"\p{M}", "")
        .str.to_lowercase()
        .str.replace_all(r"[^\p{L}\p{N}]+", " ")
        .str.strip_chars()
    )
    return pl.when(plain != "").then(plain)


def _features(kind: int) -> pl.Expr:
    """Return the distinct words, or trigrams, of the column ``normal``."""
    if kind == _WORD:
        return pl.col("normal").str.split(" ").list.unique(maintain_order=True)
    padded = pl.concat_str(pl.lit(" "), pl.col("normal"), pl.lit(" "))
    # Each of the three finds every third trigram.
    runs = [padded.str.slice(shift).str.extract_all(r"(?s).{3}") for shift in range(3)]
    return pl.concat_list(runs).list.unique(maintain_order=True)


def _post(texts: pl.Series, kind: int) -> _Postings:
    counts = (
        pl.concat(
            chunk.select(pl.col("feature").value_counts()).unnest("feature")
            for chunk in _explode(texts, kind)
        )
        .group_by("feature")
        .agg(pl.col("count").sum())
        .sort("feature")
        .with_row_index("number")
    )
    frequency = counts["count"].to_numpy().astype(np.int64)
    weights = (np.log((1 + len(texts)) / (1 + frequency)) + 1) ** 2
    starts = np.concatenate([[0], np.cumsum(frequency)])
    terms = np.empty(int(starts[-1]), np.int32)
    squares = np.zeros(len(texts), np.float64)
    free = starts[:-1].copy()
    numbers = counts.select("feature", "number")
    for chunk in _explode(texts, kind):
        rows = chunk.join(numbers, on="feature").sort("number", "term").select("number", "term")
        number, term = rows["number"].to_numpy().astype(np.int64), rows["term"].to_numpy()
        size = np.bincount(number, minlength=len(frequency))
        place_in_feature = np.arange(len(number)) - (np.cumsum(size) - size)[number]
        terms[free[number] + place_in_feature] = term
        free += size
        squares += np.bincount(term, weights=weights[number], minlength=len(texts))
    return _Postings(
        numbers=dict(zip(counts["feature"].to_list(), range(counts.height), strict=True)),
        starts=starts,
        terms=terms,
        weights=weights.astype(np.float32),
        unseen=float((np.log(1 + len(texts)) + 1) ** 2),
        norms=np.sqrt(squares).astype(np.float32),
    )


def _explode(texts: pl.Series, kind: int) -> Iterator[pl.DataFrame]:
    """Yield ``term``, the place of a text, and ``feature`` of its words or trigrams, some texts at a time."""
    for start in range(0, len(texts), _CHUNK_TERMS):
        yield (
            texts.slice(start, _CHUNK_TERMS)
            .alias("normal")
            .to_frame()
            .with_row_index("term", start)
            .select("term", _features(kind).alias("feature"))
            .explode("feature")
        )
