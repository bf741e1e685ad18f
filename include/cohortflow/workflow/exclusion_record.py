"""Who was left out as of the newest export, for repeats that work on an older one.

A run that is repeated works on the export that its interval had. A Consent of later days is not in it, so
that a patient who has opted out meanwhile would come back. Therefore every run leaves in the raw zone whom
the newest export leaves out, and by which rule; a run on an older export leaves them out as well.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import polars as pl

from cohortflow.workflow.export_plan import plan_extraction

if TYPE_CHECKING:
    from datetime import datetime

    from cohortflow.workflow.run import Run

__all__ = ["find_excluded_later", "record_excluded"]

_FOLDER = "_exclusions"
_SCHEMA = pl.Schema({"patient_id": pl.String(), "taken": pl.Datetime("us", "UTC")})


def record_excluded(run: Run, rule: str, patients: pl.DataFrame, taken: datetime) -> None:
    """Keep who is left out as of an export, unless a newer one has said so.

    Args:
        run: The run.
        rule: Which rule leaves them out: others may hold for another study, or tomorrow.
        patients: ``patient_id: str``.
        taken: The export's transaction time.
    """
    known = _load(run, rule)
    if known is not None and (known["taken"] > taken).any():
        return
    # A row without a patient says when, where nobody is left out.
    rows = pl.concat([pl.DataFrame({"patient_id": [None]}, schema={"patient_id": pl.String}), patients])
    buffer = io.BytesIO()
    rows.with_columns(pl.lit(taken).cast(_SCHEMA["taken"]).alias("taken")).write_parquet(buffer)
    run.raw.write(_path(run, rule), buffer.getvalue())


def find_excluded_later(run: Run, rule: str, taken: datetime) -> pl.DataFrame:
    """Return who is left out as of an export that is newer than the run's own: ``patient_id: str``, sorted.

    Args:
        run: The run.
        rule: As it was recorded.
        taken: Transaction time of the run's own export.
    """
    known = _load(run, rule)
    if known is None:
        return pl.DataFrame(schema={"patient_id": pl.String})
    return known.filter(pl.col("taken") > taken).select("patient_id").drop_nulls().sort("patient_id")


def _load(run: Run, rule: str) -> pl.DataFrame | None:
    content = run.raw.read(_path(run, rule))
    return None if content is None else pl.read_parquet(io.BytesIO(content), schema=_SCHEMA)


def _path(run: Run, rule: str) -> str:
    """Return where it is kept: by source and request, since others hold other patients, and by rule."""
    digest = hashlib.sha256(f"{plan_extraction(run).chain}\n{rule}".encode()).hexdigest()[:16]
    return f"{run.plan.spec.source.connection}/{_FOLDER}/{digest}.parquet"
