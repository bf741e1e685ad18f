"""Finds names and places by what stands beside them, and dates and ages as notes write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import polars as pl

from cohortflow.redaction.scrub import beside, days
from cohortflow.redaction.scrub.forms import FOUND
from cohortflow.redaction.scrub.lexicon import Lexicon
from cohortflow.redaction.scrub.spans import find_spans

__all__ = ["find_contexts"]

_MIXTURE: Final = ("[A-Z]", "[a-z]", "[0-9]")
_GROUP: Final = re.compile(r"(?<!\\)\((?!\?)")


@dataclass(frozen=True, slots=True)
class _Context:
    """What stands beside something, with groups that hold it.

    Attributes:
        tag: What it is.
        expression: In the syntax of Rust.
        cautious: Whether words with which sentences of notes begin are nothing there.
        mixed: Whether it has capitals, small letters and digits.
    """

    tag: str
    expression: str
    cautious: bool = False
    mixed: bool = False

    @property
    def groups(self) -> int:
        """How many groups its expression has."""
        return len(_GROUP.findall(self.expression))


_TOGETHER: Final = (
    (
        _Context("NAME", beside.NAMED_BY_RELATION, cautious=True),
        _Context("NAME", beside.RELATION_BY_NAME, cautious=True),
        _Context("NAME", beside.CALLED, cautious=True),
    ),
    (
        _Context("NAME", beside.ROLE),
        _Context("NAME", beside.AGENT),
        _Context("NAME", beside.TITLED),
    ),
    (
        _Context("NAME", beside.CREDITS),
        _Context("ADDRESS", beside.HOMES, cautious=True),
        _Context("EMAIL", beside.OBSCURED),
        _Context("CONTACT", beside.HANDLES),
        _Context("URL", beside.SITES),
        _Context("DATE", days.HOLIDAYS),
        _Context("ID", beside.LETTERED, mixed=True),
    ),
    (
        _Context("ORGANIZATION", beside.PLACES),
        _Context("ID", beside.NUMBERED),
        _Context("PHONE", beside.DIGITS),
        _Context("AGE>89", days.AGED),
        _Context("DATE", days.DAYS),
        _Context("ID", beside.MASKED),
    ),
)
"""Contexts that are looked for in one pass; what overlaps with an earlier one of its group is not found."""


def find_contexts(texts: pl.Series, lexicon: Lexicon) -> pl.DataFrame:
    """Return what its neighbours tell: ``row``, ``start``, ``end``, ``tag``, ``text``.

    Args:
        texts: The texts.
        lexicon: Words that are no names.
    """
    found = [FOUND.to_frame()]
    for contexts in _TOGETHER:
        expression = "|".join(f"(?:{context.expression})" for context in contexts)
        spans = find_spans(texts, expression)
        distinct = _tell(spans["text"].unique(), expression, contexts, lexicon)
        met = spans.join(distinct, on="text")
        start = pl.col("start") + pl.col("place")
        end = start + pl.col("value").str.len_bytes().cast(pl.Int64)
        found.append(met.select("row", start=start, end=end, tag="tag", text="value"))
    return pl.concat(found)


def _tell(
    matches: pl.Series, expression: str, contexts: tuple[_Context, ...], lexicon: Lexicon
) -> pl.DataFrame:
    """Return ``text``, ``tag``, ``value`` and ``place``: what matches hold, and where in them it begins."""
    owners = [number for number, context in enumerate(contexts) for _ in range(context.groups)]
    told = pl.DataFrame({"text": matches}).with_columns(groups=pl.col("text").str.extract_groups(expression))
    values = [pl.col("groups").struct.field(str(number)) for number in range(1, len(owners) + 1)]
    told = told.select(
        "text",
        value=pl.coalesce(values),
        which=pl.coalesce(
            pl.when(value.is_not_null()).then(pl.lit(owner))
            for value, owner in zip(values, owners, strict=True)
        ),
    )
    told = told.drop_nulls("value")
    mixed = pl.col("which").is_in([number for number, context in enumerate(contexts) if context.mixed])
    told = told.filter(~mixed | pl.all_horizontal(pl.col("value").str.contains(kind) for kind in _MIXTURE))
    careful = pl.col("which").is_in([number for number, context in enumerate(contexts) if context.cautious])
    cautious = told.filter(careful)
    names = [_leave_common(value, lexicon) for value in cautious["value"]]  # distinct finds: few
    kept = cautious.with_columns(pl.Series("value", names, dtype=pl.String)).filter(pl.col("value") != "")
    found = pl.concat([told.filter(~careful), kept])
    tags = pl.Series([context.tag for context in contexts])
    return found.select(
        "text", "value", tag=tags.gather(found["which"]), place=_last_place(pl.col("text"), pl.col("value"))
    )


def _leave_common(value: str, lexicon: Lexicon) -> str:
    """Cut words of notes off the end; return nothing where it begins with one."""
    words = value.split(" ")
    while words and words[-1].strip(".,'").lower() in lexicon.note_words:
        words.pop()
    if not words or words[0].strip(".,'").lower() in lexicon.note_words:
        return ""
    return " ".join(words).rstrip(",")


def _last_place(text: pl.Expr, value: pl.Expr) -> pl.Expr:
    """Return at which byte of a text a part of it begins for the last time."""
    before = text.str.len_bytes() - value.str.len_bytes()
    return (
        pl.when(text.str.ends_with(value))
        .then(before)
        .otherwise(text.str.find(value, literal=True))
        .cast(pl.Int64)
    )
