"""What a template describes once its parameters are filled in."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cohortflow.cohort.definition import CohortDefinition
from cohortflow.redaction.policy import Override
from cohortflow.terminology.mapping import CodeMapping
from cohortflow.workflow.document import StrictModel

__all__ = ["QualitySpec", "RedactionSpec", "SourceSpec", "WorkflowSpec"]


class SourceSpec(StrictModel):
    """Where patients come from.

    Attributes:
        connection: Airflow connection of type ``fhir``.
        level: Bulk Data export level.
        group: Group id, for level ``group``.
        resource_types: Types to export besides those that the views read.
        type_filters: ``_typeFilter`` queries.
        pool: Airflow pool that throttles the exports of one source.
        max_wait_hours: How long an export may take.
    """

    connection: str
    level: Literal["system", "patient", "group"] = "group"
    group: str | None = None
    resource_types: tuple[str, ...] = ()
    type_filters: tuple[str, ...] = ()
    pool: str = "cohortflow_exports"
    max_wait_hours: Annotated[float, Field(gt=0)] = 24.0

    @model_validator(mode="after")
    def _check_group(self) -> Self:
        if (self.level == "group") != bool(self.group):
            raise ValueError("'group' is needed for level 'group', and only there")
        return self


class RedactionSpec(StrictModel):
    """How the study's datasets are de-identified.

    Attributes:
        policy: A policy that the environment allows; its own default where ``None``.
        overrides: Per view and column: another action, with its written reason.
    """

    policy: str | None = None
    overrides: dict[str, dict[str, Override]] = Field(default_factory=dict)


class QualitySpec(StrictModel):
    """When data are good enough.

    Attributes:
        max_malformed: Largest allowed share of malformed records, per resource type.
        expectations: Expectation suite per view; by default the one of the view's name.
    """

    max_malformed: Annotated[float, Field(ge=0, le=1)] = 0.001
    expectations: dict[str, str] = Field(default_factory=dict)


class WorkflowSpec(StrictModel):
    """One research workflow.

    Attributes:
        source: Where patients come from.
        views: ViewDefinitions of the catalog; each becomes a dataset.
        cohort: Who is kept; everybody where ``None``.
        maps: Per view, the code mappings to apply.
        redaction: How datasets are de-identified.
        quality: When they are good enough.
        partition_by: Per view, the columns to partition its dataset by, after the data interval.
    """

    source: SourceSpec
    views: Annotated[tuple[str, ...], Field(min_length=1)]
    cohort: CohortDefinition | None = None
    maps: dict[str, tuple[CodeMapping, ...]] = Field(default_factory=dict)
    redaction: RedactionSpec = RedactionSpec()
    quality: QualitySpec = QualitySpec()
    partition_by: dict[str, tuple[str, ...]] = Field(default_factory=dict)
