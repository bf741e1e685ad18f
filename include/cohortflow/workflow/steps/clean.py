"""Clean: remove a run's intermediates, whether it succeeded or not."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cohortflow.workflow.run import Run, StepResult, name_work_folder, open_zone

if TYPE_CHECKING:
    from cohortflow.model import Deployment
    from cohortflow.workflow.environment import Environment

__all__ = ["clean_run", "clean_work"]

_ABANDONED = timedelta(days=7)
"""A killed run that nobody repeats leaves intermediates behind; after this time another run removes them."""


def clean_work(run: Run, _view: str = "") -> StepResult:
    """Delete everything that a run left in the work zone; see ``clean_run``."""
    return clean_run(run.plan.environment, run.run_id, run.deployment)


def clean_run(environment: Environment, run_id: str, deployment: Deployment) -> StepResult:
    """Delete what a run left in the work zone, and what killed runs left there long ago.

    It needs no plan: patient data are removed also where the run's study no longer compiles.
    """
    zone = open_zone(environment.zones.work, deployment, private=True)
    folder = name_work_folder(run_id)
    prefixes = {path[: path.index(folder) + len(folder)] for path in zone.list() if f"/{folder}/" in path}
    removed = sum(zone.delete(prefix) for prefix in sorted(prefixes))
    abandoned = zone.delete("", older_than=_ABANDONED)
    return StepResult(facts={"removed_files": removed, "abandoned_files": abandoned})
