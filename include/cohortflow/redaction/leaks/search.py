"""Searches texts for terms and patterns: each different text once, all terms at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import polars as pl

from cohortflow.patterns import Pattern
from cohortflow.redaction.leaks.normalize import decode_base64, normalize

__all__ = ["FOUND", "TextSearch"]

FOUND: Final = pl.Schema(
    {
        "row": pl.UInt32(),
        "term": pl.String(),
        "rule": pl.String(),
        "weak": pl.Boolean(),
        "owner": pl.String(),
        "whole": pl.Boolean(),
    }
)
"""Schema of what was found in which text; ``whole``: the text is nothing else."""

_OPAQUE: Final = r"^(true|false|null|\[redacted\]|[0-9a-f]{32})$"
_MASKED: Final = r"[\pL\pN][*•█#]{2,}|[*•█#]{2,}[-. ]?[\pL\pN]|\b[xX]{3}[- ]?[xX]{2}[- ]?\d{4}\b"

_MOVED: Final = r"\[DATE \d{4}-\d{2}-\d{2}\]"
"""What scrubbing makes of a date that it moves; the date within may be anybody's day of birth."""

_WORDS_UP_TO: Final = 16_000_000
"""Bytes of texts up to which finding out their words costs less than an automaton of all terms."""

FORMS: Final = {"partly masked value": _MASKED}
"""Forms that are searched for beside the catalog's patterns."""


class TextSearch:
    """A dictionary of terms and a library of patterns, ready to search.

    Args:
        terms: Yields the terms in parts; called once per search. Each part becomes one automaton.
        patterns: Patterns of identifiers, contacts and dates.
    """

    def __init__(self, terms: Callable[[], Iterable[pl.DataFrame]], patterns: Iterable[Pattern]) -> None:
        self._terms = terms
        self._patterns = tuple(patterns)

    def find(self, texts: pl.Series) -> pl.DataFrame:
        """Return what is found in texts, also in what they hold in base64.

        Args:
            texts: Different texts.

        Returns:
            Rows with ``FOUND``; ``row`` counts the texts.
        """
        plain = pl.DataFrame({"row": pl.int_range(len(texts), dtype=pl.UInt32, eager=True), "text": texts})
        plain = plain.filter(~pl.col("text").str.contains(_OPAQUE))
        inner = decode_base64(plain["text"])
        rows = plain["row"].gather(inner["row"]) if inner.height else plain["row"].head(0)
        hidden = pl.DataFrame({"row": rows, "text": inner["text"]})
        texts_in_view = pl.concat([plain, hidden]).with_columns(
            pl.col("text").str.replace_all(_MOVED, "[DATE]")
        )
        return pl.concat([self._find_terms(texts_in_view), self._find_patterns(texts_in_view)])

    def _find_terms(self, texts: pl.DataFrame) -> pl.DataFrame:
        searched = texts.select("row", normalize(texts["text"]).alias("text")).filter(pl.col("text") != " ")
        found = [FOUND.to_frame()]
        words = _vocabulary(searched["text"])
        for terms in self._terms() if searched.height else ():
            possible = terms if words is None else terms.filter(_may_occur(words))
            if possible.is_empty():
                continue
            patterns = possible["term"].unique().implode()
            held = searched.filter(pl.col("text").str.contains_any(patterns))
            if held.is_empty():
                continue
            inside = pl.col("text").str.extract_many(patterns, overlapping=True)
            hits = held.with_columns(inside.alias("term")).explode("term").unique()
            whole = (pl.col("text") == pl.col("term")).alias("whole")
            found.append(hits.join(possible, on="term").select("row", "term", "rule", "weak", "owner", whole))
        return pl.concat(found)

    def _find_patterns(self, texts: pl.DataFrame) -> pl.DataFrame:
        text = pl.col("text")
        tests = {name: text.str.contains(regex) for name, regex in FORMS.items()}
        tests |= {f"pattern {pattern.name}": pattern.occurs_in(text) for pattern in self._patterns}
        wanted = texts.filter(text.str.contains(r"\d|@|\*|•|█|#|(?i)x{3}|/|: "))
        if wanted.is_empty():
            return FOUND.to_frame()
        seen = wanted.select("row", **tests)
        hits = seen.unpivot(index="row", variable_name="rule").filter(pl.col("value"))
        return hits.select(
            "row",
            pl.lit(None, dtype=pl.String).alias("term"),
            "rule",
            pl.lit(value=False).alias("weak"),
            pl.lit(None, dtype=pl.String).alias("owner"),
            pl.lit(value=False).alias("whole"),
        )


def _vocabulary(texts: pl.Series) -> pl.Series | None:
    """Return the different words of normalised texts; ``None`` where these are too many to be of use."""
    if texts.str.len_bytes().sum() > _WORDS_UP_TO:
        return None
    return texts.str.split(" ").explode().unique()


def _may_occur(words: pl.Series) -> pl.Expr:
    """Whether a term can stand in texts of these words: without its first word it does not.

    It spares the automaton of all terms where the texts are short, such as the codes of a table. Terms that
    are searched for within words are kept.
    """
    first = pl.col("term").str.extract(r"^ ([^ ]+) ")
    return first.is_null() | first.is_in(words.implode())
