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
from cohortflow.redaction.scrub.words import fold

__all__ = ["LONGEST_PHRASE", "Identities", "collect_identities", "delete_one", "phrase_bit"]

_SHORTEST_OWN, _SHORTEST_OTHER, _SHORTEST_TYPED = 2, 4, 5
_CUT: Final = (3, 4, 5)
"""Letters that are left of a given name when it is cut short: Zachariah is Zach."""
LONGEST_PHRASE: Final = 9
_SAFE_NUMBER: Final = 7
_SHORTEST_NUMBER: Final = 5
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
        letters: ``owner``, ``word``: first letters of each patient's given names, one by one and together.
        typed: ``owner``, ``word``, ``key``: each patient's longer names with what is left of them after a
            letter is taken out.
        phrases: ``phrase``, ``size`` in words, ``tag``, ``owner`` (null: of anyone).
        places: ``word``, ``bits``: where in phrases of which size a word stands, as of ``phrase_bit``.
        numbers: ``number`` without blanks and leading zeros, ``tag``, ``owner`` (null: of anyone).
    """

    own: pl.DataFrame = field(repr=False)
    others: pl.DataFrame = field(repr=False)
    initials: pl.DataFrame = field(repr=False)
    letters: pl.DataFrame = field(repr=False)
    typed: pl.DataFrame = field(repr=False)
    phrases: pl.DataFrame = field(repr=False)
    places: pl.DataFrame = field(repr=False)
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
    initials = _collect_initials(names)
    return Identities(
        own=_collect_own(words, lexicon),
        others=_collect_others(words),
        initials=initials,
        letters=_collect_letters(initials),
        typed=_collect_typed(words),
        phrases=phrases,
        places=_place_words(phrases),
        numbers=_collect_numbers(facts, lexicon),
    )


def delete_one(words: pl.DataFrame, *, each_once: bool = True) -> pl.DataFrame:
    """Return words with themselves and what is left after any one letter is taken out, as ``key``.

    Args:
        words: Any frame with a column ``word``; words of more than 24 letters have only themselves.
        each_once: Whether what two letters leave alike is told once.
    """
    word, place = pl.col("word"), pl.col("@place")
    length = word.str.len_chars()
    places = pl.when(length <= _LONGEST_WORD).then(pl.int_ranges(0, length.cast(pl.Int64)))
    each = words.with_columns(places.alias("@place")).explode("@place").drop_nulls("@place")
    without = each.with_columns(key=pl.concat_str(word.str.head(place), word.str.slice(place + 1)))
    found = pl.concat([words.with_columns(key=word), without.drop("@place")])
    return found.unique() if each_once else found


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
    # Hyphens and apostrophes part the words of a text, too; some write them without.
    several = split.filter(pl.col("raw").str.contains(r"[\pL\pM][^\pL\pM]+[\pL\pM]"))
    glued = several.with_columns(pl.col("raw").str.replace_all(r"[^\pL\pM]+", ""))
    split = split.with_columns(pl.col("raw").str.extract_all(r"[\pL\pM]+")).explode("raw").drop_nulls("raw")
    split = pl.concat([split, glued])
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


def _collect_letters(initials: pl.DataFrame) -> pl.DataFrame:
    """Return what may stand beside the family name: ``White M``, ``White MQ``."""
    given = pl.col("phrase").str.replace(r" \S+$", "")
    parts = [
        given.str.replace_all(" ", ""),
        given.str.split(" ").list.first(),
        given.str.split(" ").list.last(),
    ]
    return pl.concat(initials.select("owner", word=part) for part in parts).unique()


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
        line_owner=pl.when(pl.col("rule") == TermRule.ADDRESS.value).then("owner"),
    )
    streets = _collect_streets(found)
    found = pl.concat([found.drop("line_owner"), _collect_places(facts), streets])
    return found.filter(pl.col("size") <= LONGEST_PHRASE).unique()


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


def phrase_bit(size: int, place: int) -> int:
    """Return the bit that says that a word stands at a place, from 0, in a phrase of so many words."""
    return 1 << (size * (size - 1) // 2 + place)


def _place_words(phrases: pl.DataFrame) -> pl.DataFrame:
    found = [pl.DataFrame(schema={"word": pl.String(), "bits": pl.Int64()})]
    for size in phrases["size"].unique():
        parts = phrases.filter(pl.col("size") == size)["phrase"].str.split(" ")
        for place in range(size):
            words = parts.list.get(place).unique().alias("word").to_frame()
            found.append(words.with_columns(bits=pl.lit(phrase_bit(size, place), dtype=pl.Int64)))
    return pl.concat(found).group_by("word").agg(pl.col("bits").sum())


def _collect_streets(phrases: pl.DataFrame) -> pl.DataFrame:
    """Return lines of each patient's address without the number of the house, or without the last word."""
    lines = phrases.filter((pl.col("tag") == "ADDRESS") & pl.col("phrase").str.contains(r"^\d+\pL? \pL"))
    # A tag alone does not tell lines from places; those do not begin with a number and a word.
    street = pl.col("phrase").str.replace(r"^\d+\pL? ", "")
    short = pl.col("phrase").str.extract(r"^(\d+\pL? .*\pL{4,}.*) \S+$")
    found = pl.concat(lines.select("tag", "line_owner", phrase=form) for form in (street, short))
    found = found.drop_nulls("phrase").filter(pl.col("phrase").str.contains(r"\S \S"))
    size = pl.col("phrase").str.count_matches(" ") + 1
    return found.select("phrase", size=size, tag="tag", owner="line_owner").drop_nulls("owner")


def _collect_numbers(facts: pl.DataFrame, lexicon: Lexicon) -> pl.DataFrame:
    """Return numbers without blanks, however they are grouped at the source or in a text."""
    terms = build_terms(facts, lexicon.common).filter(pl.col("rule").is_in(_NUMBERS))
    number = pl.col("term").str.replace_all(" ", "", literal=True)
    terms = terms.filter(pl.col("term").str.contains(r"\d")).with_columns(number=number)
    # Zeros in front are written or not, at either end. One made of few digits is no number any more.
    bare = terms.with_columns(pl.col("number").str.strip_chars_start("0"))
    few = pl.col("number").str.len_chars() < _SHORTEST_NUMBER
    terms = bare.filter(~few)
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
