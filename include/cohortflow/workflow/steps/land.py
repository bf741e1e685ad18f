"""Land: publish a dataset by one atomic commit."""

from __future__ import annotations

import hashlib
from datetime import datetime

from cohortflow import __version__
from cohortflow.lake import Landing, land_dataset
from cohortflow.workflow.permission import keeps_one_interval
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.steps.risk import read_published
from cohortflow.workflow.steps.transform import STEP as TRANSFORM

__all__ = ["land_view", "name_application"]


def name_application(run: Run) -> str:
    """Return the identity under which a study's intervals land."""
    return f"cohortflow/{run.plan.name}"


def land_view(run: Run, view: str) -> StepResult:
    """Replace this interval's rows of a published dataset; those of others, too, where the policy says so.

    Raises:
        StaleWriteError: Newer rows are there.
    """
    # Of the export that the rows were made from; the raw zone may hold another one by now.
    export = run.load_result(TRANSFORM)
    # The interval's end decides rows as much as its start, which alone is in the key.
    as_of = run.interval.end.isoformat()
    content = hashlib.sha256(
        f"{run.plan.digest}:{export['export_digest']}:{run.key.fingerprint}:{as_of}".encode()
    )
    outcome = land_dataset(
        read_published(run, view),
        Landing(
            name=view,
            path=view,
            application=name_application(run),
            interval=run.interval.key,
            transaction_time=datetime.fromisoformat(export["transaction_time"]),
            content=content.hexdigest(),
            partition_by=run.plan.datasets[view].partition_by,
            description=f"{run.plan.title}: {view}",
            metadata={
                "study": run.plan.study,
                "environment": run.plan.environment.environment,
                "policy": run.plan.policy.name,
                "plan": run.plan.digest,
                "cohortflow": __version__,
            },
            latest_only=keeps_one_interval(run.plan, run.deployment),
        ),
        run.datasets,
    )
    return StepResult((outcome.dataset,), {"committed": outcome.committed})
