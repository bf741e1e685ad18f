"""From reasons to leave patients out, in their order, to who is left out or masked, and how many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "EXCLUDED",
    "MASKED",
    "STEP_SCHEMA",
    "SUBJECT_SCHEMA",
    "Reason",
    "clear_rows",
    "count_steps",
    "gather_subjects",
]

EXCLUDED: Final = "excluded"
MASKED: Final = "masked"

SUBJECT_SCHEMA: Final = pl.Schema(
    {"patient_id": pl.String(), EXCLUDED: pl.Boolean(), MASKED: pl.Boolean(), "reason": pl.Int32()}
)
"""Schema of a run's patients: ``reason`` is the position of the first one that leaves a patient out."""

STEP_SCHEMA: Final = pl.Schema(
    {
        "step": pl.Int64(),
        "criterion": pl.String(),
        "n_before": pl.Int64(),
        "n_excluded": pl.Int64(),
        "n_after": pl.Int64(),
        "n_unit_mismatch": pl.Int64(),
        "n_unknown": pl.Int64(),
    }
)
"""Schema of the steps, the same as that of a cohort's attrition, which they come before."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason to leave patients out, or to mask their rows.

    Attributes:
        criterion: What readers of the counts are told.
        patients: ``patient_id: str``: whom it holds for, in any order, possibly more than once.
        masks: Whether their rows stay, without what they say.
        rule: What tells the rule from others, in whatever run; empty where it depends on the run.
    """

    criterion: str
    patients: pl.LazyFrame = field(repr=False)
    masks: bool = False
    rule: str = ""


def gather_subjects(known: pl.LazyFrame, reasons: Sequence[Reason]) -> pl.LazyFrame:
    """Return what becomes of every patient.

    Args:
        known: ``patient_id: str`` of all patients, possibly more than once.
        reasons: In the order in which they count.

    Returns:
        Rows with ``SUBJECT_SCHEMA``: everybody who is known or whom a reason names, once.
    """
    reasons_of = [
        reason.patients.select("patient_id", pl.lit(position, dtype=pl.Int32).alias("reason"))
        for position, reason in enumerate(reasons)
    ]
    everybody = known.select("patient_id", pl.lit(None, dtype=pl.Int32).alias("reason"))
    masking = [position for position, reason in enumerate(reasons) if reason.masks]
    masks = pl.col("reason").is_in(masking).fill_null(value=False)
    leaves_out = pl.col("reason").is_not_null() & ~masks
    return (
        pl.concat([everybody, *reasons_of])
        .filter(pl.col("patient_id").is_not_null())
        .group_by("patient_id")
        .agg(
            leaves_out.any().alias(EXCLUDED),
            masks.any().alias(MASKED),
            pl.col("reason").filter(leaves_out).min(),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in SUBJECT_SCHEMA.items())
    )


def count_steps(subjects: pl.LazyFrame, known: pl.LazyFrame, reasons: Sequence[Reason]) -> pl.DataFrame:
    """Count by reason how many of the known patients are left out; each counts for the first one alone.

    Args:
        subjects: As ``gather_subjects`` gives them.
        known: ``patient_id: str`` of all patients.
        reasons: Those that leave patients out get a step.

    Returns:
        Rows with ``STEP_SCHEMA``, exact, so not for publication.
    """
    counted = (
        subjects.join(known.select("patient_id").unique(), on="patient_id", how="semi")
        .group_by("reason")
        .len()
        .collect(engine="streaming")
    )
    counts = dict(counted.select("reason", "len").iter_rows())
    left = sum(counts.values())
    rows: list[tuple[int, str, int, int, int, int, int]] = []
    for position, reason in enumerate(reasons):
        if reason.masks:
            continue
        gone = counts.get(position, 0)
        rows.append((len(rows) + 1, reason.criterion, left, gone, left - gone, 0, 0))
        left -= gone
    return pl.DataFrame(rows, schema=STEP_SCHEMA, orient="row")


def clear_rows(
    frame: pl.LazyFrame,
    subjects: pl.LazyFrame,
    subject: str,
    *,
    maskable: Iterable[str] = (),
    known_only: bool = False,
    others: Iterable[str] = (),
) -> pl.LazyFrame:
    """Leave out the rows of excluded patients, and mask those of masked ones.

    Rows without a patient go as well, since nobody can say whose they are. References in other columns, to
    patients whose rows go, become null; in lists they are left out.

    Args:
        frame: A view's rows, in memory-bounded form.
        subjects: Rows with ``SUBJECT_SCHEMA``.
        subject: Column with the patient's id.
        maskable: Columns that masking empties.
        known_only: Whether rows of patients who are not among ``subjects`` go, too: where people are left out
            for what is not known of them.
        others: Further columns with ids of patients, or with lists of them.
    """
    from cohortflow.redaction.exclusions.masking import mask_rows

    excluded = subjects.filter(EXCLUDED).select(subject_id="patient_id")
    cleared = subjects.filter(~pl.col(EXCLUDED)).select(subject_id="patient_id")
    if known_only:
        frame = frame.join(cleared, left_on=subject, right_on="subject_id", how="semi", maintain_order="left")
    else:
        frame = frame.filter(pl.col(subject).is_not_null()).join(
            excluded, left_on=subject, right_on="subject_id", how="anti", maintain_order="left"
        )
    for name in others:
        listed = cleared if known_only else excluded
        frame = _clear_references(frame, name, listed, keep=known_only)
    names = tuple(maskable)
    if not names:
        return frame
    masked = subjects.filter(MASKED).select("patient_id", pl.lit(value=True).alias("@masked"))
    frame = frame.join(masked, left_on=subject, right_on="patient_id", how="left", maintain_order="left")
    return mask_rows(frame, names, pl.col("@masked")).drop("@masked")


def _clear_references(frame: pl.LazyFrame, name: str, listed: pl.LazyFrame, *, keep: bool) -> pl.LazyFrame:
    """Set ids in a column to null where they are listed, or where they are not; take them out of lists."""
    flag, row = f"@{name}", "@row"
    marked = listed.with_columns(pl.lit(value=True).alias(flag))
    known = pl.col(flag).is_not_null()
    wanted = known if keep else ~known
    if frame.collect_schema()[name] != pl.List(pl.String):
        frame = frame.join(marked, left_on=name, right_on="subject_id", how="left", maintain_order="left")
        return frame.with_columns(pl.when(wanted).then(pl.col(name))).drop(flag)
    frame = frame.with_row_index(row)
    ids = frame.select(row, name).explode(name, empty_as_null=True).drop_nulls(name)
    ids = ids.join(marked, left_on=name, right_on="subject_id", how="left").filter(wanted)
    left = ids.group_by(row).agg(pl.col(name).alias(flag))
    frame = frame.join(left, on=row, how="left", maintain_order="left")
    return frame.with_columns(pl.col(flag).fill_null(pl.lit([], dtype=pl.List(pl.String))).alias(name)).drop(
        flag, row
    )
