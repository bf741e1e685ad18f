"""One operator per step of a study; each compiles the study with the run's parameters and runs a kernel."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from cohortflow.airflow.database import open_hook_engine
from cohortflow.airflow.deployment import AirflowDeployment
from cohortflow.airflow.run import open_run
from cohortflow.airflow.triggers import BulkExportTrigger, ExportTurnTrigger
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
from cohortflow.workflow.audit import note_failure
from cohortflow.workflow.environment import load_environment, name_environment
from cohortflow.workflow.plan import Step, StepKind
from cohortflow.workflow.runner import guard, record_step, run_step
from cohortflow.workflow.study import Project

if TYPE_CHECKING:
    from airflow.sdk import Context

    from cohortflow.workflow.export_turn import Waiting
    from cohortflow.workflow.run import Run

__all__ = [
    "AssessRiskOperator",
    "CleanWorkOperator",
    "ExtractFhirBulkOperator",
    "ExtractSqlOperator",
    "LandDatasetOperator",
    "MapTerminologyOperator",
    "RedactDatasetOperator",
    "ScanForLeaksOperator",
    "SelectCohortOperator",
    "StudyOperator",
    "TransformViewsOperator",
    "ValidateDatasetOperator",
    "WithdrawDeletedOperator",
    "WriteReleaseOperator",
]

_CANCEL_SECONDS = 20.0
"""Airflow gives a task a minute to stop."""

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
        run: Run | None = None
        try:
            run = guard(self.step.id, lambda: open_run(self.study, context))
            return work(run)
        except CohortflowError as error:
            failure = error
        if run is not None:
            note_failure(run, self.step, failure)
        if isinstance(failure, _PERMANENT):
            raise AirflowFailException(str(failure))
        raise failure


class ExtractFhirBulkOperator(StudyOperator):
    """Exports from a FHIR server into the raw zone.

    Waits hold no worker slot: for the server, for another run that exports the same group, and for the
    end of the time in which the server refuses another export. A killed worker's successor goes on with
    the same export: state and finished files are in the raw zone.
    """

    kind = StepKind.EXTRACT
    ui_color = "#d6eaf8"
    _run: Run | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Start the export, or go on with it."""
        return self._carry_out(context, lambda run: self._advance(run, context, {}))

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Go on after the trigger: download, wait on, or start an expired export anew."""
        return self._carry_out(context, lambda run: self._advance(run, context, event))

    def on_kill(self) -> None:
        """Cancel the export where the study says so; see ``SourceSpec.cancel_on_kill``."""
        run = self._run
        if run is None or run.plan.spec.source.cancel_on_kill != "always":
            return
        from cohortflow.workflow.steps.extract import cancel_extraction

        def cancel() -> None:
            guard(self.step.id, lambda: asyncio.run(cancel_extraction(run)))

        # A signal has interrupted the event loop of this thread.
        thread = threading.Thread(target=cancel, daemon=True)
        thread.start()
        thread.join(_CANCEL_SECONDS)

    def _advance(self, run: Run, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Take a turn; ``event``: how often the export was started anew, and since when it is refused."""
        from cohortflow.workflow.steps.extract import advance_extraction, describe_extraction

        self._run = run
        since = event.get("waiting_since")
        waiting_since = datetime.fromisoformat(since) if since else None
        try:
            waiting = guard(
                self.step.id, lambda: asyncio.run(advance_extraction(run, waiting_since=waiting_since))
            )
        except ExportExpiredError:
            if event.get("restarts"):
                raise
            self.log.warning("The export has expired on the server; starting it anew.")
            return self._advance(run, context, event | {"restarts": 1})
        if waiting is not None:
            self._wait(run, waiting, event)
        start = context["ti"].start_date
        return record_step(run, self.step, lambda: describe_extraction(run), since=start).to_dict()

    def _wait(self, run: Run, waiting: Waiting, event: dict[str, Any]) -> None:
        """Hand the wait over to the triggerer; does not return."""
        from cohortflow.registry import ExportRecord

        self.log.info("Waiting without a worker slot: %s (until about %s)", waiting.note, waiting.until)
        trigger: BulkExportTrigger | ExportTurnTrigger
        if waiting.reason == "server":
            trigger = BulkExportTrigger(
                conn_id=run.plan.spec.source.connection,
                raw_uri=run.raw.uri,
                prefix=waiting.prefix,
                subject=waiting.subject,
                token=waiting.token,
                cancel=run.plan.spec.source.cancel_on_kill != "never",
                event={name: event[name] for name in event if name == "restarts"},
            )
        else:
            if waiting.reason == "window":
                event = {"waiting_since": datetime.now(UTC).isoformat()} | event
            export = ExportRecord.id_of(run.raw.uri, waiting.prefix)
            until = waiting.until.isoformat()
            trigger = ExportTurnTrigger(waiting.reason, until, waiting.subject, event, export)
        self.defer(trigger=trigger, method_name="resume")


class ExtractSqlOperator(StudyOperator):
    """Extracts the study's queries from a reporting database into the raw zone, page by page.

    The database is reached by the provider's hook of the connection, with all that its form offers.
    A killed worker's successor goes on after the last page that was written.
    """

    kind = StepKind.EXTRACT_SQL
    ui_color = "#d6eaf8"

    def execute(self, context: Context) -> dict[str, Any]:
        """Extract, or go on with it."""

        def work(run: Run) -> dict[str, Any]:
            from cohortflow.workflow.steps.extract_sql import extract_queries

            spec = run.plan.spec.sql
            engine = open_hook_engine(spec.connection if spec else "")
            return record_step(run, self.step, lambda: extract_queries(run, engine=engine)).to_dict()

        return self._carry_out(context, work)


class WithdrawDeletedOperator(StudyOperator):
    """Removes from the published datasets what the source has deleted."""

    kind = StepKind.WITHDRAW
    ui_color = "#f5b7b1"


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


class AssessRiskOperator(StudyOperator):
    """Measures how far subjects are alike, and suppresses what the study demands."""

    kind = StepKind.ASSESS
    ui_color = "#f5b7b1"


class ValidateDatasetOperator(StudyOperator):
    """Checks a dataset's expectations."""

    kind = StepKind.VALIDATE
    ui_color = "#e8daef"


class ScanForLeaksOperator(StudyOperator):
    """Searches what would be published for the identifiers in the raw zone."""

    kind = StepKind.SCAN
    ui_color = "#f5b7b1"


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
