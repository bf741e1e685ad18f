"""Search terms: the forms in which an identifying fact may stand in a text.

A term is a normalised text with a space at both ends, so that it is found as whole words. What a short or
common term means only the place can tell; such terms are ``weak``, or not searched for at all:

- A name of one word is searched for where it has four letters or more and is no common word. Common words
  (``catalog/leaks``) count only beside another name of the same person: ``Rose`` is a flower, ``Rose White``
  is not.
- Numbers and ids need five letters or digits. Below nine digits, or six characters with a letter, they are
  weak: they count where the value is nothing else and the column holds no codes, or where the row is of the
  patient whose number it is.
- An address needs two words, an organisation's name or a local display text two words and eight letters.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import polars as pl
import polars_hash

from cohortflow.model import Catalog
from cohortflow.redaction.keys import PSEUDONYM_DIGITS
from cohortflow.redaction.leaks.facts import GIVEN_SEPARATOR, FactKind
from cohortflow.redaction.leaks.normalize import normalize, squash

__all__ = ["TERMS", "TermRule", "build_terms", "iterate_terms", "load_common_words", "unkeyed_hashes"]


class TermRule(StrEnum):
    """What a term was made from, as reports name it."""

    FULL_NAME = "full name"
    NAME = "name"
    IDENTIFIER = "identifier"
    CONTACT = "phone, e-mail or web address"
    ADDRESS = "address line"
    PLACE = "postal code with its place"
    ORGANIZATION = "organisation's name"
    BIRTH_DATE = "date of birth"
    RAW_ID = "id of the source"
    LOCAL_TEXT = "local display text"


TERMS: Final = pl.Schema(
    {"term": pl.String(), "rule": pl.String(), "weak": pl.Boolean(), "owner": pl.String()}
)
"""Schema of terms; ``owner`` as in the facts."""

_SHORTEST_NAME, _SHORTEST_NUMBER, _SHORTEST_BARE = 4, 5, 6
_NUMBERED: Final = r"^ (\pL{1,4}0*|0+)([1-9]\d*) $"
_SAFE_DIGITS, _SAFE_MIXED = 9, 6
_LONG_TEXT = 8
_LOCAL_PHONE, _PHONE = 7, 10
_CHUNK_FACTS: Final = 25_000

_TITLES: Final = (
    r" (mr|mrs|ms|miss|mx|dr|prof|herr|frau|mme|sr|sra|md|do|phd|rn|np|pa|aprn|dds|jr|ii|iii|iv|esq)(?: |$)"
)
_STREETS: Final = {
    " street ": " st ",
    " avenue ": " ave ",
    " road ": " rd ",
    " drive ": " dr ",
    " lane ": " ln ",
    " boulevard ": " blvd ",
    " court ": " ct ",
    " place ": " pl ",
    " apartment ": " apt ",
    " suite ": " ste ",
}
_UMLAUTS: Final = {"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "å": "aa", "Å": "Aa"}
_APOSTROPHE: Final = r"[\x27\x{2019}\x{02BC}]"
_UNSPACED: Final = r"^[\p{Han}\p{Hangul}\p{Hiragana}\p{Katakana} ]+$"


def load_common_words(catalog: Catalog) -> frozenset[str]:
    """Return the words that are no name by themselves, normalised.

    Raises:
        CatalogError: An entry of ``catalog/leaks`` is no mapping of lists.
    """
    words: set[str] = set()
    for name in catalog.names("leaks"):
        for group in catalog.load("leaks", name).values():
            words.update(group.split() if isinstance(group, str) else map(str, group))
    return frozenset(normalize(pl.Series(sorted(words), dtype=pl.String)).str.strip_chars())


def iterate_terms(facts: pl.DataFrame, common: frozenset[str]) -> Iterator[pl.DataFrame]:
    """Yield the terms of facts in parts of bounded size, so that no automaton grows with the source."""
    for part in facts.iter_slices(_CHUNK_FACTS):
        terms = build_terms(part, common)
        if terms.height:
            yield terms


def build_terms(facts: pl.DataFrame, common: frozenset[str]) -> pl.DataFrame:
    """Return the terms of facts, each once.

    Args:
        facts: Rows with ``FACTS``.
        common: See ``load_common_words``.

    Returns:
        Rows with ``TERMS``.
    """
    by_kind = {kind: facts.filter(pl.col("kind") == kind.value) for kind in FactKind}
    names = pl.concat([_split_displays(by_kind[FactKind.DISPLAY]), by_kind[FactKind.NAME]])
    parts = [
        *_names(_transliterate(names), common),
        *_numbers(by_kind[FactKind.IDENTIFIER], TermRule.IDENTIFIER),
        *_numbers(by_kind[FactKind.ID], TermRule.RAW_ID),
        *_contacts(by_kind[FactKind.CONTACT]),
        *_addresses(by_kind[FactKind.ADDRESS]),
        *_places(by_kind[FactKind.PLACE]),
        _long_texts(by_kind[FactKind.ORGANIZATION], TermRule.ORGANIZATION),
        _long_texts(by_kind[FactKind.LOCAL_TEXT], TermRule.LOCAL_TEXT),
        *_birth_dates(by_kind[FactKind.BIRTH_DATE]),
    ]
    terms = pl.concat([part.select(TERMS.names()).cast(TERMS) for part in parts])
    return terms.filter(pl.col("term").str.contains(r"[\pL\pN]")).unique()


def _split_displays(facts: pl.DataFrame) -> pl.DataFrame:
    """Return whole names as family and given names; texts of one word or without two names are left out."""
    clinical = pl.col("second").is_not_null() & ~pl.col("second").is_in(
        ["Patient", "Person", "RelatedPerson", "Practitioner", "PractitionerRole"]
    )
    found = facts.filter(~clinical).select("value", "owner").unique()
    text = pl.col("value").str.strip_chars()
    comma = text.str.contains(r"^[^,\d]+,\s*[^,\d]+$")
    words = (" " + text.str.replace_all(r"[,.]", " ") + " ").str.to_lowercase().str.replace_all(" +", " ")
    # Twice, since two titles share the space between them.
    words = words.str.replace_all(_TITLES, "  ").str.replace_all(" +", " ").str.replace_all(_TITLES, "  ")
    parts = words.str.strip_chars().str.split(" ").list.eval(pl.element().filter(pl.element() != ""))
    found = found.select("owner", comma.alias("comma"), parts.alias("parts"))
    few = pl.col("parts").list.len().is_between(2, 4)
    only_letters = pl.col("parts").list.join("").str.contains(r"^[\pL\p{M}'\x{2019}\-]+$")
    found = found.filter(few & only_letters)
    first, last = pl.col("parts").list.first(), pl.col("parts").list.last()
    rest_given = pl.col("parts").list.head(pl.col("parts").list.len() - 1).list.join(GIVEN_SEPARATOR)
    comma_given = pl.col("parts").list.slice(1).list.join(GIVEN_SEPARATOR)
    return found.select(
        pl.lit(FactKind.NAME.value).alias("kind"),
        pl.when("comma").then(first).otherwise(last).alias("value"),
        pl.when("comma").then(comma_given).otherwise(rest_given).alias("second"),
        pl.lit(None, dtype=pl.String).alias("third"),
        "owner",
    )


def _transliterate(names: pl.DataFrame) -> pl.DataFrame:
    """Add the German and Nordic spelling without special letters, and names without their apostrophe."""
    special = names.filter(
        pl.concat_str("value", "second", ignore_nulls=True).str.contains_any(list(_UMLAUTS))
    )
    columns = pl.col("value", "second").str.replace_many(list(_UMLAUTS), list(_UMLAUTS.values()))
    apostrophes = pl.concat_str("value", "second", ignore_nulls=True).str.contains(_APOSTROPHE)
    bare = pl.col("value", "second").str.replace_all(_APOSTROPHE, "")
    return pl.concat([names, special.with_columns(columns), names.filter(apostrophes).with_columns(bare)])


def _names(names: pl.DataFrame, common: frozenset[str]) -> list[pl.DataFrame]:
    given = names["second"].fill_null("").str.split(GIVEN_SEPARATOR)
    frame = pl.DataFrame(
        {
            "family": normalize(names["value"]),
            "first": normalize(given.list.first()),
            "second": normalize(given.list.get(1, null_on_oob=True)),
            "all": normalize(given.list.join(" ")),
            "owner": names["owner"],
        }
    ).unique()
    return [*_full_names(frame), *_single_names(frame, common)]


def _full_names(frame: pl.DataFrame) -> list[pl.DataFrame]:
    # Normalised texts begin and end with a space: what is put together has one between its words.
    family, first = pl.col("family").str.strip_suffix(" "), pl.col("first").str.strip_suffix(" ")
    initial = pl.lit(" ") + pl.col("second").str.slice(1, 1)
    glued = squash(pl.col("first") + pl.col("family"))
    forms = {
        "a": first + pl.col("family"),
        "b": family + pl.col("first"),
        "c": pl.col("all").str.strip_suffix(" ") + pl.col("family"),
        "d": family + pl.col("all"),
        "e": pl.when(pl.col("second") != " ").then(first + initial + pl.col("family")),
        "f": pl.when(pl.col("second") != " ").then(family + first + initial + pl.lit(" ")),
        "g": pl.when(glued.str.len_bytes() >= _LONG_TEXT + 2).then(glued),
        "h": pl.when(glued.str.len_bytes() >= _LONG_TEXT + 2).then(
            squash(pl.col("family") + pl.col("first"))
        ),
    }
    both = frame.filter((pl.col("family") != " ") & (pl.col("first") != " "))
    unspaced = pl.col("family").str.contains(_UNSPACED)
    # Chinese, Japanese and Korean write names without a space, and no word ends where a name does.
    joined = (pl.col("family") + pl.col("first")).str.replace_all(" ", "")
    asian = both.filter(unspaced).select(joined.alias("term"), "owner")
    long = both.filter(~unspaced).select("owner", **forms).unpivot(index="owner", value_name="term")
    parts = _part_names(both.filter(~unspaced))
    found = pl.concat([long.select("term", "owner").drop_nulls("term"), parts, asian])
    return [_terms(found, TermRule.FULL_NAME)]


def _part_names(frame: pl.DataFrame) -> pl.DataFrame:
    """Return each part of a family name of several with the given name: ``Jo Smith`` for Jo O'Brien-Smith."""
    words = pl.col("family").str.strip_chars().str.split(" ")
    parts = frame.filter(words.list.len() > 1).with_columns(words.alias("part")).explode("part")
    parts = parts.filter((pl.col("part").str.len_chars() >= _SHORTEST_NAME) & (pl.col("first") != " "))
    part = pl.lit(" ") + pl.col("part")
    forms = [pl.col("first") + pl.col("part") + pl.lit(" "), part + pl.col("first")]
    return pl.concat([parts.select(form.alias("term"), "owner") for form in forms])


def _single_names(frame: pl.DataFrame, common: frozenset[str]) -> list[pl.DataFrame]:
    columns = [pl.col(name).str.strip_chars() for name in ("family", "first", "second")]
    plain = frame.select("owner", *columns).unpivot(index="owner", value_name="name")
    parts = plain.with_columns(pl.col("name").str.split(" ")).explode("name")
    whole = plain.with_columns(pl.col("name").str.replace_all(" ", ""))  # O'Brien, Smith-Jones, de la Cruz
    words = pl.concat([parts, whole, plain]).select("owner", "name").drop_nulls("name").unique()
    words = words.filter(
        (pl.col("name").str.len_chars() >= _SHORTEST_NAME)
        & ~pl.col("name").is_in(sorted(common))
        & ~pl.col("name").str.contains(r"\d")
    )
    return [_terms(words.select("owner", term=_spaced(pl.col("name"))), TermRule.NAME)]


def _spaced(text: pl.Expr) -> pl.Expr:
    return pl.lit(" ") + text + pl.lit(" ")


def _numbers(facts: pl.DataFrame, rule: TermRule) -> list[pl.DataFrame]:
    plain = facts["value"].str.replace(r"^urn:(oid|uuid):", "")
    frame = pl.DataFrame({"term": normalize(plain), "owner": facts["owner"]}).unique()
    squashed = frame.with_columns(term=squash(pl.col("term")))
    # As they are without leading zeros, without the letters before them, and with a space behind these.
    bare = squashed.filter(pl.col("term").str.contains(_NUMBERED)).with_columns(
        term=pl.col("term").str.replace(_NUMBERED, " $2 ")
    )
    bare = bare.filter(pl.col("term").str.len_bytes() >= _SHORTEST_BARE + 2)
    apart = squashed.with_columns(term=pl.col("term").str.replace(r"^ (\pL+)(\d+) $", " $1 $2 "))
    found = pl.concat([frame, squashed, bare, apart]).unique()
    size = pl.col("term").str.replace_all(" ", "").str.len_bytes()
    digits = pl.col("term").str.contains(r"^[\d ]+$")
    numbered = pl.col("term").str.contains(r"\d")  # a word alone is no number
    weak = pl.when(digits).then(size < _SAFE_DIGITS).otherwise(size < _SAFE_MIXED)
    found = found.filter((size >= _SHORTEST_NUMBER) & (numbered | (size >= _LONG_TEXT)))
    return [_terms(found, rule, weak=weak)]


def _contacts(facts: pl.DataFrame) -> list[pl.DataFrame]:
    plain = facts["value"].str.replace(r"^(https?|tel|fax|mailto|sms):(//)?(www\.)?", "")
    frame = pl.DataFrame({"value": plain, "owner": facts["owner"]}).unique()
    words = frame.select("owner", term=normalize(frame["value"]))
    other = words.filter(pl.col("term").str.contains(r"\pL") & (pl.col("term").str.len_bytes() >= _LONG_TEXT))
    digits = frame.filter(~pl.col("value").str.contains("@")).select(
        "owner",
        "value",
        number=pl.col("value").str.replace(r"(?i)\s*(ext|x).*$", "").str.replace_all(r"\D", ""),
    )
    phones = digits.filter(pl.col("number").str.len_bytes().is_between(_PHONE, 15))
    last = pl.col("number").str.tail(_PHONE)
    parts = pl.concat_str(
        pl.lit(" "),
        last.str.slice(0, 3),
        pl.lit(" "),
        last.str.slice(3, 3),
        pl.lit(" "),
        last.str.slice(6, 4),
    )
    glued = pl.concat_str(pl.lit(" "), last.str.slice(0, 3), pl.lit(" "), last.str.slice(3, 7), pl.lit(" "))
    near = pl.concat_str(pl.lit(" "), last.str.slice(3, 3), pl.lit(" "), last.str.slice(6, 4), pl.lit(" "))
    variants = [
        *(_spaced(pl.col("number")), _spaced(last), _spaced(pl.lit("1") + last)),
        *(parts + pl.lit(" "), glued, *_national(pl.col("value"))),
    ]
    found = [phones.with_columns(variant.alias("term")).select("owner", "term") for variant in variants]
    found = [one.drop_nulls("term") for one in found]
    nearby = phones.select("owner", near.alias("term"))
    local = words.filter(
        pl.col("term").str.contains(r"^[\d ]+$")
        & (pl.col("term").str.replace_all(" ", "").str.len_bytes() >= _LOCAL_PHONE)
    )
    size = pl.col("term").str.replace_all(" ", "").str.len_bytes()
    strong = pl.concat([other, *found])
    return [
        _terms(strong, TermRule.CONTACT),
        _terms(local, TermRule.CONTACT, weak=size < _SAFE_DIGITS),
        _terms(nearby, TermRule.CONTACT, weak=pl.lit(True)),
    ]


def _national(value: pl.Expr) -> list[pl.Expr]:
    """Return an international number as it is dialled in its country: ``020 7946 0958``; null for others."""
    rest = value.str.extract(r"^\s*(?:\+|00)\d{1,3}[ ./-]*(?:\(0\))?[ ./-]*((?:\d[ ./()-]*){8,})$")
    spaced = pl.lit(" 0") + rest.str.replace_all(r"\D+", " ").str.strip_chars() + pl.lit(" ")
    return [spaced, squash(spaced)]


def _addresses(facts: pl.DataFrame) -> list[pl.DataFrame]:
    frame = pl.DataFrame({"term": normalize(facts["value"]), "owner": facts["owner"]}).unique()
    words = pl.col("term").str.count_matches(" ") - 1
    frame = frame.filter((words >= 2) & (pl.col("term").str.len_bytes() >= _LONG_TEXT))  # noqa: PLR2004
    short = frame.with_columns(pl.col("term").str.replace_many(list(_STREETS), list(_STREETS.values())))
    long = frame.with_columns(pl.col("term").str.replace_many(list(_STREETS.values()), list(_STREETS)))
    return [_terms(pl.concat([frame, short, long]), TermRule.ADDRESS)]


def _places(facts: pl.DataFrame) -> list[pl.DataFrame]:
    code = facts["third"].str.replace(r"^\s*(\d{5})-?\d{4}\s*$", "$1")
    frame = pl.DataFrame(
        {
            "city": normalize(facts["value"]).str.strip_suffix(" "),
            "state": normalize(facts["second"]).str.strip_suffix(" "),
            "code": normalize(code),
            "owner": facts["owner"],
        }
    ).unique()
    frame = frame.filter(pl.col("code").str.len_bytes() >= _SHORTEST_NUMBER)
    forms = {
        "a": pl.when(pl.col("city") != "").then(pl.col("city") + pl.col("code")),
        "b": pl.when(pl.col("state") != "").then(pl.col("state") + pl.col("code")),
        "c": pl.when(pl.col("city") != "").then(pl.col("code").str.strip_suffix(" ") + pl.col("city") + " "),
    }
    found = frame.select("owner", **forms).unpivot(index="owner", value_name="term").drop_nulls("term")
    return [_terms(found, TermRule.PLACE)]


def _long_texts(facts: pl.DataFrame, rule: TermRule) -> pl.DataFrame:
    frame = pl.DataFrame({"term": normalize(facts["value"]), "owner": facts["owner"]}).unique()
    words = pl.col("term").str.count_matches(" ") - 1
    return _terms(frame.filter((words >= 2) & (pl.col("term").str.len_bytes() > _LONG_TEXT)), rule)  # noqa: PLR2004


def _birth_dates(facts: pl.DataFrame) -> list[pl.DataFrame]:
    """Return the usual ways to write a date; those of digits only, or with half a year, are weak."""
    frame = facts.select("owner", date=pl.col("value").str.to_date("%Y-%m-%d", strict=False)).drop_nulls(
        "date"
    )
    date = pl.col("date").dt
    spoken = ["%Y %m %d", "%m %d %Y", "%d %m %Y", "%-m %-d %Y", "%-d %-m %Y", "%Y %-m %-d", "%Y%m%d000000"]
    named = [
        "%b %-d %Y",
        "%B %-d %Y",
        "%-d %b %Y",
        "%-d %B %Y",
        "%b %d %Y",
        "%d %b %Y",
        "%d%b%Y",
        "%b %-d %y",
    ]
    forms = [_spaced(date.strftime(form).str.to_lowercase()) for form in (*spoken, *named)]
    found = pl.concat([frame.select("owner", form.alias("term")) for form in forms])
    short = ["%Y%m%d", "%m%d%Y", "%m %d %y", "%d %m %y", "%-m %-d %y", "%-d %-m %y"]
    compact = [frame.select("owner", _spaced(date.strftime(form)).alias("term")) for form in short]
    return [
        _terms(found, TermRule.BIRTH_DATE),
        _terms(pl.concat(compact), TermRule.BIRTH_DATE, weak=pl.lit(True)),
    ]


def _terms(frame: pl.DataFrame, rule: TermRule, *, weak: pl.Expr | None = None) -> pl.DataFrame:
    is_weak = pl.lit(value=False) if weak is None else weak
    return frame.select("term", pl.lit(rule.value).alias("rule"), is_weak.alias("weak"), "owner")


def unkeyed_hashes(facts: pl.DataFrame) -> pl.Series:
    """Return MD5, SHA-1 and SHA-256 digests of ids and numbers, also cut to the length of a pseudonym.

    A pseudonym without a key is none: whoever knows a number can compute it.
    """
    kinds = [FactKind.ID.value, FactKind.IDENTIFIER.value]
    values = facts.filter(pl.col("kind").is_in(kinds)).select(pl.col("value").unique())
    value = polars_hash.col("value")
    full = values.select(md5=value.nchash.md5(), sha1=value.nchash.sha1(), sha256=value.chash.sha2_256())
    whole = pl.concat([full[name] for name in full.columns])
    return pl.concat([whole, whole.str.head(PSEUDONYM_DIGITS)]).unique()
