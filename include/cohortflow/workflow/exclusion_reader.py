"""Reads what the exclusions of a run go by: Consents, labels, lists, birth dates."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cohortflow.engine import plan_write, read_table
from cohortflow.errors import ConfigurationError, MalformedDataError
from cohortflow.fhir.snapshot import hide_subjects
from cohortflow.fhir.views import compile_view
from cohortflow.redaction.exclusions import (
    CONSENT_VIEW,
    ENCOUNTERS,
    IDENTIFIER_VIEW,
    LABELS,
    PERSON_VIEW,
    UNCLEAR,
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
from cohortflow.workflow.exclusion_lists import load_list
from cohortflow.workflow.exclusion_record import find_excluded_later

if TYPE_CHECKING:
    from datetime import datetime

    from cohortflow.fhir.snapshot import Snapshot
    from cohortflow.fhir.views import CompiledView
    from cohortflow.redaction.crosswalk import Crosswalk
    from cohortflow.workflow.exclusion_plan import ExclusionPlan
    from cohortflow.workflow.export_plan import Extraction
    from cohortflow.workflow.run import Run

__all__ = ["EXCLUSIONS", "ExclusionReader"]

_log = logging.getLogger(__name__)

EXCLUSIONS: Final = "exclusions"
"""Folder in the work zone."""

_PATIENT, _CONSENT, _ENCOUNTER = "Patient", "Consent", "Encounter"
_RECORD_SCHEMA: Final = pl.Schema(
    {
        "record_id": pl.String(),
        "patient_id": pl.String(),
        UNCLEAR: pl.Boolean(),
        LABELS: pl.List(pl.String()),
        ENCOUNTERS: pl.List(pl.String()),
    }
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
        consents: What came of Consent in the newest export, as ``CoverageRow.status`` has it; empty where the
            export does not say.
    """

    run: Run
    snapshot: Snapshot
    crosswalk: Crosswalk
    resources: frozenset[str]
    consents: str = ""
    _read: set[str] = field(default_factory=set)
    _unreadable: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of_chain(
        cls, run: Run, chain: Sequence[Extraction], snapshot: Snapshot, crosswalk: Crosswalk
    ) -> ExclusionReader:
        """Return the reader of a chain of exports."""
        resources = frozenset(resource for extraction in chain for resource in extraction.result.files)
        status = {row.type: row.status for row in chain[-1].result.coverage}
        return cls(run, snapshot, crosswalk, resources, status.get(_CONSENT, ""))

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
                wanted = has_label(pl.col(LABELS), known.union(*(r.codes for r in self.plan.labels)))
                if resource == _ENCOUNTER:  # it may be a part of a labelled one
                    wanted |= pl.col(ENCOUNTERS).list.len() > 0
                kept = frame.filter(wanted)
            written.append(plan_write(kept, _path(name, resource), self.run.work))
        return written

    def read(self, resource: str) -> None:
        """Read a resource type for its exclusions alone, unless that is done."""
        views = self.views(resource)
        if resource in self._read or resource not in self.resources or not views:
            return
        names = [view.name for view in views]
        done = self.snapshot.execute(
            views, lambda frames: self.plans(resource, {name: frames[name] for name in names})
        )
        self.note_unreadable(resource, done.unreadable)

    def note_unreadable(self, resource: str, count: int) -> None:
        """Remember how many resources of a type cannot be read; see ``SnapshotRead.unreadable``."""
        self._unreadable[resource] = count

    def check_readable(self) -> None:
        """Refuse to go on where a resource that cannot be read could leave somebody out.

        Raises:
            MalformedDataError: A Consent cannot be read, or a record whose label may leave its patient out.
        """
        if self.plan.consent and (count := self._unreadable.get(_CONSENT)):
            raise MalformedDataError(
                f"{count} Consent lines are malformed, and each may be a denial.",
                place=f"_quarantine/{_CONSENT}.parquet beside the export",
                remedy="Ask the source's operator to mend them, and export again.",
            )
        if not self.plan.patient_labels:
            return
        # Of a Patient that cannot be read no rows are published anyway.
        bad = {
            name: count
            for name, count in sorted(self._unreadable.items())
            if count and name != _PATIENT and subject_path(name)
        }
        if bad:
            raise MalformedDataError(
                f"{sum(bad.values())} lines are malformed; any may bear a label that leaves its patient out.",
                place=", ".join(bad),
                remedy="Ask the source's operator to mend them and export again, or use 'exclude_record'.",
            )

    def read_labelled(self) -> None:
        """Read what no view reads: where a label of any record counts for its patient, or of an encounter."""
        if self.plan.record_labels:
            self.read(_ENCOUNTER)
        if self.plan.patient_labels:
            for resource in sorted(self.resources - self._read):
                if subject_path(resource):
                    self.read(resource)

    def known(self) -> pl.LazyFrame:
        """Return ``patient_id`` of every patient, merged records and deleted ones left out."""
        return self._people().select("patient_id").unique()

    def reasons(self, begin: datetime, end: datetime, *, age: bool = True) -> list[Reason]:
        """Return the reasons, in the order in which they count; they hold for all records of a person.

        Args:
            begin: First moment at which Consents count.
            end: Last moment.
            age: Whether minors are among them.

        Raises:
            MalformedDataError: Somebody is to be left out, and nobody can tell who.
            ConfigurationError: A list is missing, or the export holds no Consent.
        """
        for resource in (_PATIENT, _CONSENT):
            self.read(resource)
        self.check_readable()
        found = []
        if self.plan.consent:
            found.append(self._consents(begin, end))
        if self.plan.vip_action:
            text = "On a list of protected people, or marked as one of them"
            masks = self.plan.vip_action == "mask"
            found.append(Reason(text, self._listed(), masks=masks, rule=self.plan.vip_rule))
        for rule in self.plan.labels:
            records = self.records() if rule.action == "exclude_patient" else self._labels(_PATIENT)
            labelled = records.filter(has_label(pl.col(LABELS), rule.codes))
            which = "With a record labelled" if rule.action == "exclude_patient" else "Labelled themselves"
            self._check_subjects(labelled)
            patients = labelled.select("patient_id")
            masks = rule.action == "mask"
            found.append(Reason(f"{which}: {rule.title}", patients, masks=masks, rule=rule.rule))
        if age and self.plan.minors_below is not None:
            text = (
                f"Younger than {self.plan.minors_below} at the interval's end or at death, or of unknown age"
            )
            day = self.run.interval.end.date()
            minors = find_minors(self._people(), below=self.plan.minors_below, on=day)
            found.append(Reason(text, minors, masks=self.plan.minors_action == "mask"))
        return [replace(reason, patients=self._spread(reason)) for reason in found]

    def _spread(self, reason: Reason) -> pl.LazyFrame:
        """Return whom a reason holds for, with those of later exports and all records of each person."""
        patients = reason.patients.select("patient_id")
        if reason.rule:
            later = find_excluded_later(self.run, reason.rule, self.snapshot.transaction_time)
            patients = pl.concat([patients, self.crosswalk.follow_columns(later.lazy(), ["patient_id"])])
        return self.crosswalk.add_same_people(patients)

    def records(self) -> pl.LazyFrame:
        """Return the labelled records of all resource types: ``resource, record_id, patient_id, LABELS``."""
        return pl.concat(
            [self._labels(resource) for resource in sorted(self._read)]
            or [pl.LazyFrame(schema={"resource": pl.String(), **_RECORD_SCHEMA})]
        )

    def encounters(self) -> pl.DataFrame:
        """Return the encounters whose label concerns what belongs to them: ``encounter_id, excluded``.

        Those that are a part of a labelled one are among them. ``excluded`` is false where rows are masked.
        """
        rules = self.plan.record_labels
        records = self._labels(_ENCOUNTER).select(
            pl.col("record_id").alias("encounter_id"),
            pl.col(ENCOUNTERS),
            *(has_label(pl.col(LABELS), rule.codes).alias(f"@{number}") for number, rule in enumerate(rules)),
        )
        found = records.collect(engine="streaming")
        flags = {number: rule.action == "exclude_record" for number, rule in enumerate(rules)}
        excluded = pl.any_horizontal(
            pl.lit(value=False), *(f"@{number}" for number, one in flags.items() if one)
        )
        labelled = found.filter(pl.any_horizontal(f"@{number}" for number in flags))
        chosen = labelled.select("encounter_id", excluded.alias("excluded"))
        parts = found.explode(ENCOUNTERS, empty_as_null=True).drop_nulls(ENCOUNTERS)
        parts = parts.select("encounter_id", ENCOUNTERS)
        while True:
            inner = parts.join(chosen, left_on=ENCOUNTERS, right_on="encounter_id")
            more = pl.concat([chosen, inner.select("encounter_id", "excluded")])
            more = more.group_by("encounter_id").agg(pl.col("excluded").any()).sort("encounter_id")
            if more.equals(chosen):
                return chosen
            chosen = more

    def _labels(self, resource: str) -> pl.LazyFrame:
        return self._table("exclusions_labels", resource, _RECORD_SCHEMA).select(
            pl.lit(resource).alias("resource"), *_RECORD_SCHEMA.names()
        )

    def _check_subjects(self, labelled: pl.LazyFrame) -> None:
        unclear = labelled.filter(pl.col("patient_id").is_null() & pl.col(UNCLEAR))
        count = int(unclear.select(pl.len()).collect().item())
        if count:
            raise MalformedDataError(
                f"{show_count(count)} records with a label that leaves their patient out do not refer to a "
                "Patient by its id.",
                place="the export's files",
                remedy="Ask the source's operator for references, or use 'exclude_record'.",
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
        people = self._raw_table("exclusions_person", compile_view(PERSON_VIEW).schema)
        # Of a merged patient the record that is left says how old.
        people = self.crosswalk.leave_out_merged(people, "patient_id")
        return hide_subjects(people, "patient_id", self.snapshot.hidden_patients)

    def _consents(self, begin: datetime, end: datetime) -> Reason:
        if self.consents in ("partial", "refused"):
            raise MalformedDataError(
                f"The export of Consent is {self.consents}: each one that is missing may be a denial.",
                place=self.run.plan.spec.source.connection,
                remedy="'_coverage.json' beside the export says why; export again once that is mended.",
            )
        missing = _CONSENT not in self.resources or self.consents == "unavailable"
        if missing and self.plan.without_consents == "stop":
            raise ConfigurationError(
                "The export holds no Consent: nobody has any, or the server exports none.",
                place=self.run.plan.spec.source.connection,
                remedy="Have the server export Consent; where the site keeps none, say 'without_consents: "
                "publish' wherever 'consent' is asked for.",
            )
        consents = self._table("exclusions_consent", _CONSENT, compile_view(CONSENT_VIEW).schema)
        decisions = decide_consents(consents, begin=begin, end=end)
        self._check_attribution(decisions)
        latest = latest_decisions(decisions)
        denied = latest.filter(~pl.col("permits")).select("patient_id")
        if self.plan.consent == "opt_out":
            self._check_reach(denied)
            return Reason("Opted out of research by Consent", denied, rule=self.plan.consent_rule)
        permitted = latest.filter("permits")
        unknown = self.known().join(permitted, on="patient_id", how="anti")
        # Who is unknown may be the same person as somebody who has opted in: a permission does not spread.
        excluded = pl.concat([unknown, denied])
        return Reason("No Consent that permits research", excluded, rule=self.plan.consent_rule)

    def _check_reach(self, denied: pl.LazyFrame) -> None:
        """Look whether denials reach anybody: if none does, ids of Consents are not those of Patients."""
        gone = self.snapshot.hidden_patients.lazy().select(patient_id="id")
        there = pl.concat([self.known(), gone]).with_columns(pl.lit(value=True).alias("known"))
        reached = denied.join(there.unique(), on="patient_id", how="left").select(
            pl.col("known").is_not_null()
        )
        counts = dict(reached.collect().to_series().value_counts().iter_rows())
        if not (missed := counts.get(False, 0)):
            return
        if not counts.get(True):
            raise MalformedDataError(
                f"No patient of the export has the id that Consents name: {show_count(missed)} denials of "
                "research reach nobody.",
                place="the export's Consent files",
                remedy="Ask the source's operator whether they refer to the ids that its Patients have.",
            )
        _log.warning(
            "%s denials of research are of patients whom the export does not hold.", show_count(missed)
        )

    def _check_attribution(self, decisions: pl.LazyFrame) -> None:
        # An id holds no blank: with one at its end it is that of nobody.
        is_id = ~pl.col("patient_id").str.contains(r"\s").fill_null(value=True)
        nobody = decisions.filter(~is_id & ~pl.col("permits"))
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
            content, named = load_list(self.run, place)
            entries = parse_list(content, place=named)
            person = self._raw_table("exclusions_person", {"patient_id": pl.String()})
            identifier = self._raw_table("exclusions_identifier", _IDENTIFIER_SCHEMA)
            found, unmatched = find_listed(person, identifier, entries)
            # An id leaves its patient out also where there is no Patient any more: rows published before go.
            ids = entries.lazy().filter(pl.col("system").is_null()).select(patient_id="value")
            found = pl.concat([found, ids])
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
