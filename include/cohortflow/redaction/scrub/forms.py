"""Finds identifiers by their form.

The forms are those of ``catalog/patterns``. A check digit that does not hold spares nothing here: a wrong
number of a person is one still.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import polars as pl

from cohortflow.patterns import Pattern
from cohortflow.redaction.scrub.spans import find_spans

__all__ = ["FOUND", "FormSearch"]

_TAGS: Final = {
    "A": "NAME",
    "B": "ADDRESS",
    "C": "DATE",
    "D": "PHONE",
    "E": "PHONE",
    "F": "EMAIL",
    "G": "SSN",
    "H": "MRN",
    "N": "URL",
    "O": "IP",
}
"""Letters of 45 CFR 164.514(b)(2)(i) with the tags of what is found; the others are ``ID``."""

_AGE: Final = "age_over_89"

_TOGETHER: Final = 11
"""Patterns in one expression: fewer need more passes, with many more the engine runs out of states."""

FOUND: Final = pl.Schema(
    {"row": pl.UInt32(), "start": pl.Int64(), "end": pl.Int64(), "tag": pl.String(), "text": pl.String()}
)
"""Schema of what is found: what it is, and its text."""


class FormSearch:
    """Patterns of a catalog, made ready: one expression finds, each tells which one it was.

    Args:
        patterns: Those that are identifiers.
    """

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        found = tuple(patterns)
        # Forms that fill a run of characters would swallow others in one expression with them.
        parts = (
            tuple(one for one in found if one.definition.token is None),
            tuple(one for one in found if one.definition.token is not None),
        )
        self._groups = tuple(group for part in parts for group in _batch(part))

    def find(self, texts: pl.Series) -> pl.DataFrame:
        """Return what has a form: ``row``, ``start``, ``end``, ``tag``, ``text``."""
        found = [FOUND.to_frame()]
        for group in self._groups:
            spans = find_spans(texts, "|".join(f"(?:{pattern.text_regex})" for pattern in group))
            distinct = _tell(spans["text"].unique(), group)
            value = spans.join(distinct, on="text")
            start = pl.col("end") - pl.col("value").str.len_bytes().cast(pl.Int64)
            found.append(value.select("row", start.alias("start"), "end", "tag", text="value"))
        return pl.concat(found)


def _batch(patterns: tuple[Pattern, ...]) -> list[tuple[Pattern, ...]]:
    return [patterns[start : start + _TOGETHER] for start in range(0, len(patterns), _TOGETHER)]


def _tell(matches: pl.Series, patterns: tuple[Pattern, ...]) -> pl.DataFrame:
    """Return ``text``, ``tag`` and ``value``: which pattern a match is of, and the match without context."""
    match = pl.col("text")
    tags, values = [], []
    # One expression with a group for each pattern: an expression costs more to make than to use.
    expression = "|".join(f"({pattern.text_regex})" for pattern in patterns)
    frame = pl.DataFrame({"text": matches}).with_columns(groups=match.str.extract_groups(expression))
    groups = pl.col("groups")
    number = 1
    for pattern in patterns:
        item = pattern.definition
        whole = groups.struct.field(str(number))
        inner = (1 + pattern.telling) if item.context and item.token is None else 0
        if item.token is not None:
            is_one = match.str.contains(pattern.whole_regex)
            value = match
        else:
            parts = [groups.struct.field(str(number + step)) for step in range(1, inner + 1)]
            is_one, value = whole.is_not_null(), pl.coalesce([*parts, whole])
        number += 1 + inner
        tag = "AGE>89" if pattern.name == _AGE else _TAGS.get(pattern.hipaa or "", "ID")
        tags.append(pl.when(is_one).then(pl.lit(tag)))
        values.append(pl.when(is_one).then(value))
    return frame.select("text", tag=pl.coalesce(tags), value=pl.coalesce(values)).drop_nulls("tag")
