"""Carries out steps: one at a time for a scheduler, or a whole plan."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from cohortflow.errors import CohortflowError
from cohortflow.workflow.audit import note_failure, note_result
from cohortflow.workflow.plan import Step, StepKind
from cohortflow.workflow.run import Run, StepResult

__all__ = ["StepFailedError", "guard", "record_step", "run_plan", "run_step"]

T = TypeVar("T")

_log = logging.getLogger(__name__)


class StepFailedError(CohortflowError):
    """A step failed in a way that nobody foresaw; its message is withheld, as it may quote data."""


def run_step(run: Run, step: Step) -> StepResult:
    """Carry out a step and keep its result for the release document.

    Raises:
        CohortflowError: It failed; the text holds no patient data.
    """
    from cohortflow.workflow.steps import STEPS

    return record_step(run, step, lambda: STEPS[step.kind](run, step.view))


def record_step(
    run: Run, step: Step, work: Callable[[], StepResult], *, since: datetime | None = None
) -> StepResult:
    """Carry out ``work`` as a step: time it, keep its result, withhold what errors quote.

    Args:
        run: The run.
        step: The step.
        work: What to do.
        since: When the step began, where that was before ``work``.
    """
    from cohortflow.lake import storage_errors

    def work_in_lake() -> StepResult:
        with storage_errors(run.work.uri):
            return work()

    start = since or datetime.now(UTC)
    result = guard(step.id, work_in_lake)
    seconds = (datetime.now(UTC) - start).total_seconds()
    if step.kind is not StepKind.CLEAN:
        guard(step.id, lambda: run.save_result(step.id, result, seconds))
    guard(step.id, lambda: note_result(run, step, result))
    rows = ", ".join(f"{dataset.name} {dataset.rows:,} rows" for dataset in result.datasets)
    _log.info("%s done in %.1f s%s", step.id, seconds, f": {rows}" if rows else "")
    return result


def guard(name: str, work: Callable[[], T]) -> T:
    """Carry out ``work``; turn errors that may quote data into ones that only name the place.

    Libraries quote values: Polars the cell that it cannot cast, a parser the line that it cannot read.
    """
    failure: CohortflowError
    try:
        return work()
    except CohortflowError as error:
        failure = error
    except BaseException as error:
        # A panic in Polars' Rust code is no Exception, but quotes data like one.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        frames = traceback.extract_tb(error.__traceback__)[-4:]
        place = " < ".join(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in reversed(frames))
        kind = f"{type(error).__module__}.{type(error).__name__}"
        failure = StepFailedError(
            f"{name} failed with {kind}; its message is withheld, since it may quote patient data.",
            place=place,
            remedy="Run the step on synthetic data to see the message, or report the place given here.",
        )
    # Raised out here and without its cause: a chained error would show the withheld message.
    failure.__cause__ = failure.__context__ = None
    raise failure


def run_plan(
    run: Run, *, on_step: Callable[[Step, StepResult | None], None] | None = None
) -> dict[str, StepResult]:
    """Carry out all steps of a plan in order; intermediates are removed whatever happens.

    Args:
        run: The run.
        on_step: Told before (``None``) and after each step.

    Returns:
        The steps' results by id.

    Raises:
        CohortflowError: A step failed; nothing after it was done but the removal of intermediates.
    """
    results: dict[str, StepResult] = {}
    clean = next(step for step in run.plan.steps if step.kind is StepKind.CLEAN)
    notify = on_step or (lambda _step, _result: None)
    step = clean
    try:
        for step in run.plan.steps:
            if step is not clean:
                notify(step, None)
                results[step.id] = run_step(run, step)
                notify(step, results[step.id])
    except BaseException as failure:
        if isinstance(failure, CohortflowError):
            note_failure(run, step, failure)
        try:
            run_step(run, clean)
        except CohortflowError as error:
            # The first failure is the one to report, and once is enough.
            if str(error) != str(failure):
                _log.warning("intermediates were not removed: %s", error)
        raise
    results[clean.id] = run_step(run, clean)
    return results
