"""Reads what the exclusions of a run go by: Consents, labels, lists, birth dates."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cohortflow.engine import plan_write, read_table
from cohortflow.errors import ConfigurationError, MalformedDataError
from cohortflow.fhir.snapshot import hide_subjects
from cohortflow.fhir.views import compile_view
from cohortflow.lake import open_store
from cohortflow.redaction.exclusions import (
    CONSENT_VIEW,
    IDENTIFIER_VIEW,
    LABELS,
    PERSON_VIEW,
    Reason,
    decide_consents,
    find_listed,
    find_minors,
    has_label,
    label_view,
    latest_decisions,
    parse_list,
    subject_path,
)
from cohortflow.redaction.risk import show_count

if TYPE_CHECKING:
    from datetime import datetime

    from cohortflow.fhir.snapshot import Snapshot
    from cohortflow.fhir.views import CompiledView
    from cohortflow.redaction.crosswalk import Crosswalk
    from cohortflow.workflow.exclusion_plan import ExclusionPlan, ListPlace
    from cohortflow.workflow.run import Run

__all__ = ["EXCLUSIONS", "ExclusionReader", "digest_lists"]

_log = logging.getLogger(__name__)

EXCLUSIONS: Final = "exclusions"
"""Folder in the work zone."""

_PATIENT, _CONSENT = "Patient", "Consent"
_RECORD_SCHEMA: Final = pl.Schema(
    {"record_id": pl.String(), "patient_id": pl.String(), LABELS: pl.List(pl.String())}
)
_IDENTIFIER_SCHEMA: Final = {"patient_id": pl.String(), "system": pl.String(), "value": pl.String()}


@dataclass
class ExclusionReader:
    """Finds whom and what the resources of a run leave out.

    Attributes:
        run: The run.
        snapshot: The valid resources of its exports.
        crosswalk: Merges among its patients.
        resources: Resource types that the exports hold.
    """

    run: Run
    snapshot: Snapshot
    crosswalk: Crosswalk
    resources: frozenset[str]
    _read: set[str] = field(default_factory=set)

    @property
    def plan(self) -> ExclusionPlan:
        """What is to be left out."""
        return self.run.plan.exclusions

    def views(self, resource: str) -> list[CompiledView]:
        """Return the views to compute in a read of a resource type; ``plans`` writes them."""
        found = [label_view(resource)] if self.plan.labels or self._marks(resource) else []
        if resource == _PATIENT and self.plan.concerns_patients:
            found += [PERSON_VIEW, IDENTIFIER_VIEW]
        if resource == _CONSENT and self.plan.consent:
            found.append(CONSENT_VIEW)
        return [compile_view(view) for view in found]

    def plans(self, resource: str, frames: Mapping[str, pl.LazyFrame]) -> list[pl.LazyFrame]:
        """Return the plans that write what ``views`` yield into the work zone."""
        self._read.add(resource)
        written = []
        for name, frame in frames.items():
            kept = frame
            if name == "exclusions_labels":
                known = self.plan.vip_labels if resource == _PATIENT else frozenset()
                kept = frame.filter(
                    has_label(pl.col(LABELS), known.union(*(r.codes for r in self.plan.labels)))
                )
            written.append(plan_write(kept, _path(name, resource), self.run.work))
        return written

    def read(self, resource: str) -> None:
        """Read a resource type for its exclusions alone, unless that is done.

        Raises:
            MalformedDataError: A Consent cannot be read: it may be a denial.
        """
        views = self.views(resource)
        if resource in self._read or resource not in self.resources or not views:
            return
        names = [view.name for view in views]
        done = self.snapshot.execute(
            views, lambda frames: self.plans(resource, {name: frames[name] for name in names})
        )
        if resource == _CONSENT and done.malformed.height:
            raise MalformedDataError(
                f"{done.malformed.height} Consent lines are malformed, and each may be a denial.",
                place="the export's Consent files",
                remedy="Ask the source's operator to mend them, and export again.",
            )

    def read_labelled(self) -> None:
        """Read the resource types that no view reads, where a label of any record counts for its patient."""
        if self.plan.patient_labels:
            for resource in sorted(self.resources - self._read):
                if subject_path(resource):
                    self.read(resource)

    def known(self) -> pl.LazyFrame:
        """Return ``patient_id`` of every patient, merged records and deleted ones left out."""
        return self._people().select("patient_id").unique()

    def reasons(self, begin: datetime, end: datetime, *, age: bool = True) -> list[Reason]:
        """Return the reasons, in the order in which they count.

        Args:
            begin: First moment at which Consents count.
            end: Last moment.
            age: Whether minors are among them.
        """
        for resource in (_PATIENT, _CONSENT):
            self.read(resource)
        found = []
        if self.plan.consent:
            found.append(self._consents(begin, end))
        if self.plan.vip_action:
            text = "On a list of protected people, or marked as one of them"
            found.append(Reason(text, self._listed(), masks=self.plan.vip_action == "mask"))
        for rule in self.plan.patient_labels:
            labelled = self.records().filter(has_label(pl.col(LABELS), rule.codes))
            found.append(Reason(f"With a record labelled: {rule.title}", labelled.select("patient_id")))
        if age and self.plan.minors_below is not None:
            text = f"Younger than {self.plan.minors_below} at the end of the interval, or of unknown age"
            day = self.run.interval.end.date()
            minors = find_minors(self._people(), below=self.plan.minors_below, on=day)
            found.append(Reason(text, minors, masks=self.plan.minors_action == "mask"))
        return found

    def records(self) -> pl.LazyFrame:
        """Return the labelled records of all resource types: ``resource, record_id, patient_id, LABELS``."""
        return pl.concat(
            [
                self._table("exclusions_labels", resource, _RECORD_SCHEMA).select(
                    pl.lit(resource).alias("resource"), *_RECORD_SCHEMA.names()
                )
                for resource in sorted(self._read)
            ]
            or [pl.LazyFrame(schema={"resource": pl.String(), **_RECORD_SCHEMA})]
        )

    def _marks(self, resource: str) -> bool:
        return resource == _PATIENT and bool(self.plan.vip_labels)

    def _table(self, name: str, resource: str, schema: Mapping[str, Any]) -> pl.LazyFrame:
        if self.run.work.size(_path(name, resource)) is None:
            return pl.LazyFrame(schema=schema)
        frame = read_table(_path(name, resource), self.run.work)
        missing = [
            pl.lit(None, dtype=dtype).alias(column)
            for column, dtype in schema.items()
            if column not in frame.collect_schema()
        ]
        frame = frame.with_columns(missing)
        names = [column for column in ("patient_id",) if column in schema]
        return self.crosswalk.follow_columns(frame, names)

    def _people(self) -> pl.LazyFrame:
        schema = {"patient_id": pl.String(), "birth_date": pl.String()}
        if self.run.work.size(_path("exclusions_person", _PATIENT)) is None:
            return pl.LazyFrame(schema=schema)
        people = read_table(_path("exclusions_person", _PATIENT), self.run.work)
        # Of a merged patient the record that is left says how old.
        people = self.crosswalk.leave_out_merged(people, "patient_id")
        return hide_subjects(people, "patient_id", self.snapshot.hidden_patients)

    def _consents(self, begin: datetime, end: datetime) -> Reason:
        schema = compile_view(CONSENT_VIEW).lazy(pl.LazyFrame(schema=compile_view(CONSENT_VIEW).read_schema))
        consents = self._table("exclusions_consent", _CONSENT, schema.collect_schema())
        decisions = decide_consents(consents, begin=begin, end=end)
        self._check_attribution(decisions)
        latest = latest_decisions(decisions)
        if self.plan.consent == "opt_out":
            denied = latest.filter(~pl.col("permits")).select("patient_id")
            return Reason("Opted out of research by Consent", denied)
        permitted = latest.filter("permits")
        unknown = self.known().join(permitted, on="patient_id", how="anti")
        return Reason("No Consent that permits research", unknown)

    def _check_attribution(self, decisions: pl.LazyFrame) -> None:
        nobody = decisions.filter(pl.col("patient_id").is_null() & ~pl.col("permits"))
        count = int(nobody.select(pl.len()).collect().item())
        if count:
            raise MalformedDataError(
                f"{show_count(count)} Consents deny research and do not refer to a Patient by its id.",
                place="the export's Consent files",
                remedy="Ask the source's operator for references: without them nobody can honour the denial.",
            )

    def _listed(self) -> pl.LazyFrame:
        parts = [
            self._table("exclusions_labels", _PATIENT, _RECORD_SCHEMA)
            .filter(has_label(pl.col(LABELS), self.plan.vip_labels))
            .select("patient_id")
        ]
        for place in self.plan.lists:
            content, named = _load_list(self.run, place)
            entries = parse_list(content, place=named)
            person = self._raw_table("exclusions_person", {"patient_id": pl.String()})
            identifier = self._raw_table("exclusions_identifier", _IDENTIFIER_SCHEMA)
            found, unmatched = find_listed(person, identifier, entries)
            parts.append(self.crosswalk.follow_columns(found, ["patient_id"]))
            missing = int(unmatched.select(pl.len()).collect().item())
            if missing:
                _log.warning("%s entries of a list of protected people fit no patient.", show_count(missing))
        return pl.concat(parts)

    def _raw_table(self, name: str, schema: Mapping[str, Any]) -> pl.LazyFrame:
        """Return a table of Patient with the ids that the records themselves have."""
        if self.run.work.size(_path(name, _PATIENT)) is None:
            return pl.LazyFrame(schema=schema)
        return read_table(_path(name, _PATIENT), self.run.work)


def _path(name: str, resource: str) -> str:
    return f"{EXCLUSIONS}/{name}/{resource}.parquet"


def _load_list(run: Run, place: ListPlace) -> tuple[bytes, str]:
    """Return a list's content and how to name it; where it is stays untold where a variable says it.

    Raises:
        ConfigurationError: The variable is not set, or there is no such file.
    """
    path = place.path
    if place.variable:
        path = run.deployment.variable(place.variable) or ""
        if not path:
            raise ConfigurationError(
                f"The variable '{place.variable}' is not set: it says where the list of protected people is.",
                remedy="Set it to a path below the raw zone or to a URI.",
            )
    named = f"variable '{place.variable}'" if place.variable else path
    if "://" in path or path.startswith("/"):
        folder, _, name = path.rpartition("/")
        content = open_store(folder, run.deployment, private=True).read(name) if name else None
    else:
        content = run.raw.read(path)
    if content is None:
        raise ConfigurationError(
            "The list of protected people is not there; without it nobody on it is protected.",
            place=named,
            remedy="Put the file there, or mend the path; nothing was published.",
        )
    return content, named


def digest_lists(run: Run) -> str:
    """Return a keyed digest of the lists: rows depend on them, and a plain one could be guessed at."""
    key = run.key.pseudonym_key("exclusion-lists").encode()
    contents = [_load_list(run, place)[0] for place in run.plan.exclusions.lists]
    return hmac.digest(key, b"\0".join(contents), "sha256").hex() if contents else ""
