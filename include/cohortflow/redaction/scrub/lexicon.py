"""Words that decide: what is no name by itself, what people are called for short, what follows an eponym.

They stand in ``catalog/leaks`` (common words, which the leak gate uses too) and in ``catalog/scrub``. A file
of one's own adds to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from cohortflow.errors import CatalogError
from cohortflow.model import Catalog
from cohortflow.redaction.leaks.normalize import normalize
from cohortflow.redaction.leaks.terms import load_common_words

__all__ = ["Lexicon", "load_lexicon"]

_LISTS: Final = ("note_words", "titles", "particles", "eponym_heads")
_NICKNAMES: Final = "nicknames"


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Words in the form in which they are looked for.

    Attributes:
        common: Words that are no name by themselves, those of notes among them.
        note_words: Words that notes are made of, with which sentences begin.
        titles: What stands before or after a name and is none.
        particles: Parts of names that are none alone, such as ``van``.
        eponym_heads: What follows a name in an eponym and is none itself: ``disease``, ``catheter``.
        nicknames: ``name``, ``nickname``: in both directions.
    """

    common: frozenset[str] = field(repr=False)
    note_words: frozenset[str] = field(repr=False)
    titles: frozenset[str] = field(repr=False)
    particles: frozenset[str] = field(repr=False)
    eponym_heads: frozenset[str] = field(repr=False)
    nicknames: pl.DataFrame = field(repr=False)


def load_lexicon(catalog: Catalog) -> Lexicon:
    """Read the words of a catalog.

    Raises:
        CatalogError: An entry of ``catalog/leaks`` or ``catalog/scrub`` has not the form that it needs.
    """
    words: dict[str, set[str]] = {name: set() for name in _LISTS}
    groups: list[list[str]] = []
    for name in catalog.names("scrub"):
        entry = catalog.load("scrub", name)
        place = str(catalog.path("scrub", name))
        for key, value in entry.items():
            if key == _NICKNAMES:
                groups += _read_groups(value, place)
            elif key in words:
                words[key] |= _read_words(value, place)
            else:
                known = ", ".join((*_LISTS, _NICKNAMES))
                raise CatalogError(f"'{key}' is no list of words.", place=place, remedy=f"They are {known}.")
    pairs = {(one, other) for group in groups for one in group for other in group if one != other}
    schema = {"name": pl.String(), "nickname": pl.String()}
    return Lexicon(
        common=load_common_words(catalog) | words["note_words"],
        note_words=frozenset(words["note_words"]),
        titles=frozenset(words["titles"]),
        particles=frozenset(words["particles"]),
        eponym_heads=frozenset(words["eponym_heads"]),
        nicknames=pl.DataFrame(sorted(pairs), schema=schema, orient="row"),
    )


def _read_words(value: Any, place: str) -> set[str]:  # noqa: ANN401 - what a file may hold
    if not isinstance(value, str):
        raise CatalogError("A list of words is one text.", place=place, remedy="Separate words by blanks.")
    return set(normalize(pl.Series(sorted(set(value.split())), dtype=pl.String)).str.strip_chars(" "))


def _read_groups(value: Any, place: str) -> list[list[str]]:  # noqa: ANN401 - what a file may hold
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise CatalogError(
            "'nicknames' is a list of texts.", place=place, remedy="Give each name a line with its nicknames."
        )
    return [sorted(_read_words(line, place)) for line in value]
