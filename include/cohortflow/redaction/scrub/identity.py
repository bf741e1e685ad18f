"""What is known of the persons in the raw zone, as words and phrases to look for in their texts.

Of a patient's own record everything is looked for: each name, also of two letters or called like a word, what
it is called for short, and what is one slip of the pen away. Of all others, whose notes these are not, only
what cannot well be something else: names of four letters or more that are no words, whole names, numbers.

All forms are normalised, as the leak gate does: lower case, no accents, single blanks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import polars as pl

from cohortflow.redaction.leaks.facts import GIVEN_SEPARATOR, PERSONS, FactKind
from cohortflow.redaction.leaks.normalize import normalize
from cohortflow.redaction.leaks.terms import TermRule, build_terms
from cohortflow.redaction.scrub.lexicon import Lexicon

__all__ = ["Identities", "collect_identities", "delete_one", "fold"]

_SHORTEST_OWN, _SHORTEST_OTHER, _SHORTEST_TYPED = 2, 4, 5
_CUT: Final = (3, 4, 5)
"""Letters that are left of a given name when it is cut short: Zachariah is Zach."""
_LONGEST_PHRASE: Final = 9
_LONGEST_NUMBER: Final = 6
_SAFE_NUMBER: Final = 7
_LONGEST_WORD: Final = 24

_TAGS: Final = {
    TermRule.FULL_NAME: "NAME",
    TermRule.IDENTIFIER: "ID",
    TermRule.CONTACT: "CONTACT",
    TermRule.ADDRESS: "ADDRESS",
    TermRule.PLACE: "ADDRESS",
    TermRule.ORGANIZATION: "ORGANIZATION",
    TermRule.BIRTH_DATE: "DATE",
    TermRule.RAW_ID: "ID",
}
"""Rules of the leak gate's terms that are looked for as phrases, with their tags; names are words here."""

_NUMBERS: Final = [TermRule.IDENTIFIER.value, TermRule.CONTACT.value, TermRule.RAW_ID.value]


@dataclass(frozen=True, slots=True)
class Identities:
    """What to look for; none of it is shown.

    Attributes:
        own: ``owner``, ``word``, ``any_case``, ``nickname``: words of each patient's own names.
        others: ``word``: names of anyone.
        initials: ``owner``, ``phrase``: first letters of each patient's names, separated by blanks.
        typed: ``owner``, ``word``, ``key``: each patient's longer names with what is left of them after a
            letter is taken out.
        phrases: ``phrase``, ``size`` in words, ``tag``, ``owner`` (null: of anyone).
        numbers: ``number`` without blanks, ``tag``, ``owner`` (null: of anyone).
    """

    own: pl.DataFrame = field(repr=False)
    others: pl.DataFrame = field(repr=False)
    initials: pl.DataFrame = field(repr=False)
    typed: pl.DataFrame = field(repr=False)
    phrases: pl.DataFrame = field(repr=False)
    numbers: pl.DataFrame = field(repr=False)


def collect_identities(facts: pl.DataFrame, lexicon: Lexicon) -> Identities:
    """Return what to look for.

    Args:
        facts: The identifying facts of the raw zone, with the leak gate's ``FACTS``.
        lexicon: Words that mean something else, nicknames.
    """
    names = _collect_names(facts)
    words = _split_words(names, lexicon)
    phrases = _collect_phrases(facts, lexicon)
    return Identities(
        own=_collect_own(words, lexicon),
        others=_collect_others(words),
        initials=_collect_initials(names),
        typed=_collect_typed(words),
        phrases=phrases,
        numbers=_collect_numbers(facts, lexicon),
    )


def fold(words: pl.Series) -> pl.Series:
    """Return single words in the form in which they are looked for."""
    return normalize(words).str.replace_all(" ", "", literal=True)


def delete_one(words: pl.DataFrame) -> pl.DataFrame:
    """Return words with themselves and what is left after any one letter is taken out, as ``key``.

    Args:
        words: Any frame with a column ``word``; words of more than 24 letters have only themselves.
    """
    word = pl.col("word")
    length = word.str.len_chars()
    parts = [words.with_columns(key=word)]
    for place in range(int(words.select(length.max()).item() or 0)):
        if place >= _LONGEST_WORD:
            break
        without = pl.concat_str(word.str.head(place), word.str.slice(place + 1))
        parts.append(words.filter(length > place).with_columns(key=without))
    return pl.concat(parts).unique()


def _collect_names(facts: pl.DataFrame) -> pl.DataFrame:
    """Return ``owner``, ``family``, ``given``: names of persons, whole names as they stand."""
    second = pl.col("second")
    named = facts.filter(pl.col("kind") == FactKind.NAME.value).select(
        "owner", family=pl.col("value").fill_null(""), given=second.fill_null("")
    )
    person = second.is_null() | second.is_in(sorted(PERSONS))
    whole = facts.filter((pl.col("kind") == FactKind.DISPLAY.value) & person)
    text = pl.col("value").str.strip_chars()
    # What has a digit or many words is the display of something else, such as a device or a place.
    whole = whole.filter(~text.str.contains(r"\d") & (text.str.count_matches(r"\S+") <= 5))  # noqa: PLR2004
    return pl.concat([named, whole.select("owner", family=text, given=pl.lit(""))]).unique()


def _split_words(names: pl.DataFrame, lexicon: Lexicon) -> pl.DataFrame:
    """Return ``owner``, ``word``, ``lower`` (it is written in lower case), ``given``, ``common``."""
    parts = [
        names.select("owner", raw=pl.col(column).str.split(GIVEN_SEPARATOR), given=pl.lit(column == "given"))
        for column in ("family", "given")
    ]
    split = pl.concat(parts).explode("raw")
    # Hyphens and apostrophes part the words of a text, too.
    split = split.with_columns(pl.col("raw").str.extract_all(r"[\pL\pM]+")).explode("raw").drop_nulls("raw")
    words = split.with_columns(word=fold(split["raw"])).filter(
        (pl.col("word").str.len_chars() >= _SHORTEST_OWN) & ~pl.col("word").is_in(sorted(lexicon.titles))
    )
    return words.select(
        "owner",
        "word",
        "given",
        lower=pl.col("raw") == pl.col("raw").str.to_lowercase(),
        common=pl.col("word").is_in(sorted(lexicon.common)),
    ).unique()


def _collect_own(words: pl.DataFrame, lexicon: Lexicon) -> pl.DataFrame:
    own = words.filter(pl.col("owner").is_not_null())
    plain = own.filter(~pl.col("word").is_in(sorted(lexicon.particles)))
    rare = (pl.col("word").str.len_chars() >= _SHORTEST_OTHER) & ~pl.col("common")
    exact = plain.select("owner", "word", any_case=rare | pl.col("lower"), nickname=pl.lit(value=False))
    given = own.filter("given").select("owner", "word")
    cut = [
        given.filter(pl.col("word").str.len_chars() > size).with_columns(pl.col("word").str.head(size))
        for size in _CUT
    ]
    called = given.join(lexicon.nicknames, left_on="word", right_on="name")
    short = (
        pl.concat([called.select("owner", word=pl.col("nickname")), *cut])
        .unique()
        .join(exact, on=["owner", "word"], how="anti")
        .with_columns(any_case=pl.lit(value=False), nickname=pl.lit(value=True))
    )
    # One row per word: what is written in lower case anywhere is looked for in any case.
    together = pl.concat([exact, short]).group_by("owner", "word")
    return together.agg(pl.col("any_case").any(), pl.col("nickname").all())


def _collect_others(words: pl.DataFrame) -> pl.DataFrame:
    rare = (pl.col("word").str.len_chars() >= _SHORTEST_OTHER) & ~pl.col("common")
    return words.filter(rare).select("word").unique()


def _collect_typed(words: pl.DataFrame) -> pl.DataFrame:
    own = words.filter(pl.col("owner").is_not_null()).select("owner", "word").unique()
    long = pl.col("word").str.len_chars() >= _SHORTEST_TYPED
    return delete_one(own.filter(long))


def _collect_initials(names: pl.DataFrame) -> pl.DataFrame:
    own = names.filter(pl.col("owner").is_not_null() & (pl.col("family") != "") & (pl.col("given") != ""))
    first = [
        normalize(own[column].str.replace_all(GIVEN_SEPARATOR, " ")).str.extract_all(r"(?:^| )\pL")
        for column in ("given", "family")
    ]
    letters = pl.DataFrame({"owner": own["owner"], "given": first[0], "family": first[1]}).with_columns(
        given=pl.col("given").list.eval(pl.element().str.strip_chars()),
        family=pl.col("family").list.eval(pl.element().str.strip_chars()).list.head(1),
    )
    long = letters.select("owner", phrase=pl.col("given").list.concat("family"))
    short = letters.select("owner", phrase=pl.col("given").list.head(1).list.concat("family"))
    found = pl.concat([long, short]).with_columns(pl.col("phrase").list.join(" "))
    return found.filter(pl.col("phrase").str.len_chars() >= 3).unique()  # noqa: PLR2004 - two letters


def _collect_phrases(facts: pl.DataFrame, lexicon: Lexicon) -> pl.DataFrame:
    terms = build_terms(facts, lexicon.common).filter(pl.col("rule").is_in([rule.value for rule in _TAGS]))
    # Days on which somebody else was born are days like others.
    only_own = pl.col("weak") | (pl.col("rule") == TermRule.BIRTH_DATE.value)
    terms = terms.filter(~only_own | pl.col("owner").is_not_null())
    phrase = pl.col("term").str.strip_chars(" ")
    found = terms.select(
        phrase=phrase,
        size=phrase.str.count_matches(" ") + 1,
        tag=pl.col("rule").replace_strict({rule.value: tag for rule, tag in _TAGS.items()}),
        owner=pl.when(only_own).then("owner"),
    )
    return pl.concat([found, _collect_places(facts)]).filter(pl.col("size") <= _LONGEST_PHRASE).unique()


def _collect_places(facts: pl.DataFrame) -> pl.DataFrame:
    """Return the towns and postal codes of each patient as phrases."""
    places = facts.filter((pl.col("kind") == FactKind.PLACE.value) & pl.col("owner").is_not_null())
    towns = normalize(places["value"]).str.strip_chars(" ")
    codes = normalize(places["third"].str.head(5)).str.strip_chars(" ")
    found = pl.concat(
        pl.DataFrame({"phrase": column, "owner": places["owner"]}) for column in (towns, codes)
    ).filter(pl.col("phrase").str.len_chars() >= _SHORTEST_OTHER)
    return found.select(
        "phrase", size=pl.col("phrase").str.count_matches(" ") + 1, tag=pl.lit("ADDRESS"), owner="owner"
    )


def _collect_numbers(facts: pl.DataFrame, lexicon: Lexicon) -> pl.DataFrame:
    """Return numbers without blanks, however they are grouped at the source or in a text."""
    terms = build_terms(facts, lexicon.common).filter(pl.col("rule").is_in(_NUMBERS))
    number = pl.col("term").str.replace_all(" ", "", literal=True)
    terms = terms.filter(pl.col("term").str.contains(r"\d")).with_columns(number=number)
    anyone = ~pl.col("weak") & (pl.col("number").str.len_chars() >= _SAFE_NUMBER)
    phones = terms.filter(
        (pl.col("rule") == TermRule.CONTACT.value)
        & number.str.contains(r"^\d{10}$")
        & pl.col("owner").is_not_null()
    )
    # Without the area code: a number of this patient's only.
    local = phones.with_columns(pl.col("number").str.tail(_SAFE_NUMBER), weak=pl.lit(value=True))
    found = pl.concat([terms, local]).filter(anyone | pl.col("owner").is_not_null())
    tag = pl.col("rule").replace_strict({rule.value: tag for rule, tag in _TAGS.items()})
    phone = (tag == "CONTACT") & pl.col("number").str.contains(r"^\d+$")
    return found.select(
        "number",
        tag=pl.when(phone).then(pl.lit("PHONE")).otherwise(tag),
        owner=pl.when(~anyone).then("owner"),
    ).unique()
