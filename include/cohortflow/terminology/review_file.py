"""Review files: candidates for local codes, with columns for what reviewers decide on them.

A CSV or YAML file with a row for each candidate. Everything is text: no YAML or spreadsheet type may change a
code. Messages name lines, and no codes: a hospital's own may be text of a record.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from cohortflow.errors import InputError
from cohortflow.terminology.systems import canonical_code, canonical_system

__all__ = ["REVIEW_COLUMNS", "ReviewRow", "format_review", "read_review"]

REVIEW_COLUMNS: Final = (
    "source_system",
    "source_code",
    "source_display",
    "source_rows",
    "target_system",
    "target_code",
    "target_display",
    "matched_term",
    "score",
    "decision",
    "relationship",
    "reviewer",
    "date",
    "comment",
)
"""Of a review file. The last five are the reviewer's."""
_NEEDED: Final = frozenset(REVIEW_COLUMNS) - {
    "source_display",
    "source_rows",
    "target_display",
    "matched_term",
    "score",
    "comment",
}
# A spreadsheet would run a cell that begins like this as a formula.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """A row of a review file, systems and codes in canonical spelling.

    Attributes:
        line: Of the file, from 1.
        source_system: Canonical URI, or the hospital's name of its own system.
        source_code: The local code.
        source_display: Its name at the source, or empty.
        target_system: Canonical URI.
        target_code: The candidate, or what the reviewer has put in its place; empty where there is none.
        decision: In small letters; empty where it is open.
        relationship: Of the source to the target: a value of `Relationship`.
        reviewer: Who decided.
        date: When, as text.
        comment: Why.
    """

    line: int
    source_system: str
    source_code: str
    source_display: str
    target_system: str
    target_code: str
    decision: str
    relationship: str
    reviewer: str
    date: str
    comment: str

    @property
    def source(self) -> tuple[str, str]:
        """System and code of the source."""
        return self.source_system, self.source_code

    @property
    def target(self) -> tuple[str, str]:
        """System and code of the target."""
        return self.target_system, self.target_code


def format_review(rows: Iterable[Mapping[str, object]], suffix: str) -> str:
    """Return a review file's text.

    Args:
        rows: Values by column; what is missing or ``None`` is left empty.
        suffix: ``.csv`` or ``.yaml``.
    """
    texts = [
        {name: "" if row.get(name) is None else str(row[name]) for name in REVIEW_COLUMNS} for row in rows
    ]
    if suffix == ".yaml":
        return str(yaml.safe_dump(texts, sort_keys=False, allow_unicode=True, width=1000))
    file = io.StringIO()
    writer = csv.DictWriter(file, REVIEW_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _shield(text) for name, text in row.items()} for row in texts)
    return file.getvalue()


def read_review(path: Path) -> tuple[ReviewRow, ...]:
    """Read a review file, CSV (with comma, semicolon or tab) or YAML.

    Raises:
        InputError: It cannot be read, or lacks a column; names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            f"The file cannot be read: {error.strerror}.",
            place=str(path),
            remedy="Name a file that is there.",
        ) from None
    except UnicodeDecodeError:
        raise InputError("Not UTF-8 text.", place=str(path), remedy="Save it as 'CSV UTF-8'.") from None
    rows = _read_yaml(text, path) if path.suffix in {".yaml", ".yml"} else _read_csv(text, path)
    return tuple(_read_row(line, values) for line, values in rows)


def _read_csv(text: str, path: Path) -> list[tuple[int, dict[str, str]]]:
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        _check_columns(columns, path, 1)
        line = reader.line_num + 1
        for cells in reader:
            if len(cells) > len(columns):
                raise InputError(
                    "The row has more cells than the header.",
                    place=f"{path}:{line}",
                    remedy="Put cells with the delimiter in them into quotes.",
                )
            values = dict(zip(columns, map(_unshield, cells), strict=False))
            if any(values.values()):
                rows.append((line, values))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"Not a CSV file: {error}.", place=f"{path}:{reader.line_num}", remedy="Mend the quotes."
        ) from None
    return rows


def _read_yaml(text: str, path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(
            f"Not valid YAML: {error.problem}.", place=f"{path}:{line}", remedy="Mend the syntax."
        ) from None
    except yaml.YAMLError:
        raise InputError("Not valid YAML.", place=str(path), remedy="Mend the syntax.") from None
    rows: list[tuple[int, dict[str, str]]] = []
    for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        line = item.start_mark.line + 1 if item is not None else 1
        pairs = item.value if isinstance(item, yaml.MappingNode) else None
        if pairs is None or not all(isinstance(part, yaml.ScalarNode) for pair in pairs for part in pair):
            raise InputError(
                "Not a row of a review.",
                place=f"{path}:{line}",
                remedy=f"Write a list of mappings of {', '.join(REVIEW_COLUMNS)}.",
            )
        values = {key.value: value.value.strip() for key, value in pairs}
        _check_columns(list(values), path, line)
        rows.append((line, values))
    return rows


def _check_columns(columns: Sequence[str], path: Path, line: int) -> None:
    if missing := [name for name in REVIEW_COLUMNS if name in _NEEDED and name not in columns]:
        raise InputError(
            f"The file has no column '{missing[0]}'.",
            place=f"{path}:{line}",
            remedy="Use a file that 'cohortflow terminology suggest' wrote, and keep its columns.",
        )


def _read_row(line: int, values: Mapping[str, str]) -> ReviewRow:
    source, target = (canonical_system(values.get(name, "")) for name in ("source_system", "target_system"))
    return ReviewRow(
        line=line,
        source_system=source,
        source_code=canonical_code(source, values.get("source_code", "")),
        source_display=values.get("source_display", ""),
        target_system=target,
        target_code=canonical_code(target, values.get("target_code", "")),
        decision=values.get("decision", "").lower(),
        relationship=values.get("relationship", "").lower(),
        reviewer=values.get("reviewer", ""),
        date=values.get("date", ""),
        comment=values.get("comment", ""),
    )


def _shield(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) else text


def _unshield(cell: str) -> str:
    text = cell.strip()
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
