"""Who the patients of a run are: merges of their records, and whether they are synthetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cohortflow.engine import plan_write, read_table
from cohortflow.errors import PolicyError
from cohortflow.fhir.views import compile_view
from cohortflow.redaction.crosswalk import Crosswalk
from cohortflow.redaction.standards import Standard
from cohortflow.workflow.permission import LABELLED, synthetic_declaration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cohortflow.fhir.snapshot import Snapshot
    from cohortflow.workflow.datasets import DatasetPlan
    from cohortflow.workflow.run import Run

__all__ = ["follow_merges", "read_subjects"]

_PATIENT: Final = "Patient"
_PATH: Final = "subjects/patient.parquet"
_VIEW: Final[dict[str, Any]] = {
    "resourceType": "ViewDefinition",
    "name": "subjects",
    "status": "active",
    "resource": _PATIENT,
    "constant": [
        {"name": "system", "valueString": "http://terminology.hl7.org/CodeSystem/v3-ActReason"},
        {"name": "code", "valueString": "HTEST"},
    ],
    "select": [
        {
            "column": [
                {"name": "id", "path": "getResourceKey()"},
                {
                    "name": "labelled",
                    "path": "meta.security.where(system = %system and code = %code).exists()",
                },
            ]
        },
        {
            "forEachOrNull": "link",
            "column": [
                {"name": "type", "path": "type"},
                {"name": "other", "path": "other.getReferenceKey(Patient)"},
            ],
        },
    ],
}


def read_subjects(run: Run, snapshot: Snapshot, resources: Iterable[str]) -> Crosswalk:
    """Return which of a run's patients are one person, after a look at whether they may be used at all.

    Args:
        run: The run.
        snapshot: The valid resources of its exports.
        resources: Resource types that the exports hold.

    Raises:
        PolicyError: The source is declared to label its synthetic patients, and some bear no label, or no
            patients are there.
    """
    if _PATIENT not in resources:
        if _wants_labels(run):
            raise PolicyError(
                "The export holds no Patient whose label could show that the source is synthetic.",
                place=run.plan.spec.source.connection,
                remedy="Add Patient to the study's resource types.",
            )
        return Crosswalk.empty()
    view = compile_view(_VIEW)
    snapshot.execute([view], lambda frames: [plan_write(frames[view.name], _PATH, run.work)])
    patients = read_table(_PATH, run.work)
    _check_labels(run, patients)
    replaced = patients.filter(pl.col("type") == "replaced-by")
    replaces = patients.filter(pl.col("type") == "replaces")
    links = pl.concat(
        [
            replaced.select("id", replaced_by="other"),
            replaces.select(id="other", replaced_by="id"),
        ]
    )
    # "seealso", "refer" and what nobody knows: the same person has another record, and both are used.
    merges = pl.col("type").is_in(["replaced-by", "replaces"]).fill_null(value=False)
    same = patients.filter(~merges).select("id", "other")
    return Crosswalk.of_links(links.collect(), same.drop_nulls().collect())


def follow_merges(frame: pl.LazyFrame, dataset: DatasetPlan, crosswalk: Crosswalk) -> pl.LazyFrame:
    """Let rows of merged records belong to what is left of them; the merged Patients have no rows."""
    if dataset.view is not None and dataset.view.resource == _PATIENT and dataset.redaction.subject:
        frame = crosswalk.leave_out_merged(frame, dataset.redaction.subject)
    ids = [column.name for column in dataset.columns if column.target == _PATIENT and not column.collection]
    present = frame.collect_schema()
    return crosswalk.follow_columns(frame, [name for name in ids if present.get(name) == pl.String])


def _wants_labels(run: Run) -> bool:
    """Whether the source may be used for the sake of its labels only."""
    if run.plan.policy.standard is not Standard.SYNTHETIC:
        return False
    return synthetic_declaration(run.deployment, run.plan.spec.source.connection) == LABELLED


def _check_labels(run: Run, patients: pl.LazyFrame) -> None:
    if not _wants_labels(run):
        return
    unlabelled = patients.filter(~pl.col("labelled").fill_null(value=False))
    missing = int(unlabelled.select(pl.len()).collect().item())
    if missing:
        raise PolicyError(
            f"{missing} rows of Patient bear no label for synthetic records, HTEST.",
            place=run.plan.spec.source.connection,
            remedy="The source may hold patients: choose another policy than one for synthetic sources.",
        )
