"""Exclusions of a run: who and what is left out, found once, applied wherever rows are read."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cohortflow.engine import read_table, write_table
from cohortflow.fhir.snapshot import TOMBSTONE_SCHEMA
from cohortflow.model import SMALL_CELL
from cohortflow.redaction.exclusions import (
    ENCOUNTERS,
    EXCLUDED,
    LABELS,
    MASKED,
    add_labels,
    clear_rows,
    count_steps,
    gather_subjects,
    has_label,
    mask_rows,
    maskable_columns,
    names_any,
)
from cohortflow.redaction.risk import show_count, show_counts
from cohortflow.workflow.exclusion_lists import digest_lists
from cohortflow.workflow.exclusion_reader import EXCLUSIONS, ExclusionReader
from cohortflow.workflow.exclusion_record import record_excluded

if TYPE_CHECKING:
    from cohortflow.redaction.exclusions import Reason
    from cohortflow.workflow.datasets import DatasetPlan
    from cohortflow.workflow.exclusion_plan import ExclusionPlan
    from cohortflow.workflow.run import Run

__all__ = [
    "ExclusionReader",
    "clear_table",
    "date_excluded",
    "describe_exclusions",
    "digest_lists",
    "find_excluded",
    "hides_counts",
    "label_records",
    "load_steps",
    "with_labels",
]

_log = logging.getLogger(__name__)

_SUBJECTS: Final = f"{EXCLUSIONS}/subjects.parquet"
_ENCOUNTERS: Final = f"{EXCLUSIONS}/encounters.parquet"
_COUNTS: Final = f"{EXCLUSIONS}/counts.json"
"""In the work zone: counts that are too small to be shown."""
_PATIENT, _CONSENT = "Patient", "Consent"


def with_labels(run: Run, view: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a view's definition, with the labels of its records where rules look at them."""
    return add_labels(view) if run.plan.exclusions.record_labels else view


def label_records(run: Run, dataset: DatasetPlan, frame: pl.LazyFrame) -> pl.LazyFrame:
    """Leave out or mask the rows of labelled records; the frame is that of ``with_labels``."""
    rules = run.plan.exclusions.record_labels
    if not rules or dataset.view is None:
        return frame
    for rule in rules:  # those that leave records out come first
        bears = has_label(pl.col(LABELS), rule.codes)
        if rule.action == "exclude_record":
            frame = frame.filter(~bears)
        else:
            frame = mask_rows(frame, maskable_columns(dataset.columns), bears)
    return frame.drop(LABELS)


def find_excluded(reader: ExclusionReader) -> dict[str, Any]:
    """Find who is left out of a run, once its resources were read; keep it for ``clear_table``.

    Returns:
        Counts with small ones suppressed; empty where the study leaves nobody out.

    Raises:
        MalformedDataError: Somebody is to be left out, and nobody can tell who.
        ConfigurationError: A list is missing, or the export holds no Consent.
    """
    plan, run = reader.plan, reader.run
    run.work.remove(_SUBJECTS)
    if not plan:
        return {}
    reader.read_labelled()
    taken = reader.snapshot.transaction_time
    end = run.interval.end
    reasons = reader.reasons(min(end, taken), max(end, taken))
    known = reader.known()
    rules = {rule.rule for rule in plan.patient_labels}
    for reason in (reason for reason in reasons if reason.rule in rules):
        _keep_excluded(reader, reason)  # only now are all records read
    write_table(gather_subjects(known, reasons), "subjects", _SUBJECTS, run.work)
    if plan.record_labels:
        write_table(reader.encounters().lazy(), "encounters", _ENCOUNTERS, run.work)
    subjects = read_table(_SUBJECTS, run.work)
    steps = count_steps(subjects, known, reasons).to_dicts()
    masked = int(subjects.filter(pl.col(MASKED) & ~pl.col(EXCLUDED)).select(pl.len()).collect().item())
    records = _count_records(plan, reader.records(), subjects)
    exact = {"steps": steps, "masked": masked, "records": records}
    if plan.consent:
        exact["consents_exported"] = _CONSENT in reader.resources
        if not exact["consents_exported"]:
            _log.warning("The export holds no Consent; the study is told that the site keeps none.")
    run.work.write(_COUNTS, json.dumps(exact).encode())
    shown = _show(exact)
    for entry in shown["patients"]:
        _log.info("%s: %s patients left out", entry["criterion"], entry["n_excluded"])
    for entry in shown["records"]:
        _log.info("%s %s: %s, %s", entry["count"], entry["resource"], entry["labels"], entry["action"])
    return shown


def date_excluded(reader: ExclusionReader) -> pl.DataFrame:
    """Return who is excluded as of the export, dated like deletions, so that earlier intervals lose them too.

    It is kept for repeats that work on an older export. Age is left aside: it was another one at the end of
    another interval. So are labels of records other than Patient, which are known only once all were read.

    Returns:
        Rows with ``TOMBSTONE_SCHEMA``, with the ids that merged records of these patients had.

    Raises:
        MalformedDataError: Somebody is to be left out, and nobody can tell who.
        ConfigurationError: A list is missing, or the export holds no Consent.
    """
    taken = reader.snapshot.transaction_time
    found = [pl.DataFrame(schema={"patient_id": pl.String})]
    for reason in reader.reasons(taken, taken, age=False):
        ids = _keep_excluded(reader, reason)
        found += [] if reason.masks else [ids]
    return (
        pl.concat(found)
        .unique()
        .select(
            pl.lit(_PATIENT).alias("type"),
            pl.col("patient_id").alias("id"),
            pl.lit(taken).cast(TOMBSTONE_SCHEMA["deleted_at"]).alias("deleted_at"),
        )
    )


def _keep_excluded(reader: ExclusionReader, reason: Reason) -> pl.DataFrame:
    """Keep whom a reason leaves out for repeats on older exports; return the ids, also of merged records."""
    ids = reason.patients.drop_nulls().unique().collect(engine="streaming")
    merged = reader.crosswalk.links.join(ids, left_on="survivor", right_on="patient_id", how="semi")
    ids = pl.concat([ids, merged.select(patient_id="id")])
    record_excluded(reader.run, reason.rule, ids, reader.snapshot.transaction_time)
    return ids


def _count_records(
    plan: ExclusionPlan, records: pl.LazyFrame, subjects: pl.LazyFrame
) -> list[dict[str, Any]]:
    """Count labelled records of patients who stay, each for the first rule that fits it."""
    if not plan.record_labels:
        return []
    fits = pl.coalesce(
        *[
            pl.when(has_label(pl.col(LABELS), rule.codes)).then(pl.lit(position))
            for position, rule in enumerate(plan.record_labels)
        ]
    )
    gone = subjects.filter(EXCLUDED).select("patient_id")
    counted = (
        records.join(gone, on="patient_id", how="anti")
        .select("resource", "record_id", fits.alias("rule"))
        .drop_nulls("rule")
        .group_by("rule", "resource")
        .agg(pl.col("record_id").n_unique().alias("count"))
        .sort("rule", "resource")
        .collect(engine="streaming")
    )
    return [
        {
            "labels": plan.record_labels[row["rule"]].value_set,
            "action": plan.record_labels[row["rule"]].action,
            "resource": row["resource"],
            "count": row["count"],
        }
        for row in counted.iter_rows(named=True)
    ]


def _show(exact: Mapping[str, Any]) -> dict[str, Any]:
    """Return counts for readers."""
    steps: Sequence[Mapping[str, Any]] = exact["steps"]
    counts = show_counts([step["n_excluded"] for step in steps])
    return {
        "patients": [
            {"criterion": step["criterion"], "n_excluded": count}
            for step, count in zip(steps, counts, strict=True)
        ],
        "patients_masked": show_count(exact["masked"]),
        "records": [{**entry, "count": show_count(entry["count"])} for entry in exact["records"]],
    }


def clear_table(run: Run, dataset: DatasetPlan, frame: pl.LazyFrame) -> pl.LazyFrame:
    """Leave the rows of excluded patients out of a table, and mask those of masked ones.

    So it is with rows that belong to labelled encounters. Rows of patients without a Patient go, too.

    Raises:
        ArtifactNotFoundError: Who is excluded was not found yet.
    """
    plan = run.plan.exclusions
    subject = dataset.redaction.subject
    if not plan.concerns_patients or not subject:
        return frame
    frame = _clear_encounters(run, dataset, frame)
    subjects = read_table(_SUBJECTS, run.work)
    others = [
        column.name for column in dataset.columns if column.target == _PATIENT and column.name != subject
    ]
    return clear_rows(
        frame,
        subjects,
        subject,
        maskable=maskable_columns(dataset.columns) if plan.masks_patients else (),
        # Of whom there is no Patient that can be read, nobody knows lists, labels, age or other records.
        known_only=True,
        others=others,
    )


def _clear_encounters(run: Run, dataset: DatasetPlan, frame: pl.LazyFrame) -> pl.LazyFrame:
    """Leave out or mask what belongs to labelled encounters; the frame is that of ``with_labels``."""
    if dataset.view is None:  # of a reporting database, whose rows may name encounters of the export
        names = [one.name for one in dataset.columns if one.target == "Encounter" and not one.collection]
        if not names or not run.plan.exclusions.record_labels:
            return frame
        frame = frame.with_columns(pl.concat_list(names).alias(ENCOUNTERS))
    elif ENCOUNTERS not in frame.collect_schema():
        return frame
    encounters = read_table(_ENCOUNTERS, run.work).collect()
    for excluded in (True, False):
        known = encounters.filter(pl.col("excluded") == excluded)["encounter_id"]
        if known.is_empty():
            continue
        belongs = names_any(pl.col(ENCOUNTERS), known)
        if excluded:
            frame = frame.filter(~belongs)
        else:
            frame = mask_rows(frame, maskable_columns(dataset.columns), belongs)
    return frame.drop(ENCOUNTERS)


def load_steps(run: Run) -> list[dict[str, Any]]:
    """Return the exact counts by reason, as the first steps of an attrition.

    Raises:
        ArtifactNotFoundError: Who is excluded was not found yet.
    """
    return list(_load_counts(run)["steps"]) if run.plan.exclusions else []


def hides_counts(run: Run) -> bool:
    """Return whether a count of exclusions is too small to show, so that totals must not tell it either."""
    if not run.plan.exclusions:
        return False
    exact = _load_counts(run)
    people = sum(step["n_excluded"] for step in exact["steps"])
    counts = [people, *(entry["count"] for entry in exact["records"])]
    return any(0 < count < SMALL_CELL for count in counts)


def describe_exclusions(run: Run) -> dict[str, Any]:
    """Return what a release document says of exclusions; patients are counted in its attrition."""
    if not run.plan.exclusions:
        return {}
    exact = _load_counts(run)
    shown = _show(exact)
    facts = {"records": shown["records"], "patients_masked": shown["patients_masked"]}
    if run.plan.exclusions.consent:
        facts["consents_exported"] = exact["consents_exported"]
    return {"rules": run.plan.exclusions.describe(), **facts}


def _load_counts(run: Run) -> dict[str, Any]:
    counts: dict[str, Any] = run.load_json(_COUNTS, "The counts of exclusions are missing")
    return counts
