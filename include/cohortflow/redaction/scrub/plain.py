"""Writes texts plainly before they are searched: without mark-up, and without what hides words.

Mark-up stands within names (``<b>Mar</b>garet``) and for letters (``N&#250;&ntilde;ez``), invisible
characters part words, and digits, blanks and hyphens have other forms than those that anyone would search
for. The plain text takes the place of the text: what was in the mark-up, such as comments and links, is not
kept.
"""

from __future__ import annotations

import html
import re
from typing import Final

import polars as pl

__all__ = ["is_no_text", "write_plainly"]

_NO_TEXT: Final = r"^\s*(?:\{\\rtf|%PDF-|PK\x03|RIFF|OggS|GIF8|\x{89}PNG)"
"""What is no text: rich text, which hides words in its own mark-up, and other formats read as text."""

_CONTROLS: Final = r"[\x00-\x08\x0e-\x1f\x7f]"
_BINARY_SHARE: Final = 10
"""A text with one control character in so many is none."""

_BLOCKS: Final = (
    r"address|article|aside|blockquote|br|caption|center|dd|div|dl|dt|fieldset|figcaption|figure|footer|form|h[1-6]"
    r"|header|hr|html|legend|li|main|nav|ol|option|p|paragraph|pre|section|table|tbody|text|tfoot|thead|title|tr|ul"
    r"|body|head|item|list"
)
_CELLS: Final = r"td|th|col|colgroup"
_INLINE: Final = (
    r"a|abbr|acronym|area|audio|b|bdi|bdo|big|button|cite|code|content|data|del|dfn|em|embed|font|i|iframe|img|input"
    r"|ins|kbd|label|link|linkhtml|map|mark|meta|meter|object|output|param|picture|progress|q|rp|rt|ruby|s|samp|select"
    r"|small|source|span|strike|strong|sub|sup|svg|textarea|time|track|tt|u|var|video|wbr|o:p|w:\w+|v:\w+|st1:\w+"
)
# "a < b" and <jane@example.org> are no tags: a tag has a known name, and "=" where more stands behind it.
_REST: Final = r"(?:\s(?:[^<>\"']|\"[^\"]*\"|'[^']*')*=(?:[^<>\"']|\"[^\"]*\"|'[^']*')*)?\s*/?>"
_HIDDEN: Final = re.compile(
    rf"<!--.*?(?:-->|\Z)|<!\[CDATA\[|\]\]>|<[?!][a-z][^<>]*>"
    rf"|<(script|style|template){_REST}.*?(?:</\1\s*>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_BLOCK: Final = re.compile(rf"</?(?:{_BLOCKS}){_REST}", re.IGNORECASE)
_CELL: Final = re.compile(rf"</?(?:{_CELLS}){_REST}", re.IGNORECASE)
_TAG: Final = re.compile(rf"</?(?:{_INLINE}){_REST}", re.IGNORECASE)
_ENTITY: Final = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]*;|#[0-9]{1,7};?|#[xX][0-9A-Fa-f]{1,6};?)")
_MARKED: Final = rf"<[/!?A-Za-z]|{_ENTITY.pattern}"

_INVISIBLE: Final = (
    rf"[\p{{Cf}}\x{{34F}}\x{{115F}}\x{{1160}}\x{{3164}}\x{{FE00}}-\x{{FE0F}}\x{{FFFD}}]|{_CONTROLS}"
)
_FORMS: Final = (
    {chr(0xFF01 + code - 0x21): chr(code) for code in range(0x21, 0x7F)}  # full width
    | {chr(zero + digit): str(digit) for zero in (0x660, 0x6F0, 0x966) for digit in range(10)}
    | {chr(zero + digit): str(digit) for zero in range(0x1D7CE, 0x1D800, 10) for digit in range(10)}
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe58\ufe63", "-")
    | dict.fromkeys("\xa0\u1680\u202f\u205f\u3000", " ")
    | {chr(code): " " for code in range(0x2000, 0x200B)}
    | dict.fromkeys("\u2028\u2029\x85\x0b\x0c", "\n")
)
_MISREAD: Final = {
    bytes((0xC3, code)).decode(encoding): chr(code + 0x40)
    for encoding in ("latin-1", "cp1252")
    for code in range(0x80, 0xC0)
    if code not in {0x81, 0x8D, 0x8F, 0x90, 0x9D}
}
"""Letters in UTF-8 that were read as if they were of another encoding: ``NÃºÃ±ez``."""
_WIDE: Final = f"[\xc3{''.join(_FORMS)}]|{_INVISIBLE}|\\pM"
_MOST_ROUNDS: Final = 4


def is_no_text(texts: pl.Series) -> pl.Series:
    """Return which texts are of a format that is none, or hold control characters as only such formats do."""
    controls = texts.str.count_matches(_CONTROLS).cast(pl.Int64)
    return texts.str.contains(_NO_TEXT) | (controls * _BINARY_SHARE > texts.str.len_chars())


def write_plainly(texts: pl.Series) -> pl.Series:
    """Return texts without mark-up, invisible characters and odd forms of blanks, hyphens and digits.

    Texts without any of these are not changed; plain texts stay as they are.
    """
    texts = _write_characters(texts)
    for _ in range(_MOST_ROUNDS):  # what entities stand for may be mark-up, or invisible
        marked = texts.str.contains(_MARKED).fill_null(value=False).arg_true()
        if not len(marked):
            break
        before = texts.gather(marked)
        plain = _write_characters(pl.Series([_strip_markup(text) for text in before], dtype=pl.String))
        if (plain == before).all():
            break
        texts = texts.clone().scatter(marked, plain)
    return texts


def _write_characters(texts: pl.Series) -> pl.Series:
    odd = texts.str.contains(_WIDE).fill_null(value=False).arg_true()
    if not len(odd):
        return texts
    some = texts.gather(odd).str.replace_many(list(_MISREAD), list(_MISREAD.values()))
    some = some.str.replace_many(list(_FORMS), list(_FORMS.values()))
    some = some.str.replace_all(_INVISIBLE, "").str.normalize("NFC")
    return texts.clone().scatter(odd, some)


def _strip_markup(text: str) -> str:
    text = _HIDDEN.sub("", text)
    text = _TAG.sub("", _CELL.sub(" ", _BLOCK.sub("\n", text)))
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
