"""Text in the form in which it is searched: words in lower case without accents, single spaces between.

``"Lemke,  José-Ábram"`` becomes ``" lemke jose abram "``. With a space at both ends, a search for
``" abram "`` finds whole words only. Percent signs of URLs and entities of HTML are undone before.
"""

from __future__ import annotations

import html
from typing import Final

import polars as pl

__all__ = ["decode_base64", "normalize", "squash"]

_ESCAPES: Final = {f"%{byte:02X}": chr(byte) for byte in range(0x20, 0x7F)} | {
    "&amp;": "&",
    "&#39;": "'",
    "&#x27;": "'",
    "&quot;": '"',
    "&nbsp;": " ",
}
_LATIN: Final = {
    "".join(f"%{byte:02X}" for byte in chr(point).encode()): chr(point) for point in range(0xC0, 0x180)
}
_BASE64: Final = r"[A-Za-z0-9+/_-]{16,}={0,2}"


def normalize(texts: pl.Series) -> pl.Series:
    """Return texts in the form in which they are searched; nulls become ``" "``."""
    texts = texts.fill_null("")
    escaped = texts.str.contains_any(["%", "&"])
    if escaped.any():
        plain = _unescape(texts.filter(escaped))
        texts = texts.scatter(escaped.arg_true(), plain)
    wide = texts.str.contains(r"[^\x00-\x7f]")
    if wide.any():
        texts = texts.scatter(wide.arg_true(), _fold(texts.filter(wide)))
    return texts.to_frame("text").select(_words(pl.col("text"))).to_series().alias(texts.name)


_NO_WORD: Final = r"[^\pL\pN]+"  # with the spaces between words


def _words(text: pl.Expr) -> pl.Expr:
    """In one plan: a source's terms are made of many short columns."""
    words = text.str.to_lowercase().str.replace_all(_NO_WORD, " ").str.strip_chars(" ")
    return pl.when(words == "").then(pl.lit(" ")).otherwise(pl.lit(" ") + words + pl.lit(" "))


def _unescape(texts: pl.Series) -> pl.Series:
    pairs = _ESCAPES | _LATIN
    keys = [*pairs, *(key.lower() for key in pairs if key.lower() != key)]
    values = [*pairs.values(), *(pairs[key] for key in pairs if key.lower() != key)]
    if texts.str.contains("&#").any():  # rare in columns; whole pages have them
        texts = pl.Series(texts.name, [html.unescape(text) for text in texts], dtype=pl.String)
    return texts.str.replace_many(keys, values)


def _fold(texts: pl.Series) -> pl.Series:
    """Take accents and invisible characters away; digits and letters of other widths become plain ones."""
    return (
        texts.str.normalize("NFKD")
        .str.replace_all(r"[\p{M}\p{Cf}]+", "")
        .str.replace_many(
            ["ß", "æ", "Æ", "ø", "Ø", "ł", "Ł", "đ", "Đ", "œ", "Œ"],
            ["ss", "ae", "ae", "o", "o", "l", "l", "d", "d", "oe", "oe"],
        )
    )


def squash(texts: pl.Expr) -> pl.Expr:
    """Return normalised texts without spaces, but for those at both ends."""
    return pl.lit(" ") + texts.str.replace_all(" ", "", literal=True) + pl.lit(" ")


def decode_base64(texts: pl.Series) -> pl.DataFrame:
    """Return what is written in base64 within texts.

    Returns:
        ``row: u32`` (of ``texts``) and ``text: str``; parts that are no text are left out.
    """
    found = pl.DataFrame({"row": pl.int_range(len(texts), dtype=pl.UInt32, eager=True), "text": texts})
    found = found.with_columns(pl.col("text").str.extract_all(_BASE64)).explode("text").drop_nulls()
    found = found.filter(~pl.col("text").str.contains(r"^[0-9a-f-]+$"))  # pseudonyms, UUIDs, plain numbers
    body = pl.col("text").str.replace_all("-", "+").str.replace_all("_", "/").str.strip_chars_end("=")
    # Whole groups of 4 characters, and what may be padded behind them; a cut leaves bits that cannot be.
    rest = body.str.len_bytes() % 4
    groups = body.str.head(body.str.len_bytes() - rest)
    padded = pl.when(rest == 2).then(body + "==").when(rest == 3).then(body + "=").otherwise(groups)  # noqa: PLR2004
    decoded = [text.str.decode("base64", strict=False) for text in (padded, groups)]
    found = found.with_columns(pl.coalesce(decoded).alias("bytes")).drop_nulls("bytes")
    # One picture among the texts would fail a cast of the whole column.
    plain = [content.decode("utf-8", "ignore").replace("\0", "") for content in found["bytes"]]
    found = found.select("row", pl.Series("text", plain, dtype=pl.String))
    text = pl.col("text")
    return found.filter(text.str.contains(r"[\pL\pN]{3}") & ~text.str.contains(r"[\x01-\x08\x0e-\x1f]"))
