"""From published datasets to one row per subject, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from cohortflow.redaction.risk.columns import SubjectColumn

__all__ = ["SUBJECT", "apply_changes", "find_changes", "gather_subjects"]

SUBJECT: Final = "cohortflow:subject"
"""Column with the subject's pseudonym; no view can give a column this name."""

_SEPARATOR: Final = "\x1f"  # ASCII unit separator: in no code


def gather_subjects(
    datasets: Mapping[str, pl.LazyFrame], subjects: Mapping[str, str], columns: Sequence[SubjectColumn]
) -> pl.LazyFrame:
    """Return one row per subject of any of the datasets: ``SUBJECT`` and the columns by name, sorted.

    Rows that name no subject are left out. A subject without a row in a dataset has nulls there, or none
    as the number of rows.

    Args:
        datasets: Published tables by name.
        subjects: Per table, the column that names the subject.
        columns: What to gather.
    """
    named = {
        name: frame.filter(pl.col(subjects[name]).is_not_null()).rename({subjects[name]: SUBJECT})
        for name, frame in datasets.items()
    }
    everybody = pl.concat([frame.select(SUBJECT) for frame in named.values()]).unique().sort(SUBJECT)
    for name, frame in named.items():
        wanted = [column for column in columns if column.dataset == name]
        if wanted:
            gathered = frame.group_by(SUBJECT).agg(_gather(column) for column in wanted)
            everybody = everybody.join(gathered, on=SUBJECT, how="left", maintain_order="left")
    counts = [column.name for column in columns if not column.column]
    return everybody.with_columns(pl.col(counts).fill_null(0)).select(
        SUBJECT, *(column.name for column in columns)
    )


def find_changes(before: pl.DataFrame, after: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return one row per subject who is left: ``SUBJECT`` and whether each column was set to null.

    Args:
        before: The table of subjects as gathered.
        after: The same after suppression: some rows and some values are gone.
        columns: Quasi-identifiers.
    """
    both = after.select(SUBJECT, *columns).join(before, on=SUBJECT, suffix=":before", maintain_order="left")
    return both.select(
        SUBJECT,
        *((pl.col(name).is_null() & pl.col(f"{name}:before").is_not_null()).alias(name) for name in columns),
    )


def apply_changes(
    frame: pl.LazyFrame, subject: str, changes: pl.DataFrame, columns: Mapping[str, str]
) -> pl.LazyFrame:
    """Take out of a published dataset what was taken out of the table of subjects.

    Rows of subjects who are not left go, and suppressed columns become null in the others. The order of
    rows and columns is kept, and so are rows that name no subject, which belong to nobody.

    Args:
        frame: The dataset.
        subject: Its column that names the subject.
        changes: What ``find_changes`` gives.
        columns: The dataset's columns by their name in ``changes``.
    """
    marks = changes.lazy().select(
        pl.col(SUBJECT).alias(subject),
        pl.lit(value=True).alias("cohortflow:left"),
        *(pl.col(name).alias(f"cohortflow:{name}") for name in columns),
    )
    names = frame.collect_schema().names()
    joined = frame.join(marks, on=subject, how="left", maintain_order="left").filter(
        pl.col("cohortflow:left").is_not_null() | pl.col(subject).is_null()
    )
    kept = [
        pl.when(pl.col(f"cohortflow:{name}").fill_null(value=False).not_()).then(pl.col(column)).alias(column)
        for name, column in columns.items()
    ]
    return joined.with_columns(kept).select(names)


def _gather(column: SubjectColumn) -> pl.Expr:
    if not column.column:
        return pl.len().cast(pl.Int64).alias(column.name)
    value = pl.col(column.column)
    match column.precision:
        case "year":
            value = value.dt.year()
        case "month":
            value = value.dt.strftime("%Y-%m")
        case "exact":
            pass
    if not column.many:
        return value.first().alias(column.name)
    values = value.drop_nulls().cast(pl.String).unique().sort()
    return pl.when(values.len() > 0).then(values.str.join(_SEPARATOR)).alias(column.name)
