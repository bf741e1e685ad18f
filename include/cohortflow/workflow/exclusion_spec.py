"""What studies and environments say of who and what is left out."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cohortflow.workflow.document import StrictModel

__all__ = [
    "ConsentMode",
    "ExclusionsSpec",
    "LabelRule",
    "MinorsRule",
    "RecordAction",
    "SubjectAction",
    "VipRule",
    "WithoutConsents",
]

ConsentMode = Literal["opt_out", "opt_in"]
WithoutConsents = Literal["stop", "publish"]
SubjectAction = Literal["exclude_patient", "mask"]
RecordAction = Literal["exclude_patient", "exclude_record", "mask"]


class LabelRule(StrictModel):
    """What becomes of records with a security label.

    The label of a Patient concerns the patient, so that ``exclude_record`` and ``mask`` hold for all rows.

    Attributes:
        value_set: Value set of the catalog that lists the labels.
        action: Leave the patient out, leave the record out, or keep its row without what it says.
    """

    value_set: str
    action: RecordAction = "exclude_record"


class VipRule(StrictModel):
    """Patients who are left out by name.

    Attributes:
        list: File with an id or identifier a line: below the raw zone, or a full URI.
        variable: Airflow variable with such a path, instead of ``list``.
        labels: Value set of labels of ``Patient.meta.security`` that mark such a patient, too.
        action: Leave the patient out, or keep the rows without what they say.
    """

    list: Annotated[str, Field(min_length=1)] | None = None
    variable: Annotated[str, Field(min_length=1)] | None = None
    labels: str | None = "sensitivity_vip"
    action: SubjectAction = "exclude_patient"

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.list is not None and self.variable is not None:
            raise ValueError("give the path in 'list' or in a 'variable', not in both")
        if self.list is None and self.variable is None and self.labels is None:
            raise ValueError("a 'list', a 'variable' or 'labels' is needed")
        if self.list is not None and ".." in self.list.split("/"):
            raise ValueError("'list' must not lead out of its folder")
        return self


class MinorsRule(StrictModel):
    """Patients who are left out for their age at the end of the data interval.

    Attributes:
        below: Completed years that others have at least.
        action: Leave the patient out, or keep the rows without what they say.
    """

    below: Annotated[int, Field(ge=1, le=120)] = 18
    action: SubjectAction = "exclude_patient"


class ExclusionsSpec(StrictModel):
    """Who and what is left out.

    Attributes:
        consent: ``opt_out``: patients whose latest Consent denies research; ``opt_in``: all but those whose
            latest Consent permits it; ``None``: Consents are not looked at.
        without_consents: What to do with an export that holds no Consent at all. ``stop``: publish nothing,
            since nobody can tell a server that exports none from one where nobody has any; ``publish``: the
            site keeps no Consents.
        labels: Records with security labels, or their patients; the first rule that fits a record counts.
        vip: Patients on a list, or marked as such.
        minors: Patients below an age, or of unknown age.
    """

    consent: ConsentMode | None = None
    without_consents: WithoutConsents = "stop"
    labels: tuple[LabelRule, ...] = ()
    vip: VipRule | None = None
    minors: MinorsRule | None = None
