"""Re-identification on an approved request: which ids of the raw zone pseudonyms stand for.

It takes the project's key and access to the raw zone, so that nobody can do it who has a dataset alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import polars as pl

from cohortflow.errors import ArtifactNotFoundError, StudyError
from cohortflow.fhir.elements import is_resource, suggest_resource
from cohortflow.fhir.ndjson import read_views
from cohortflow.fhir.views import compile_view
from cohortflow.redaction.keyed import add_keyed_columns, pseudonym_column
from cohortflow.redaction.keys import PSEUDONYM_DIGITS
from cohortflow.workflow.audit import name_user, note_reidentification
from cohortflow.workflow.run import KEY_RECORD, Run

__all__ = ["Reidentification", "find_ids", "read_pseudonyms", "record_reidentification"]

_log = logging.getLogger(__name__)
_PSEUDONYM: Final = re.compile(rf"[0-9a-f]{{{PSEUDONYM_DIGITS}}}")


@dataclass(frozen=True, slots=True)
class Reidentification:
    """A re-identification, for audit; holds no id and no pseudonym.

    Attributes:
        study: The study whose pseudonyms they are.
        environment: Where it was published.
        resource: Resource type of the ids.
        key: Fingerprint of the project key.
        actor: Who asked.
        approved_by: Who approved it.
        reason: Why.
        asked: How many pseudonyms were asked for.
        found: How many of them stand for an id of the raw zone.
        at: When, UTC.
    """

    study: str
    environment: str
    resource: str
    key: str
    actor: str
    approved_by: str
    reason: str
    asked: int
    found: int
    at: datetime


def record_reidentification(event: Reidentification, run: Run) -> None:
    """Note a re-identification for audit, before anybody gets what it found.

    Args:
        event: What was done.
        run: The run whose key and raw zone it used.

    Raises:
        CohortflowError: It could not be noted: then nothing must be handed out.
    """
    note_reidentification(
        run,
        {
            "resource": event.resource,
            "asked": event.asked,
            "found": event.found,
            "reason": event.reason,
            "approved_by": event.approved_by,
            "key": event.key,
        },
    )
    _log.warning(
        "re-identification in study %s, %s: %d of %d pseudonyms of type %s, for %s, approved by %s: %s",
        event.study,
        event.environment,
        event.found,
        event.asked,
        event.resource,
        event.actor,
        event.approved_by,
        event.reason,
    )


def read_pseudonyms(path: Path) -> list[str]:
    """Read a file with one pseudonym a line; each once, in their order.

    Raises:
        StudyError: It cannot be read, or a line is no pseudonym; the line is not quoted.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(
            f"Cannot be read ({type(error).__name__}).", place=str(path), remedy="Check the path."
        ) from None
    found: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not _PSEUDONYM.fullmatch(text):
            raise StudyError(
                "This is no pseudonym.",
                place=f"{path}:{number}",
                remedy=f"Write one a line: {PSEUDONYM_DIGITS} hexadecimal digits.",
            )
        if text:
            found[text] = None
    return list(found)


def find_ids(
    run: Run, wanted: Sequence[str], *, resource: str = "Patient", reason: str, approved_by: str
) -> pl.DataFrame:
    """Find the ids that pseudonyms stand for, among all ids in the raw zone, and record that.

    The pseudonyms of the raw zone's ids are computed again and compared. Records that the source has
    merged since have the pseudonym of what is left.

    Args:
        run: A run of the study, for its key and its zones; its interval does not matter.
        wanted: The pseudonyms.
        resource: Resource type of the ids.
        reason: Why they are looked for.
        approved_by: Who approved it.

    Returns:
        ``pseudonym: str, id: str``, in the order of ``wanted``; of those that were found only.

    Raises:
        StudyError: Reason or approval is missing, or there is no such resource type.
        ProjectKeyError: The key is missing, or not the one that made the study's datasets.
        ArtifactNotFoundError: The study has published nothing, or the raw zone has no such resources.
        StoreUnavailableError: It cannot be noted for audit.
    """
    _check_request(resource, reason, approved_by)
    if run.datasets.read(KEY_RECORD) is None:
        raise ArtifactNotFoundError(
            "The study has published nothing here.", place=run.datasets.uri, remedy="Check study and --env."
        )
    key = run.key
    files = _list_files(run, resource)
    view = compile_view(
        {
            "resourceType": "ViewDefinition",
            "name": "ids",
            "status": "active",
            "resource": resource,
            "select": [{"column": [{"name": "id", "path": "getResourceKey()"}]}],
        }
    )
    target = pl.DataFrame({"pseudonym": list(wanted)}, schema={"pseudonym": pl.String})

    def match(ids: pl.LazyFrame) -> pl.LazyFrame:
        computed = add_keyed_columns(ids, [pseudonym_column("id", "pseudonym", resource)], key)
        return computed.join(target.lazy(), on="pseudonym").unique()

    read = read_views([view], files, storage_options=run.raw.polars_options)
    (known,), _malformed = read.execute(lambda frames: [match(frames[view.name])])
    matches = target.join(known.select("pseudonym", "id"), on="pseudonym", maintain_order="left")
    event = Reidentification(
        study=run.plan.name,
        environment=run.plan.environment.environment,
        resource=resource,
        key=key.fingerprint,
        actor=run.actor or name_user(),
        approved_by=approved_by,
        reason=reason,
        asked=len(wanted),
        found=matches["pseudonym"].n_unique(),
        at=datetime.now(UTC),
    )
    record_reidentification(event, run)
    return matches


def _check_request(resource: str, reason: str, approved_by: str) -> None:
    if not reason.strip() or not approved_by.strip():
        raise StudyError(
            "A re-identification needs a reason and somebody who approved it.",
            place="--reason and --approved-by",
            remedy="Write both; they go into the audit record.",
        )
    if not is_resource(resource):
        near = suggest_resource(resource)
        raise StudyError(
            f"'{resource}' is no resource type.",
            place="--type",
            remedy=f"Did you mean '{near}'?" if near else "Name one of FHIR R4.",
        )


def _list_files(run: Run, resource: str) -> list[str]:
    connection = run.plan.spec.source.connection
    names = [path for path in run.raw.list(connection) if f"/{resource}/" in path and ".ndjson" in path]
    if not names:
        raise ArtifactNotFoundError(
            f"The raw zone holds no {resource}.",
            place=run.raw.child(connection),
            remedy="What was removed from the raw zone cannot be found again.",
        )
    return [run.raw.child(name) for name in names]
