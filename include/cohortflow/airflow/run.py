"""From Airflow's context to a run of a plan."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cohortflow.airflow.deployment import AirflowDeployment
from cohortflow.model import DataInterval
from cohortflow.workflow.environment import name_environment
from cohortflow.workflow.plan import compile_plan
from cohortflow.workflow.run import Run
from cohortflow.workflow.study import Project

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["FRESH_EXPORT", "LogProgress", "open_run", "resolve_interval"]

FRESH_EXPORT = "fresh_export"
"""Run parameter: export again even where the interval's export is complete."""

_DAY = timedelta(days=1)
_SECONDS_BETWEEN_LINES = 5.0

_log = logging.getLogger(__name__)


class LogProgress:
    """Writes counts to the task's log: the first, the last, and one every few seconds between."""

    def __init__(self) -> None:
        self._last = 0.0

    def update(self, task: str, done: int, total: int | None = None, unit: str = "") -> None:
        """Log the count unless a line was written just now."""
        now = time.monotonic()
        if done not in (0, total) and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        of = f" of {total:,}" if total is not None else ""
        _log.info("%s: %s%s %s", task, f"{done:,}", of, unit)


def resolve_interval(start: datetime | None, end: datetime | None, run_after: datetime) -> DataInterval:
    """Return the data interval of a run.

    Intervals of a day or longer are cut to whole UTC days, so that a nightly run at 02:00 covers the
    day before. A run by hand, which may have no interval, covers the day before it.
    """
    if start is None or end is None or end - start <= timedelta(0):
        return DataInterval.of_day((run_after.astimezone(UTC) - _DAY).date())
    if end - start < _DAY:
        return DataInterval(start, end)
    first, last = (
        moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) for moment in (start, end)
    )
    return DataInterval(first, last)


def open_run(study: str, context: Context) -> Run:
    """Compile a study with the run's parameters.

    Raises:
        StudyError: The study or the run's parameters are wrong.
    """
    project = Project.default()
    loaded = project.load_study(study)
    parameters: dict[str, Any] = dict(context["params"])
    fresh = bool(parameters.pop(FRESH_EXPORT, False))
    # Unknown names are passed on to be refused: a misspelt one would otherwise run the study as it is.
    plan = compile_plan(loaded, name_environment(), project, parameters)
    dag_run = context["dag_run"]
    return Run(
        plan=plan,
        interval=resolve_interval(dag_run.data_interval_start, dag_run.data_interval_end, dag_run.run_after),
        run_id=context["run_id"],
        deployment=AirflowDeployment(),
        catalog=project.catalog,
        progress=LogProgress(),
        fresh_export=fresh,
        actor=dag_run.triggering_user_name or "scheduler",
    )
