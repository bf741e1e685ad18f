"""Distributors' tables of text, one row a line and one separator between the columns.

RF2, RRF and Athena's files quote nothing: a quotation mark in them is a character like others. LOINC's are
CSV with quotes (RFC 4180). No text stands for an absent value in either, so that ``NA`` stays a word.

Every file is checked once, as a stream, before it is read: a line with too few or too many columns is named
by its number instead of being filled up in silence.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from cohortflow.errors import InputError, MalformedDataError
from cohortflow.terminology.loaders.files import open_failure, require_file

__all__ = ["LINE", "Delimited", "find_below", "find_one_below", "name_files", "require_one_below"]

LINE = "line"
"""Column with a row's line number, from 1."""

_SEPARATORS: Mapping[str, str] = {"\t": "tabs", ",": "commas", "|": "bars", ";": "semicolons"}
_GET_AGAIN = "Get the file again, and edit it in no spreadsheet: it may be cut or changed."


@dataclass(frozen=True)
class Delimited:
    """One file, found to be well formed.

    Attributes:
        path: The file.
        names: Its columns, in lower case.
        separator: Between two columns.
        header: Whether the first line names the columns.
        quoted: Whether double quotes may stand around a value.
    """

    path: Path
    names: tuple[str, ...]
    separator: str
    header: bool
    quoted: bool

    @classmethod
    def open(
        cls, path: Path, required: Sequence[str], *, separator: str = "\t", quoted: bool = False
    ) -> Delimited:
        """Check a file whose first line names its columns.

        Args:
            path: The file.
            required: Columns that must be there, in any case and order.
            separator: Between two columns.
            quoted: Whether double quotes may stand around a value.

        Raises:
            InputError: The file is not there, is no text, or has another separator.
            MalformedDataError: A column is missing, or a line has too few or too many.
        """
        first = _read_first_line(require_file(path))
        names = tuple(name.strip().strip('"').lower() for name in first.split(separator))
        if len(names) == 1 and (other := _guess_separator(first, separator)):
            raise InputError(
                f"The columns are separated by {_SEPARATORS[other]}, not by {_SEPARATORS[separator]}.",
                place=f"{path}:1",
                remedy="Use the distributor's file as it was downloaded.",
            )
        if missing := [name for name in required if name not in names]:
            raise MalformedDataError(
                f"The column '{missing[0]}' is missing.",
                place=f"{path}:1",
                remedy="Check that it is the distributor's file of this name, with its header.",
            )
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise MalformedDataError(
                f"The column '{twice[0]}' stands twice.", place=f"{path}:1", remedy=_GET_AGAIN
            )
        found = cls(path, names, separator, header=True, quoted=quoted)
        found.check()
        return found

    @classmethod
    def open_rrf(cls, path: Path, names: Sequence[str]) -> Delimited:
        """Check a file in Rich Release Format: no header, bars between the columns and after the last.

        Raises:
            InputError: The file is not there, is no text, or has no bars.
            MalformedDataError: A line has too few or too many columns.
        """
        first = _read_first_line(require_file(path))
        if "|" not in first:
            raise open_failure(path, "in Rich Release Format, with bars between the columns")
        found = cls(path, (*names, ""), "|", header=False, quoted=False)
        found.check()
        return found

    def check(self) -> None:
        """Compare the number of columns of each line with that of the header."""
        bad = self._find_bad_quoted() if self.quoted else self._find_bad_line()
        if bad is not None:
            number, count = bad
            columns = len(self.names) - (not self.header)
            raise MalformedDataError(
                f"The line has {count - (not self.header)} columns, not {columns}.",
                place=f"{self.path}:{number}",
                remedy=_GET_AGAIN,
            )

    def scan(self) -> pl.LazyFrame:
        """Return the rows: `LINE` and the columns, all text; an empty value is null."""
        # Names are given by place: a header may be in any case.
        schema = {f"column_{number}": pl.String() for number in range(1, len(self.names) + 1)}
        rows = pl.scan_csv(
            self.path,
            separator=self.separator,
            quote_char='"' if self.quoted else None,
            has_header=False,
            skip_rows=1 if self.header else 0,
            schema=schema,
            row_index_name=LINE,
            row_index_offset=2 if self.header else 1,
            glob=False,
        )
        if self.quoted:  # "" is an empty value too
            rows = rows.with_columns(pl.when(pl.col(name) != "").then(name).alias(name) for name in schema)
        named = dict(zip(schema, self.names, strict=True))
        blank = pl.all_horizontal(pl.col(name).is_null() for name in schema)
        return rows.filter(~blank).select(
            LINE, *(pl.col(old).alias(new) for old, new in named.items() if new)
        )

    def require(self, column: str, pattern: str, expected: str) -> None:
        """Refuse the file if a value of a column is absent or does not match.

        Args:
            column: Its name.
            pattern: Regular expression that a value is to match from its begin to its end.
            expected: What is expected, for the message.

        Raises:
            MalformedDataError: A value does not match; the place names its line.
        """
        valid = pl.col(column).str.contains(f"^(?:{pattern})$").fill_null(value=False)
        bad = self.scan().select(LINE, column).filter(~valid).head(1).collect(engine="streaming")
        if bad.height:
            raise MalformedDataError(
                f"The column '{column}' holds no {expected}.",
                place=self.place(bad[LINE][0]),
                remedy=_GET_AGAIN,
            )

    def require_unique(self, key: Sequence[str], rows: pl.LazyFrame, remedy: str) -> None:
        """Refuse the file if two of its rows have the same key.

        Args:
            key: Columns that tell the rows apart.
            rows: Rows of this file, such as the active ones, with `LINE`.
            remedy: What to do about it.

        Raises:
            MalformedDataError: Two rows do; the place names the later one's line.
        """
        twice = (
            rows.group_by(key)
            .agg(pl.col(LINE).min().alias("first"), pl.col(LINE).max().alias("last"))
            .filter(pl.col("first") != pl.col("last"))
            .sort("last")
            .head(1)
            .collect(engine="streaming")
        )
        if twice.height:
            name = " and ".join(str(twice[column][0]) for column in key)
            raise MalformedDataError(
                f"{name} stands here and in line {twice['first'][0]}.",
                place=self.place(twice["last"][0]),
                remedy=remedy,
            )

    def place(self, line: int) -> str:
        """Return file and line; where values hold line breaks, only the row is known."""
        return f"{self.path}:{line}"

    def _find_bad_line(self) -> tuple[int, int] | None:
        count = pl.col(LINE).str.count_matches(self.separator, literal=True) + 1
        lines = pl.scan_lines(
            self.path, name=LINE, row_index_name="number", row_index_offset=1, glob=False
        ).select("number", pl.when(pl.col(LINE).str.strip_chars() != "").then(count).alias("count"))
        try:
            bad = lines.filter(pl.col("count") != len(self.names)).head(1).collect(engine="streaming")
        except pl.exceptions.PolarsError:
            raise open_failure(self.path, "text in UTF-8") from None
        return (bad["number"][0], bad["count"][0]) if bad.height else None

    def _find_bad_quoted(self) -> tuple[int, int] | None:
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=self.separator, strict=True)
                for row in reader:
                    if row and len(row) != len(self.names):
                        return reader.line_num, len(row)
        except csv.Error:
            raise MalformedDataError(
                "A value's quotes are not closed, or text follows them.",
                place=f"{self.path}:{reader.line_num}",
                remedy=_GET_AGAIN,
            ) from None
        except UnicodeDecodeError:
            raise open_failure(self.path, "text in UTF-8") from None
        return None


def find_below(folder: Path, *patterns: str) -> tuple[Path, ...]:
    """Return the files in a folder and below it that match a pattern in any case, sorted.

    Args:
        folder: The distributor's folder.
        patterns: Shell patterns of names, in lower case.

    Raises:
        InputError: The folder is not there, or is an archive that is not unpacked.
    """
    if not folder.is_dir():
        archive = folder.suffix.lower() in {".zip", ".gz", ".tgz"} and folder.is_file()
        raise InputError(
            "The archive is not unpacked." if archive else "The folder is not there.",
            place=str(folder),
            remedy="Unpack it, and name the folder." if archive else "Name the folder of the release.",
        )
    return tuple(
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(Path(path.name.lower()).match(pattern) for pattern in patterns)
    )


def find_one_below(folder: Path, pattern: str) -> Path | None:
    """Return the one file in a folder or below it that matches, or ``None``.

    Raises:
        InputError: The folder is not there, or several files match.
    """
    found = find_below(folder, pattern)
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found[:4])
        raise InputError(
            f"Several files are named like {pattern}: {names}.",
            place=str(folder),
            remedy="Keep one version of one edition in the folder.",
        )
    return found[0] if found else None


def require_one_below(folder: Path, pattern: str, title: str) -> Path:
    """Return the one file in a folder or below it that matches.

    Args:
        folder: The distributor's folder.
        pattern: Shell pattern of its name, in lower case.
        title: The file's name for people.

    Raises:
        InputError: The folder is not there, or no file or several match.
    """
    found = find_one_below(folder, pattern)
    if found is None:
        raise InputError(
            f"The folder has no {title}.",
            place=str(folder),
            remedy="Name the folder of the unpacked release.",
        )
    return found


def name_files(*files: Delimited | None) -> tuple[str, ...]:
    """Return the names of the files that are there."""
    return tuple(file.path.name for file in files if file)


def _read_first_line(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        raise open_failure(path, "text in UTF-8") from None
    if not first.strip():
        raise open_failure(path, "a table: its first line is empty")
    return first


def _guess_separator(line: str, expected: str) -> str:
    """Return the separator that a header has instead of the expected one, or nothing."""
    counts = {separator: line.count(separator) for separator in _SEPARATORS if separator != expected}
    best = max(counts, key=lambda separator: counts[separator])
    return best if counts[best] else ""
