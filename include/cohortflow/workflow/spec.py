"""What a template describes once its parameters are filled in."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cohortflow.cohort.definition import CohortDefinition
from cohortflow.redaction.policy import Override
from cohortflow.terminology.mapping import CodeMapping
from cohortflow.workflow.document import StrictModel

__all__ = ["IncrementalSpec", "QualitySpec", "RedactionSpec", "SourceSpec", "SqlSpec", "WorkflowSpec"]


class IncrementalSpec(StrictModel):
    """Exports of what changed since the last one.

    Attributes:
        full_every: Days after which everything is exported again; ``None``: every time.
    """

    full_every: Annotated[float, Field(gt=0, le=3650)] | None = None


class SourceSpec(StrictModel):
    """Where patients come from.

    Attributes:
        connection: Airflow connection of type ``fhir``, ``epic`` or ``cerner``.
        level: Bulk Data export level.
        group: Group id, for level ``group``.
        resource_types: Types to export besides those that the views read.
        type_filters: ``_typeFilter`` queries.
        mode: ``bulk`` export; ``crawl``: search per patient; ``search``: search per type, for level
            ``system``; ``auto``: what the server offers.
        incremental: Export only what changed since the last complete export; ``None``: everything.
        pool: Airflow pool that throttles the exports; the environment's where ``None``.
        references: Whether what the resources refer to is fetched where it is not among them: members of
            panels, medications, staff. ``auto``: from servers that are known to leave it out.
        attachments: MIME types of documents, such as ``text/plain``, whose content is fetched.
        max_wait_hours: How long an export may take, and how long the server may put one off; as long as
            the connection's profile says where ``None``.
        cancel_on_kill: When an unfinished export is cancelled on the server: ``user``, as soon as
            someone marks or clears the waiting task in Airflow; ``always``, also when a worker is told
            to stop, which happens when it is restarted too; ``never``.
    """

    connection: str
    level: Literal["system", "patient", "group"] = "group"
    group: str | None = None
    resource_types: tuple[str, ...] = ()
    type_filters: tuple[str, ...] = ()
    mode: Literal["bulk", "crawl", "search", "auto"] = "bulk"
    incremental: IncrementalSpec | None = None
    references: Literal["auto", "always", "never"] = "auto"
    attachments: tuple[str, ...] = ()
    pool: str | None = None
    max_wait_hours: Annotated[float, Field(gt=0)] | None = None
    cancel_on_kill: Literal["user", "always", "never"] = "user"

    @model_validator(mode="after")
    def _check_group(self) -> Self:
        if (self.level == "group") != bool(self.group):
            raise ValueError("'group' is needed for level 'group', and only there")
        if self.mode == "search" and self.group:
            raise ValueError("mode 'search' reads whole types: use 'crawl' for a group, or level 'system'")
        return self


class SqlSpec(StrictModel):
    """What comes from a reporting database beside the source.

    Attributes:
        connection: Airflow connection of type ``postgres`` or ``mssql``.
        queries: Queries of the catalog; each becomes a dataset.
        pool: Airflow pool that throttles the extraction; the environment's where ``None``.
        page_rows: Rows that are read at once.
    """

    connection: str
    queries: Annotated[tuple[str, ...], Field(min_length=1)]
    pool: str | None = None
    page_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 100_000


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
        sql: What comes from a reporting database; nothing where ``None``.
        cohort: Who is kept; everybody where ``None``.
        maps: Per view, the code mappings to apply.
        redaction: How datasets are de-identified.
        quality: When they are good enough.
        partition_by: Per view, the columns to partition its dataset by, after the data interval.
    """

    source: SourceSpec
    views: Annotated[tuple[str, ...], Field(min_length=1)]
    sql: SqlSpec | None = None
    cohort: CohortDefinition | None = None
    maps: dict[str, tuple[CodeMapping, ...]] = Field(default_factory=dict)
    redaction: RedactionSpec = RedactionSpec()
    quality: QualitySpec = QualitySpec()
    partition_by: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets, but for the cohort's own."""
        return self.views if self.sql is None else (*self.views, *self.sql.queries)

    @model_validator(mode="after")
    def _check_queries(self) -> Self:
        if both := set(self.views) & set(self.sql.queries if self.sql else ()):
            raise ValueError(f"'{min(both)}' names a view and a query: rename the query")
        return self
