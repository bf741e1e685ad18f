"""What an audit event says: who did what to which data, under which rules, with what result."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from cohortflow.errors import InputError

__all__ = ["Activity", "AuditEvent"]

_NAMESPACE = uuid.UUID("a7e1f3c5-0b58-4f0c-9c5c-6f6f0a1f2d94")
_PLAIN = (str, int, float, bool, type(None))
_LONGEST = 500


class Activity(StrEnum):
    """What was done."""

    STUDY_STARTED = "study-started"
    SOURCE_EXPORTED = "source-exported"
    ROWS_WITHDRAWN = "rows-withdrawn"
    LEAK_FOUND = "leak-found"
    STEP_FAILED = "step-failed"
    DATASETS_RELEASED = "datasets-released"
    SUBJECTS_REIDENTIFIED = "subjects-reidentified"
    VERSIONS_REMOVED = "versions-removed"

    @property
    def action(self) -> Literal["E", "R", "C", "D"]:
        """What it does to data, by FHIR's AuditEvent.action: execute, read, create, delete."""
        return _ACTIONS.get(self, "E")


_ACTIONS: dict[Activity, Literal["R", "C", "D"]] = {
    Activity.SOURCE_EXPORTED: "R",
    Activity.SUBJECTS_REIDENTIFIED: "R",
    Activity.DATASETS_RELEASED: "C",
    Activity.ROWS_WITHDRAWN: "D",
    Activity.VERSIONS_REMOVED: "D",
}


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event. Nothing in it is of a patient: names of things, counts, versions, digests.

    Attributes:
        activity: What was done.
        succeeded: Whether it succeeded.
        recorded: When it was noted, with a time zone.
        actor: Who asked for it: the user of Airflow or of the machine, or the scheduler.
        environment: Where.
        study: Which study, with its variant; empty where there is none.
        run_id: Which run of it; empty where there is none.
        source: Connection of the hospital's system; empty where none is touched.
        policy: Redaction policy; empty where none applies.
        facts: Counts, names and versions: text, numbers, booleans, or flat lists and mappings of them.
    """

    activity: Activity
    succeeded: bool
    recorded: datetime
    actor: str
    environment: str
    study: str = ""
    run_id: str = ""
    source: str = ""
    policy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the facts are flat and small, so that no table slips in."""
        for name, value in self.facts.items():
            parts = value.values() if isinstance(value, Mapping) else value
            parts = [parts] if isinstance(parts, _PLAIN) else list(parts)
            if not all(isinstance(part, _PLAIN) for part in parts) or len(parts) > _LONGEST:
                raise InputError(
                    "A fact of an audit event is neither plain nor a short list of what is plain.",
                    place=f"{self.activity}.{name}",
                    remedy="Give counts and names.",
                )

    @property
    def id(self) -> str:
        """UUID (version 5) of everything but the time: a step that is repeated notes the same event.

        What is of no run, such as a re-identification, is an event each time.
        """
        parts = (
            self.activity,
            self.succeeded,
            self.actor,
            self.environment,
            self.study,
            self.run_id,
            self.source,
            self.policy,
            dict(self.facts),
            *(() if self.run_id else (self.recorded.isoformat(),)),
        )
        return str(uuid.uuid5(_NAMESPACE, json.dumps(parts, sort_keys=True, default=str)))
