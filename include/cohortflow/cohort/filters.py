"""Frames cut to a cohort's patients and to the time before a date."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from cohortflow.errors import StudyError

__all__ = ["before", "restrict", "time_expr", "utc_literal"]


def restrict(frame: pl.LazyFrame, subjects: pl.LazyFrame, subject_column: str = "patient_id") -> pl.LazyFrame:
    """Keep the rows of a cohort's patients, in their order.

    Args:
        frame: A view.
        subjects: The cohort, with the column ``patient_id``.
        subject_column: Patient column of ``frame``.
    """
    return frame.join(
        subjects.select("patient_id"),
        left_on=subject_column,
        right_on="patient_id",
        how="semi",
        maintain_order="left",
    )


def before(frame: pl.LazyFrame, time_column: str, as_of: datetime) -> pl.LazyFrame:
    """Keep the rows dated before ``as_of``; undated rows go, because nothing shows that they came before.

    Args:
        frame: A view.
        time_column: Column of type DATE, which stands for its first moment in UTC, or TIMESTAMP.
        as_of: End of the data interval, with time zone.

    Raises:
        StudyError: The column is missing or holds no times, or ``as_of`` has no time zone.
    """
    return frame.filter(time_expr(frame, time_column) < utc_literal(as_of))


def time_expr(frame: pl.LazyFrame, column: str) -> pl.Expr:
    """Return a DATE or TIMESTAMP column as microseconds in UTC.

    Raises:
        StudyError: The column is missing or holds no times.
    """
    dtype = frame.collect_schema().get(column)
    if dtype is None:
        raise StudyError(
            f"There is no column '{column}' to date the rows by.",
            remedy="Give the date column in the study.",
        )
    if isinstance(dtype, pl.Date) or (isinstance(dtype, pl.Datetime) and dtype.time_zone is None):
        return pl.col(column).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if isinstance(dtype, pl.Datetime):
        return pl.col(column).dt.convert_time_zone("UTC").cast(pl.Datetime("us", "UTC"))
    raise StudyError(
        f"The column '{column}' holds {dtype}, not DATE or TIMESTAMP.",
        remedy="Tag it 'ansi/type' DATE or TIMESTAMP in its view.",
    )


def utc_literal(as_of: datetime) -> pl.Expr:
    """Return ``as_of`` as a literal in UTC.

    Raises:
        StudyError: It has no time zone.
    """
    if as_of.tzinfo is None:
        raise StudyError("'as_of' has no time zone.", remedy="Give an aware datetime.")
    return pl.lit(as_of.astimezone(UTC)).cast(pl.Datetime("us", "UTC"))
