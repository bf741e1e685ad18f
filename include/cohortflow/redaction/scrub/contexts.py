"""Finds names and places by what stands beside them, and dates and ages as notes write them.

Names of persons who are not in the raw zone have no form. They are found after a title or a word such as
``daughter`` or ``signed by``, and before ``MD``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import polars as pl

from cohortflow.redaction.scrub.forms import FOUND
from cohortflow.redaction.scrub.lexicon import Lexicon
from cohortflow.redaction.scrub.spans import find_spans

__all__ = ["find_contexts"]

_GROUP: Final = re.compile(r"(?<!\\)\((?!\?)")

# Boundaries and cases of ASCII: the Unicode ones make the engine leave its fast path.
_NAME: Final = r"(?:(?-u:\b)\p{Lu}\.[ ]?)?\p{Lu}[\pL'\x{2019}-]+"
_NAMES: Final = rf"{_NAME}(?:[ ](?:\p{{Lu}}\.?[ ])?(?:(?:van|von|de|der|la|del|dos|da|di)[ ])*{_NAME}){{0,2}}"
_MONTH: Final = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)"

_RELATIVES: Final = (
    r"(?i-u:wife|husband|spouse|partner|mother|father|mom|dad|son|daughter|sister|brother|aunt|uncle"
    r"|niece|nephew|cousin"
    r"|grand(?:mother|father|son|daughter|ma|pa)|(?:girl|boy)?friend|fiancee?|neighbou?r|roommate"
    r"|caregiver|guardian"
    r"|step(?:mother|father|son|daughter)|(?:son|daughter|mother|father|sister|brother)-in-law|twin"
    r"|child|aide)"
)
_NAMED_BY_RELATION: Final = rf"(?-u:\b){_RELATIVES}(?:,| is| was|,? named|,? called)?,? \(?({_NAMES})"
_RELATION_BY_NAME: Final = (
    rf"({_NAME})(?:,| \(|, \() ?(?i-u:(?:the|his|her|their|patient's|pt's) )?{_RELATIVES}(?-u:\b)"
)
_CALLED: Final = (
    r"(?-u:\b)(?i-u:named|called|goes by|known as|a\.k\.a\.|aka|nee|maiden name(?: is)?|nickname(?:"
    r" is)?)[: ]+"
    rf"[\"'\x{{201c}}]?({_NAMES})"
)
_DID: Final = (
    r"(?:signed|dictated|seen|written|authored|reviewed|entered|verified|examined|performed|evaluated"
    r"|interpreted|read"
    r"|transcribed|referred|reported|attested|staffed|supervised|assisted|accompanied|prescribed"
    r"|ordered|provided)"
    r" (?:electronically )?by"
)
_ROLE: Final = (
    rf"(?-u:\b)(?i-u:{_DID}|(?:discussed|spoke|met|staffed|talked|reviewed|conferred) with|per|d/w|paged"
    rf"|attn|cc"
    r"|(?:(?:attending|referring|consulting|primary care|ordering|treating) )?(?:physician|provider"
    r"|surgeon|doctor"
    r"|clinician|resident|nurse|attending|author|pcp|consultant|therapist|pharmacist|interpreter|social"
    r" worker"
    r"|case manager|midwife|dietitian)"
    r"|(?:(?:patient|pt|full|last|first|family|given|contact|guarantor|subscriber|employee"
    r"|legal)(?:'s)? )?name"
    r"|patient|pt|(?:emergency|alternate|primary) contact|next of kin|nok|poa|health care proxy|proxy"
    r"|guarantor"
    r"|subscriber)(?: (?:is|was))?[ \t]*[:;#-]{1,2}[ \t]*"
    rf"((?:(?:Dr|Mr|Mrs|Ms)\.? )?(?:\p{{Lu}}[\pL'\x{{2019}}-]+,[ ])?{_NAMES})"
)
_AGENT: Final = (
    rf"(?-u:\b)(?i-u:{_DID}|(?:discussed|spoke|talked|met) with|nurse|officer|judge|rabbi|pastor|d/w"
    rf"|paged|attorney"
    rf"|attention|attn|per)[ ]((?:Dr\.? )?{_NAMES})"
)
_TITLED: Final = (
    r"(?-u:\b)(?:(?i-u:dr|mrs|mr|ms|miss|prof|professor|doctor|nurse)\.?|DR|MRS?|MS)[ ]"
    rf"(\p{{Lu}}(?:[\pL'\x{{2019}}-]+|\.)(?:[ ](?:\p{{Lu}}\.?[ ])?{_NAME}){{0,2}})"
)
_DAYS: Final = (
    rf"(?-u:\b)(?i-u:on|since|until|till|from|by|before|after|dated|of|through|thru|to|and|dos|doa|due"
    rf"|seen|visit|started|stopped)[: ]+"
    r"((?:0?[1-9]|1[0-2])[/](?:0?[1-9]|[12][0-9]|3[01]))(?:[ ,.;)]|$)"
    rf"|(?-u:\b)((?:{_MONTH}[a-z]*\.?|March|April|June|July) (?:0?[1-9]|[12][0-9]|3[01])(?:st|nd|rd"
    rf"|th)?)(?-u:\b)"
    rf"|(?-u:\b)((?:0?[1-9]|[12][0-9]|3[01])(?:st|nd|rd|th)?[ -](?:of )?{_MONTH}[a-z]*)(?-u:\b)"
    r"|(?-u:\b)((?:0?[1-9]|1[0-2])[-.](?:0?[1-9]|[12][0-9]|3[01])[-.](?:(?:19|20)[0-9]{2}|[0-9]{2}))(?-u:\b)"
    r"|(?-u:\b)((?:0?[1-9]|1[0-2])/(?:19|20)[0-9]{2})(?-u:\b)"
    r"|(?-u:\b)((?:19|20)[0-9]{2}/(?:0?[1-9]|1[0-2])/(?:0?[1-9]|[12][0-9]|3[01]))(?-u:\b)"
)
_HOMES: Final = (
    rf"(?-u:\b)(?i-u:lives?|living|lived|resid(?:es?|ing)|moved|relocated|born|raised|grew up|works?"
    rf"|working|worked|employed|retired|travell?ed"
    rf"|visiting|transferred|flew|drove|native)(?: (?:in|at|near|to|from|of|by|for|outside))[ ](?:the"
    rf" )?({_NAMES}(?:, (?:\p{{Lu}}\p{{Lu}}|{_NAME}))?)"
)
_PLACES: Final = (
    r"(?-u:\b)((?:\p{Lu}[\pL.'\x{2019}-]+ ){1,4}(?:Hospital|Medical Center|Medical Centre|Health Center"
    r"|Health System|Nursing Home|Rehabilitation Center"
    r"|Hospice|University|High School|Elementary School|Middle School|Infirmary|Clinic|Family Practice"
    r"|Medical Group|Associates))(?-u:\b)"
)
_DIGITS: Final = r"((?:(?-u:\b)[0-9]{3}[-. ]|\([0-9]{3}\)[-. ]?)[0-9]{3}[-. ][0-9]{4})(?-u:\b)"
_AGED: Final = (
    r"(?-u:\b)((?:9[0-9]|1[01][0-9])[ -]?(?:y\.?[ ]?o\.?|years?[ -]old|yrs?[ -]old|year-old"
    r"|yo))(?:[^A-Za-z0-9]|$)"
    r"|(?i-u:(?-u:\b)aged?:? |(?-u:\b)turned )((?:9[0-9]|1[01][0-9]))(?-u:\b)"
)
_MASKED: Final = (
    r"([\pL\pN]+[*\x{2022}\x{2588}#]{2,}[\pL\pN]*|[*\x{2022}\x{2588}#]{2,}[-. ]?[\pL\pN]+"
    r"|(?-u:\b)[xX]{3}[- ]?[xX]{2}[- ]?[0-9]{4}(?-u:\b))"
)
_CREDITS: Final = (
    rf"({_NAMES}),? (?:M\.?D|D\.?O|R\.?N|N\.?P|P\.?A(?:-C)?|Ph\.?D|DDS|LPN|CRNA|APRN|FNP|MBBS|Pharm\.?D|LCSW"
    r"|DPM|RPh|DNP|MSW|CNA)(?-u:\b)"
)


@dataclass(frozen=True, slots=True)
class _Context:
    """What stands beside something, with groups that hold it.

    Attributes:
        tag: What it is.
        expression: In the syntax of Rust.
        cautious: Whether words with which sentences of notes begin are nothing there.
    """

    tag: str
    expression: str
    cautious: bool = False

    @property
    def groups(self) -> int:
        """How many groups its expression has."""
        return len(_GROUP.findall(self.expression))


_TOGETHER: Final = (
    (
        _Context("NAME", _NAMED_BY_RELATION, cautious=True),
        _Context("NAME", _RELATION_BY_NAME, cautious=True),
        _Context("NAME", _CALLED, cautious=True),
    ),
    (_Context("NAME", _ROLE), _Context("NAME", _AGENT), _Context("NAME", _TITLED)),
    (_Context("NAME", _CREDITS), _Context("ADDRESS", _HOMES, cautious=True)),
    (
        _Context("ORGANIZATION", _PLACES),
        _Context("PHONE", _DIGITS),
        _Context("AGE>89", _AGED),
        _Context("DATE", _DAYS),
        _Context("ID", _MASKED),
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
    kept = []
    for text, value, which in told.iter_rows():  # distinct finds: few
        name = _leave_common(value, lexicon) if contexts[which].cautious else value
        if name:
            kept.append((text, contexts[which].tag, name))
    schema = {"text": pl.String(), "tag": pl.String(), "value": pl.String()}
    frame = pl.DataFrame(kept, schema=schema, orient="row")
    return frame.with_columns(place=_last_place(pl.col("text"), pl.col("value")))


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
