"""Order files of ICD-10-CM and ICD-10-PCS: all codes in order, with their names, in columns of fixed width.

Source: ``icd10OrderFiles.pdf`` beside the files of the Centers for Medicare & Medicaid Services: order number
in columns 1-5, code without dot in 7-13, whether it is valid for HIPAA transactions in 15 (0: a header),
short name in 17-76, long name from 78 on.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from cohortflow.errors import MalformedDataError
from cohortflow.terminology.loaders.files import open_failure, require_file

__all__ = ["read_order_file"]


def read_order_file(path: Path, code: str, title: str) -> pl.DataFrame:
    """Read an order file.

    Args:
        path: The file.
        code: Regular expression of a code.
        title: What the file is, for messages.

    Returns:
        ``number`` of the line, ``bare`` (code without a dot), ``billable`` (Boolean), ``short``, ``long``.

    Raises:
        InputError: The file is not there, or no line of it has this layout.
        MalformedDataError: A line has another layout; the place names it.
    """
    lines = pl.scan_lines(
        require_file(path), name="line", row_index_name="number", row_index_offset=1, glob=False
    )
    layout = rf"^[0-9]{{5}} (?:{code}) *[01] .{{60}} .+$"
    text = pl.col("line")
    try:
        found = (
            lines.with_columns(text.str.strip_chars_end("\r\n "))
            .filter(text != "")
            .with_columns(valid=text.str.contains(layout))
            .collect()
        )
    except pl.exceptions.PolarsError:
        raise open_failure(path, "text in UTF-8") from None
    if not found["valid"].any():
        raise open_failure(path, f"an order file of {title}")
    bad = found.filter(~pl.col("valid"))
    if bad.height:
        raise MalformedDataError(
            "The line has another layout than: order number, code, 0 or 1, short name, long name.",
            place=f"{path}:{bad['number'][0]}",
            remedy="Get the file again, and open it in no program that changes blanks.",
        )
    codes = found.select(
        "number",
        bare=text.str.slice(6, 7).str.strip_chars(),
        billable=text.str.slice(14, 1) == "1",
        short=text.str.slice(16, 60).str.strip_chars(),
        long=text.str.slice(77).str.strip_chars(),
    )
    twice = codes.filter(~pl.col("bare").is_first_distinct())
    if twice.height:
        raise MalformedDataError(
            f"The code {twice['bare'][0]} stands twice.",
            place=f"{path}:{twice['number'][0]}",
            remedy="Use the file of one year; do not join files.",
        )
    return codes
