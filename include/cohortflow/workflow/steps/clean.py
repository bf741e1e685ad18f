"""Clean: remove the run's intermediates, whether it succeeded or not."""

from __future__ import annotations

from datetime import timedelta

from cohortflow.workflow.run import Run, StepResult

__all__ = ["clean_work"]

_ABANDONED = timedelta(days=7)
"""A killed run that nobody repeats leaves intermediates behind; after this time a later run removes them."""


def clean_work(run: Run, _view: str = "") -> StepResult:
    """Delete everything that this run left in the work zone, and what killed runs left long ago."""
    removed = run.work.delete("")
    abandoned = run.study_work.delete("", older_than=_ABANDONED)
    return StepResult(facts={"removed_files": removed, "abandoned_files": abandoned})
