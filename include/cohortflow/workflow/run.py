"""One run of a plan: its interval, its zones, its key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cohortflow.errors import (
    ArtifactNotFoundError,
    ConfigurationError,
    ConnectionNotFoundError,
    ProjectKeyError,
)
from cohortflow.model import DataInterval, DatasetRef, NoProgress, Progress
from cohortflow.redaction.keys import ProjectKey
from cohortflow.workflow.permission import check_permission

if TYPE_CHECKING:
    from cohortflow.lake import Store
    from cohortflow.model import Catalog, Deployment
    from cohortflow.workflow.plan import Plan

__all__ = ["KEY_RECORD", "LAKE_VARIABLE", "Run", "StepResult", "name_work_folder", "open_zone"]

LAKE_VARIABLE = "cohortflow_lake"
"""Airflow variable with the lake's URI."""

KEY_RECORD = "_key.json"
"""Beside a study's datasets: the fingerprint of the key that made them."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step says of its work; safe for XCom, logs and release documents.

    Attributes:
        datasets: The tables that it wrote.
        facts: JSON-ready counts and settings, never a value of a patient's record.
    """

    datasets: tuple[DatasetRef, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {"datasets": [ref.to_dict() for ref in self.datasets], **self.facts}


def name_work_folder(run_id: str) -> str:
    """Return the name of a run's folder in the work zone: 12 hex digits."""
    return hashlib.sha256(run_id.encode()).hexdigest()[:12]


def open_zone(zone: str, deployment: Deployment, *, private: bool = False) -> Store:
    """Open a zone, or a folder in it, by the environment's URI with ``{lake}`` in it.

    Raises:
        ConfigurationError: The lake's variable is not set.
    """
    from cohortflow.lake import open_store

    lake = deployment.variable(LAKE_VARIABLE)
    if "{lake}" in zone and not lake:
        raise ConfigurationError(
            f"The variable '{LAKE_VARIABLE}' is not set.",
            remedy="Set it to the lake's URI, such as s3://lake or a folder; outside of Airflow as "
            f"AIRFLOW_VAR_{LAKE_VARIABLE.upper()}.",
        )
    return open_store(zone.replace("{lake}", (lake or "").rstrip("/")), deployment, private=private)


@dataclass(frozen=True)
class Run:
    """A plan at work.

    Attributes:
        plan: The plan.
        interval: The data interval.
        run_id: Identity of the run; a retry has the same, so that it finds what it left.
        deployment: Connections and variables.
        catalog: The catalog.
        progress: Takes counts.
        fresh_export: Export again even where this interval's export is complete.
        wait: Whether to wait for other runs, and for a server that takes no export yet.
        actor: Who asked for the run, for audit events.
    """

    plan: Plan
    interval: DataInterval
    run_id: str
    deployment: Deployment
    catalog: Catalog
    progress: Progress = field(default_factory=NoProgress)
    fresh_export: bool = False
    wait: bool = True
    actor: str = ""

    @cached_property
    def raw(self) -> Store:
        """The zone of exports as received: patient data."""
        return self._open(self.plan.environment.zones.raw, private=True)

    @cached_property
    def work(self) -> Store:
        """The zone of this run's intermediates: patient data, removed when the run ends."""
        folder = f"{self.plan.name}/{self.interval.key}/{name_work_folder(self.run_id)}"
        return self._open(f"{self.plan.environment.zones.work}/{folder}", private=True)

    @cached_property
    def datasets(self) -> Store:
        """The zone of this study's released datasets and documents."""
        return self._open(f"{self.plan.environment.zones.datasets}/{self.plan.name}")

    @cached_property
    def key(self) -> ProjectKey:
        """The project's key, checked against the one that made the study's earlier datasets.

        Without it nothing is fetched or made, so that whether the study may run at all is checked here.

        Raises:
            PolicyError: The study's approval has ended, or its policy does not fit its source.
            ProjectKeyError: It is missing, weak, or another than before.
        """
        check_permission(self.plan, self.deployment)
        conn_id = self.plan.environment.key_connection
        try:
            secret = self.deployment.connection(conn_id).password
        except ConnectionNotFoundError as error:
            raise ProjectKeyError(
                f"The project key is missing: {error.message}",
                remedy=f"Put 32 random bytes (openssl rand -hex 32) into the password of '{conn_id}'.",
            ) from None
        key = ProjectKey.from_text(secret, place=conn_id)
        record = json.dumps({"fingerprint": key.fingerprint}).encode()
        if not self.datasets.create(KEY_RECORD, record):
            known = json.loads(self.datasets.read(KEY_RECORD) or record)
            key.require_fingerprint(str(known["fingerprint"]))
        return key

    def _open(self, zone: str, *, private: bool = False) -> Store:
        return open_zone(zone, self.deployment, private=private)

    def output_path(self, step: str, view: str) -> str:
        """Return where a step leaves a table in the work zone."""
        return f"{step}/{view}.parquet"

    def report_path(self, name: str) -> str:
        """Return where a report on this run lies among the study's datasets."""
        return f"_reports/{self.interval.key}/{name}"

    def save_result(self, step: str, result: StepResult, seconds: float) -> None:
        """Leave a step's result for the release document."""
        content = json.dumps({"step": step, "seconds": round(seconds, 3), **result.to_dict()})
        self.work.write(f"_results/{step}.json", content.encode())

    def load_result(self, step: str) -> dict[str, Any]:
        """Load the result of a step that this run has done.

        Raises:
            ArtifactNotFoundError: There is none.
        """
        result: dict[str, Any] = self.load_json(
            f"_results/{step}.json", f"The result of the step '{step}' is missing"
        )
        return result

    def load_json(self, path: str, missing: str) -> Any:  # noqa: ANN401 - whatever a step has left
        """Load what a step of this run has left in the work zone.

        Args:
            path: Where it lies.
            missing: What to say if it does not.

        Raises:
            ArtifactNotFoundError: It does not.
        """
        content = self.work.read(path)
        if content is None:
            raise ArtifactNotFoundError(
                f"{missing}; intermediates are removed when a run ends.",
                place=self.work.uri,
                remedy="Run the whole study again: clear the run's first task with all downstream tasks.",
            )
        return json.loads(content)

    def load_results(self) -> dict[str, dict[str, Any]]:
        """Return the results of all steps so far, by step id."""
        results = {}
        for path in self.work.list("_results"):
            record = json.loads(self.work.read(path) or b"{}")
            results[str(record["step"])] = record
        return results
