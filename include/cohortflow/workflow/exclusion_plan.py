"""Who and what a study leaves out: the strictest of what environment, template and study say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cohortflow.errors import StudyError
from cohortflow.redaction.exclusions import INLINE_LABEL, maskable_columns, spell_labels, subject_path
from cohortflow.terminology import ValueSet, load_value_set
from cohortflow.workflow.datasets import COHORT_DATASET

if TYPE_CHECKING:
    from cohortflow.model import Catalog
    from cohortflow.workflow.datasets import DatasetPlan
    from cohortflow.workflow.exclusion_spec import (
        ConsentMode,
        ExclusionsSpec,
        RecordAction,
        SubjectAction,
        WithoutConsents,
    )

__all__ = ["ExclusionPlan", "ListPlace", "PlannedLabels", "plan_exclusions"]

_STRICTNESS: Final = ("mask", "exclude_record", "exclude_patient")
_NOT_NULL: Final = "expect_column_values_to_not_be_null"


@dataclass(frozen=True, slots=True)
class ListPlace:
    """Where a list of patients is.

    Attributes:
        path: Below the raw zone, or a full URI; empty where a variable says it.
        variable: Airflow variable with the path; empty where ``path`` is given.
    """

    path: str = ""
    variable: str = ""


@dataclass(frozen=True, slots=True)
class PlannedLabels:
    """Labels and what becomes of records with one.

    Attributes:
        value_set: Name of the value set.
        title: Its title.
        action: What becomes of the records.
        codes: The labels in all spellings.
    """

    value_set: str
    title: str
    action: RecordAction
    codes: frozenset[str]

    @property
    def rule(self) -> str:
        """What tells the rule from others: the labels, and whether those of any record count."""
        return json.dumps(["labels", self.action == "exclude_patient", sorted(self.codes)])


@dataclass(frozen=True, slots=True)
class ExclusionPlan:
    """Who and what is left out of a study.

    Attributes:
        consent: How Consents count; ``None``: not at all.
        without_consents: What to do with an export without any.
        labels: Labels of records, the strictest first.
        lists: Lists of patients.
        vip_labels: Labels of patients in all spellings.
        vip_action: What becomes of patients on a list or with such a label; ``None``: there is no rule.
        minors_below: Completed years that others have at least; ``None``: age does not matter.
        minors_action: What becomes of those who are younger.
    """

    consent: ConsentMode | None = None
    without_consents: WithoutConsents = "stop"
    labels: tuple[PlannedLabels, ...] = ()
    lists: tuple[ListPlace, ...] = ()
    vip_labels: frozenset[str] = frozenset()
    vip_action: SubjectAction | None = None
    minors_below: int | None = None
    minors_action: SubjectAction = "exclude_patient"

    @property
    def patient_labels(self) -> tuple[PlannedLabels, ...]:
        """The labels of which one leaves the whole patient out."""
        return tuple(rule for rule in self.labels if rule.action == "exclude_patient")

    @property
    def record_labels(self) -> tuple[PlannedLabels, ...]:
        """The labels that concern the record alone, unless the record is the Patient."""
        return tuple(rule for rule in self.labels if rule.action != "exclude_patient")

    @property
    def concerns_patients(self) -> bool:
        """Whether patients may be left out or masked: a label may be that of a Patient."""
        return bool(
            self.consent or self.labels or self.vip_action is not None or self.minors_below is not None
        )

    @property
    def consent_rule(self) -> str:
        """What tells the rule for Consents from others; empty without one."""
        return json.dumps(["consent", self.consent]) if self.consent else ""

    @property
    def vip_rule(self) -> str:
        """What tells the rule for protected people from others; empty without one."""
        lists = [[place.path, place.variable] for place in self.lists]
        return json.dumps(["vip", sorted(self.vip_labels), lists]) if self.vip_action else ""

    @property
    def rules(self) -> tuple[str, ...]:
        """Those of which a later export may say more."""
        found = (self.consent_rule, self.vip_rule, *(rule.rule for rule in self.labels))
        return tuple(rule for rule in found if rule)

    @property
    def masks_patients(self) -> bool:
        """Whether a patient's rows may stay without what they say."""
        return (
            self.vip_action == "mask"
            or (self.minors_below is not None and self.minors_action == "mask")
            or any(rule.action == "mask" for rule in self.labels)
        )

    @property
    def resource_types(self) -> frozenset[str]:
        """Resource types to export for it."""
        return frozenset(
            (["Patient"] if self.concerns_patients else []) + (["Consent"] if self.consent else [])
        )

    def __bool__(self) -> bool:
        return self.concerns_patients

    def explain(self) -> list[tuple[str, str]]:
        """Return who or what is left out and how, for people who look at the plan of a study."""
        rows: list[tuple[str, str]] = []
        if self.consent:
            who = "who opted out by Consent" if self.consent == "opt_out" else "who did not opt in by Consent"
            rows.append((who, "exclude_patient"))
        if self.vip_action:
            rows.append((f"people on {len(self.lists)} lists, or marked as protected", self.vip_action))
        if self.minors_below is not None:
            rows.append((f"people younger than {self.minors_below} or of unknown age", self.minors_action))
        return rows + [(f"records labelled: {rule.title}", rule.action) for rule in self.labels]

    def describe(self) -> dict[str, Any]:
        """Return a JSON-ready form for release documents; where lists are is not told."""
        return {
            "consent": self.consent,
            "without_consents": self.without_consents if self.consent else None,
            "labels": [{"value_set": rule.value_set, "action": rule.action} for rule in self.labels],
            "vip": None if self.vip_action is None else {"lists": len(self.lists), "action": self.vip_action},
            "minors": None
            if self.minors_below is None
            else {"below": self.minors_below, "action": self.minors_action},
        }


def plan_exclusions(
    specs: Iterable[ExclusionsSpec], datasets: Mapping[str, DatasetPlan], catalog: Catalog, place: str
) -> tuple[ExclusionPlan, dict[str, Any]]:
    """Plan what is left out.

    Args:
        specs: What environment, template and study say: all of it holds, and of two actions the stricter.
        datasets: The datasets.
        catalog: Where value sets are.
        place: The template's file, for messages.

    Returns:
        The plan, and the catalog's entries that it rests on, for the plan's digest.

    Raises:
        CatalogError: A value set is missing or malformed.
        StudyError: A value set does not list its codes, a dataset does not say whose its rows are, or masking
            would empty a column that must be full.
    """
    specs = tuple(specs)
    sources: dict[str, Any] = {}

    def read(name: str) -> tuple[str, frozenset[str]]:
        sources[f"valuesets/{name}"] = catalog.load("valuesets", name)
        value_set = load_value_set(catalog, name)
        return value_set.title or name, spell_labels(_list_codes(value_set, place))

    def read_labels(name: str) -> tuple[str, frozenset[str]]:
        title, codes = read(name)
        return title, codes | spell_labels([INLINE_LABEL])

    actions: dict[str, RecordAction] = {}
    for rule in (rule for spec in specs for rule in spec.labels):
        known = actions.get(rule.value_set, rule.action)
        actions[rule.value_set] = max(known, rule.action, key=_STRICTNESS.index)
    ordered = sorted(actions.items(), key=lambda item: -_STRICTNESS.index(item[1]))
    labels = tuple(PlannedLabels(name, *_titled(read_labels(name), action)) for name, action in ordered)
    vips = [spec.vip for spec in specs if spec.vip is not None]
    minors = [spec.minors for spec in specs if spec.minors is not None]
    lists = [ListPlace(vip.list or "", vip.variable or "") for vip in vips if vip.list or vip.variable]
    plan = ExclusionPlan(
        consent=max((spec.consent for spec in specs if spec.consent), key=_CONSENT.index, default=None),
        without_consents=(
            "stop" if any(one.consent and one.without_consents == "stop" for one in specs) else "publish"
        ),
        labels=labels,
        lists=tuple(dict.fromkeys(lists)),
        vip_labels=frozenset().union(*(read(vip.labels)[1] for vip in vips if vip.labels)),
        vip_action=max((vip.action for vip in vips), key=_STRICTNESS.index, default=None),
        minors_below=max((rule.below for rule in minors), default=None),
        minors_action=max((rule.action for rule in minors), key=_STRICTNESS.index, default="exclude_patient"),
    )
    if plan.concerns_patients:
        _check_subjects(datasets, place)
    _check_masking(plan, datasets, place)
    return plan, sources


_CONSENT: Final = ("opt_out", "opt_in")


def _titled(
    titled: tuple[str, frozenset[str]], action: RecordAction
) -> tuple[str, RecordAction, frozenset[str]]:
    title, codes = titled
    return title, action, codes


def _list_codes(value_set: ValueSet, place: str) -> list[tuple[str, str]]:
    """Return the codings that a value set lists, with those of sets that it includes."""
    found: list[tuple[str, str]] = []
    for part in value_set.include:
        plain = part.system is None or part.codes is not None
        if value_set.exclude or part.patterns or not plain or (part.codes is not None and part.sets):
            raise StudyError(
                f"The value set '{value_set.name}' does not list its codes.",
                place=place,
                remedy="Labels are compared one by one: list them, without filters and without exclude.",
            )
        found += [(part.system or "", code) for code in sorted(part.codes or ())]
        for inner in part.sets:
            found += _list_codes(inner, place)
    return found


def _check_subjects(datasets: Mapping[str, DatasetPlan], place: str) -> None:
    """Refuse datasets from which nobody could take a patient's rows out.

    Raises:
        StudyError: There is one.
    """
    for name, dataset in datasets.items():
        subject = dataset.redaction.subject
        if dataset.view is not None:
            names_patients = any(column.target == "Patient" for column in dataset.columns)
            untold = not subject and (names_patients or bool(subject_path(dataset.view.resource)))
        else:
            untold = not any(
                column.name == subject and column.target == "Patient" for column in dataset.columns
            )
        if untold and name != COHORT_DATASET:
            raise StudyError(
                f"'{name}' does not say whose its rows are, and 'exclusions' leaves patients out.",
                place=place,
                remedy="Give it a column with the Patient's id and the role 'subject'.",
            )


def _check_masking(plan: ExclusionPlan, datasets: Mapping[str, DatasetPlan], place: str) -> None:
    """Refuse to mask what the validation would then refuse, so that a study fails before it begins.

    Raises:
        StudyError: An expectation demands values that masking takes away.
    """
    masks_records = any(rule.action == "mask" for rule in plan.record_labels)
    for name, dataset in datasets.items():
        concerned = (masks_records and dataset.view is not None) or (
            plan.masks_patients and dataset.redaction.subject
        )
        if not concerned:
            continue
        masked = set(maskable_columns(dataset.columns))
        demanded = {
            str(one.kwargs.get("column"))
            for one in dataset.suite.suite.expectations
            if one.type == _NOT_NULL
            and str(one.severity) == "critical"
            and not one.kwargs.get("row_condition")
        }
        if both := sorted(masked & demanded):
            raise StudyError(
                f"'exclusions' masks '{name}.{both[0]}', of which a critical expectation demands a value.",
                place=place,
                remedy="Use 'exclude_record' or 'exclude_patient', or lower the expectation's severity.",
            )
