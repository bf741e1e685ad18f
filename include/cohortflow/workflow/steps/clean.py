"""Clean: remove the run's intermediates, whether it succeeded or not."""

from __future__ import annotations

from cohortflow.workflow.run import Run, StepResult

__all__ = ["clean_work"]


def clean_work(run: Run, _view: str = "") -> StepResult:
    """Delete everything that this run left in the work zone."""
    return StepResult(facts={"removed_files": run.work.delete("")})
