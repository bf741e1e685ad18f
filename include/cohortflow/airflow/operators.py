"""One operator per step of a study; each compiles the study with the run's parameters and runs a kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from cohortflow.airflow.deployment import AirflowDeployment
from cohortflow.airflow.run import open_run
from cohortflow.airflow.triggers import BulkExportTrigger
from cohortflow.errors import (
    AuthorizationError,
    CohortflowError,
    ConfigurationError,
    ExportExpiredError,
    ExportRejectedError,
    InputError,
    QualityError,
    StaleWriteError,
)
from cohortflow.workflow.environment import load_environment, name_environment
from cohortflow.workflow.plan import Step, StepKind
from cohortflow.workflow.runner import guard, record_step, run_step
from cohortflow.workflow.study import Project

if TYPE_CHECKING:
    from airflow.sdk import Context

    from cohortflow.workflow.run import Run

__all__ = [
    "CleanWorkOperator",
    "ExtractFhirBulkOperator",
    "LandDatasetOperator",
    "MapTerminologyOperator",
    "RedactDatasetOperator",
    "SelectCohortOperator",
    "StudyOperator",
    "TransformViewsOperator",
    "ValidateDatasetOperator",
    "WriteReleaseOperator",
]

_PERMANENT = (
    AuthorizationError,
    ConfigurationError,
    ExportRejectedError,
    InputError,
    QualityError,
    StaleWriteError,
)
"""Errors that another try does not mend."""


class StudyOperator(BaseOperator):
    """A step of a study.

    Args:
        study: Name of the study.
        view: Dataset that the step works on; empty for steps over all of them.
    """

    kind: ClassVar[StepKind]
    ui_fgcolor = "#1c2833"

    def __init__(self, *, study: str, view: str = "", **kwargs: Any) -> None:  # noqa: ANN401  # BaseOperator's
        super().__init__(**kwargs)
        self.study = study
        self.view = view

    @property
    def step(self) -> Step:
        """The plan's step that this operator carries out."""
        return Step(self.kind, self.view)

    def execute(self, context: Context) -> dict[str, Any]:
        """Carry out the step; returns references and counts, never rows."""
        return self._carry_out(context, lambda run: run_step(run, self.step).to_dict())

    def _carry_out(self, context: Context, work: Callable[[Run], dict[str, Any]]) -> dict[str, Any]:
        """Open the run and do the work; permanent failures are not retried."""
        failure: CohortflowError
        try:
            return work(guard(self.step.id, lambda: open_run(self.study, context)))
        except CohortflowError as error:
            failure = error
        if isinstance(failure, _PERMANENT):
            raise AirflowFailException(str(failure))
        raise failure


class ExtractFhirBulkOperator(StudyOperator):
    """Exports from a FHIR server into the raw zone.

    The wait for the server is deferred to the triggerer and holds no worker slot. A killed worker's
    successor goes on with the same export: state and finished files are in the raw zone.
    """

    kind = StepKind.EXTRACT
    ui_color = "#d6eaf8"

    def execute(self, context: Context) -> dict[str, Any]:
        """Start the export, or go on with it."""
        return self._carry_out(context, lambda run: self._advance(run, context, restarts=0))

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Go on after the trigger: download, wait on, or start an expired export anew."""
        restarts = int(event["restarts"])
        return self._carry_out(context, lambda run: self._advance(run, context, restarts=restarts))

    def _advance(self, run: Run, context: Context, *, restarts: int) -> dict[str, Any]:
        from cohortflow.workflow.steps.extract import advance_extraction, describe_extraction

        try:
            waiting = guard(self.step.id, lambda: asyncio.run(advance_extraction(run)))
        except ExportExpiredError:
            if restarts:
                raise
            self.log.warning("The export has expired on the server; starting it anew.")
            return self._advance(run, context, restarts=restarts + 1)
        if waiting is not None:
            self.log.info("The server prepares the export; waiting without a worker slot.")
            self.defer(
                trigger=BulkExportTrigger(
                    conn_id=run.plan.spec.source.connection,
                    raw_uri=run.raw.uri,
                    prefix=waiting.prefix,
                    restarts=restarts,
                ),
                method_name="resume",
            )
        since = context["ti"].start_date
        return record_step(run, self.step, lambda: describe_extraction(run), since=since).to_dict()


class TransformViewsOperator(StudyOperator):
    """Computes the study's views from the raw files."""

    kind = StepKind.TRANSFORM
    ui_color = "#d5f5e3"


class SelectCohortOperator(StudyOperator):
    """Selects the cohort's subjects and counts the attrition."""

    kind = StepKind.SELECT
    ui_color = "#d5f5e3"


class MapTerminologyOperator(StudyOperator):
    """Maps a dataset's codes."""

    kind = StepKind.MAP
    ui_color = "#fcf3cf"


class RedactDatasetOperator(StudyOperator):
    """De-identifies a dataset as the environment demands."""

    kind = StepKind.REDACT
    ui_color = "#f5b7b1"


class ValidateDatasetOperator(StudyOperator):
    """Checks a dataset's expectations."""

    kind = StepKind.VALIDATE
    ui_color = "#e8daef"


class LandDatasetOperator(StudyOperator):
    """Publishes a dataset by one atomic commit.

    The asset event says which interval, version and variant landed, so that a DAG scheduled on the
    asset can pass over trial runs.
    """

    kind = StepKind.LAND
    ui_color = "#aed6f1"

    def execute(self, context: Context) -> dict[str, Any]:
        """Land the dataset and describe it in the asset event."""

        def land(run: Run) -> dict[str, Any]:
            result = run_step(run, self.step)
            for asset in self.outlets:
                context["outlet_events"][asset].extra = {
                    "variant": run.plan.variant,
                    "interval": run.interval.key,
                    **result.datasets[0].to_dict(),
                }
            return result.to_dict()

        return self._carry_out(context, land)


class WriteReleaseOperator(StudyOperator):
    """Writes the release document."""

    kind = StepKind.RELEASE
    ui_color = "#aed6f1"


class CleanWorkOperator(StudyOperator):
    """Removes the run's intermediates, also where the study does not compile with the run's parameters."""

    kind = StepKind.CLEAN
    ui_color = "#eaecee"

    def execute(self, context: Context) -> dict[str, Any]:
        """Clean up after the run."""

        def clean() -> dict[str, Any]:
            from cohortflow.workflow.steps.clean import clean_run

            environment = load_environment(name_environment(), Project.default().catalog)
            return clean_run(environment, context["run_id"], AirflowDeployment()).to_dict()

        result = guard(self.step.id, clean)
        self.log.info("%s done: %s", self.step.id, result)
        return result
