"""Audit events of runs: noted before the next thing happens, delivered when there is time."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from cohortflow import __version__
from cohortflow.audit import Activity, AuditEvent, sign, to_fhir, to_ocsf
from cohortflow.errors import CohortflowError, DeliveryError, LeakError, TransientSourceError
from cohortflow.workflow.plan import Step, StepKind
from cohortflow.workflow.run import Run, StepResult, name_work_folder, open_zone

if TYPE_CHECKING:
    from cohortflow.lake import Outbox
    from cohortflow.model import Deployment
    from cohortflow.workflow.environment import Environment

__all__ = [
    "Auditor",
    "Delivered",
    "deliver_events",
    "name_user",
    "note_failure",
    "note_reidentification",
    "note_result",
    "note_start",
    "open_outbox",
]

_FORMATS = {"fhir": to_fhir, "ocsf": to_ocsf}
_REFUSALS = 3
_log = logging.getLogger(__name__)


def name_user() -> str:
    """Return the name of the user that this process runs as; never what its environment says."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # a container's user without an entry
        return f"uid {number}"


def open_outbox(environment: Environment, deployment: Deployment) -> Outbox:
    """Open the log and outbox of an environment's audit events."""
    from cohortflow.lake import Outbox

    return Outbox(open_zone(environment.audit.zone, deployment, private=True))


@dataclass(frozen=True)
class Auditor:
    """Notes events of one environment.

    Attributes:
        environment: The environment.
        deployment: Connections and variables.
        actor: Who asks.
    """

    environment: Environment
    deployment: Deployment
    actor: str

    def note(
        self,
        activity: Activity,
        facts: Mapping[str, Any],
        *,
        succeeded: bool = True,
        study: str = "",
        run_id: str = "",
        source: str = "",
        policy: str = "",
    ) -> AuditEvent:
        """Write an event to the log, and to the outbox where events are delivered.

        Raises:
            StoreUnavailableError: It cannot be written; what it is about should then not happen.
        """
        event = AuditEvent(
            activity=activity,
            succeeded=succeeded,
            recorded=datetime.now(UTC),
            actor=self.actor or name_user(),
            environment=self.environment.environment,
            study=study,
            run_id=run_id,
            source=source,
            policy=policy,
            facts=facts,
        )
        content = json.dumps(_FORMATS[self.environment.audit.format](event)).encode()
        folder = name_work_folder(run_id) if run_id else f"{event.recorded:%Y-%m}"
        open_outbox(self.environment, self.deployment).add(
            f"{study or 'deployment'}/{folder}",
            event.id,
            content,
            event.recorded,
            deliver=bool(self.environment.audit.webhook),
        )
        return event


def note_start(run: Run) -> None:
    """Note that a run begins, before it asks for anybody's data."""
    plan = run.plan
    _note(
        run,
        Activity.STUDY_STARTED,
        {
            "interval": run.interval.key,
            "plan": plan.digest,
            "cohortflow": __version__,
            "key": run.key.fingerprint,
            "datasets": list(plan.published),
        },
    )


def note_result(run: Run, step: Step, result: StepResult) -> None:
    """Note what a step did, where that is worth an event, and deliver what waits after the last one."""
    facts = result.facts
    if step.kind is StepKind.EXTRACT:
        names = ("kind", "resources", "transaction_time", "partial")
        noted = {name: facts[name] for name in names if name in facts}
        _note(run, Activity.SOURCE_EXPORTED, {"interval": run.interval.key, **noted})
    elif step.kind is StepKind.WITHDRAW and facts.get("withdrawn"):
        _note(run, Activity.ROWS_WITHDRAWN, {"rows": facts["withdrawn"]})
    elif step.kind is StepKind.RELEASE:
        landings = [run.load_result(f"{StepKind.LAND}.{name}") for name in run.plan.published]
        landed = [dataset for landing in landings for dataset in landing["datasets"]]
        _note(
            run,
            Activity.DATASETS_RELEASED,
            {
                "interval": run.interval.key,
                "rows": {one["name"]: one["rows"] for one in landed},
                "versions": {one["name"]: one["version"] for one in landed},
                "plan": run.plan.digest,
                "cohortflow": __version__,
                "key": run.key.fingerprint,
            },
        )
        _deliver(run)


def note_failure(run: Run, step: Step, error: CohortflowError) -> None:
    """Note that a step failed; the first failure is the one to report, so this raises none of its own."""
    activity = Activity.LEAK_FOUND if isinstance(error, LeakError) else Activity.STEP_FAILED
    try:
        facts = {"interval": run.interval.key, "step": step.id, "error": type(error).__name__}
        _note(run, activity, facts, succeeded=False)
        _deliver(run)
    except CohortflowError as another:
        _log.warning("the failure was not noted for audit: %s", another)


def note_reidentification(run: Run, facts: Mapping[str, Any]) -> None:
    """Note that pseudonyms were turned back into ids, and deliver it; before anybody gets the ids.

    Raises:
        StoreUnavailableError: It cannot be noted; then nothing may be handed out.
    """
    plan = run.plan
    # Of no run: two requests that look the same are two events.
    Auditor(plan.environment, run.deployment, run.actor).note(
        Activity.SUBJECTS_REIDENTIFIED,
        facts,
        study=plan.name,
        source=plan.spec.source.connection,
        policy=plan.policy.name,
    )
    _deliver(run)


def _note(run: Run, activity: Activity, facts: Mapping[str, Any], *, succeeded: bool = True) -> None:
    plan = run.plan
    Auditor(plan.environment, run.deployment, run.actor).note(
        activity,
        facts,
        succeeded=succeeded,
        study=plan.name,
        run_id=run.run_id,
        source=plan.spec.source.connection,
        policy=plan.policy.name,
    )


def _deliver(run: Run) -> None:
    """Deliver what waits; a receiver that is not there never fails a run."""
    try:
        delivered = deliver_events(run.plan.environment, run.deployment)
    except CohortflowError as error:
        _log.warning("audit events were not delivered and stay in the outbox: %s", error)
        return
    if delivered.waiting:
        _log.warning("%d audit events stay in the outbox: %s", delivered.waiting, delivered.reason)


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of the events that waited.

    Attributes:
        delivered: How many the receiver took.
        waiting: How many are left.
        reason: Why, where some are left.
    """

    delivered: int
    waiting: int
    reason: str = ""


def deliver_events(environment: Environment, deployment: Deployment) -> Delivered:
    """Deliver the events in the outbox, oldest first, until the receiver is gone or refuses several.

    Raises:
        ConfigurationError: The connection is missing, or its address or secret is wrong.
        StoreUnavailableError: The outbox cannot be read.
    """
    if environment.audit.webhook is None:
        return Delivered(0, 0)
    return asyncio.run(_deliver_events(environment.audit.webhook, environment, deployment))


async def _deliver_events(conn_id: str, environment: Environment, deployment: Deployment) -> Delivered:
    from cohortflow.connectors.webhook import WebhookClient

    outbox = open_outbox(environment, deployment)
    connection = await asyncio.to_thread(deployment.connection, conn_id)
    count, reason = 0, ""
    async with WebhookClient.from_connection(connection, lambda secret: partial(sign, secret)) as client:
        refused = 0
        for parcel in outbox.pending():
            try:
                await client.deliver(parcel.id, parcel.content)
            except DeliveryError as error:
                # One event may be at fault, or the receiver's settings.
                refused, reason = refused + 1, str(error)
                if refused == _REFUSALS:
                    break
                continue
            except TransientSourceError as error:
                reason = str(error)
                break
            outbox.settle(parcel)
            count += 1
    return Delivered(count, outbox.count_pending() if reason else 0, reason)
