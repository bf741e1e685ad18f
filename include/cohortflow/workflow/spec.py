"""What a template describes once its parameters are filled in."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cohortflow.cohort.definition import CohortDefinition
from cohortflow.redaction.actions import Override
from cohortflow.redaction.policy import PolicySettings
from cohortflow.terminology.mapping import CodeMapping
from cohortflow.terminology.unit_mapping import UnitMapping
from cohortflow.workflow.document import StrictModel
from cohortflow.workflow.exclusion_spec import ExclusionsSpec

__all__ = [
    "IncrementalSpec",
    "QualitySpec",
    "RedactionSpec",
    "RiskSpec",
    "SourceSpec",
    "SqlSpec",
    "WorkflowSpec",
]


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
        settings: What the study sets of it, where it may.
        overrides: Per view and column: another action, with its written reason.
    """

    policy: str | None = None
    settings: PolicySettings = PolicySettings()
    overrides: dict[str, dict[str, Override]] = Field(default_factory=dict)


class QualitySpec(StrictModel):
    """When data are good enough.

    Attributes:
        max_malformed: Largest allowed share of malformed records, per resource type.
        expectations: Expectation suite per view; by default the one of the view's name.
    """

    max_malformed: Annotated[float, Field(ge=0, le=1)] = 0.001
    expectations: dict[str, str] = Field(default_factory=dict)


class RiskSpec(StrictModel):
    """How far subjects must be alike before they are published; see ``cohortflow.redaction.risk``.

    Attributes:
        quasi_identifiers: What others may know of a subject, as ``dataset.column`` with the column's name
            before redaction, or ``dataset`` for the number of rows; the most important to keep first.
            Where ``None``: every published column of the patients and the cohort that is a
            quasi-identifier, a date, an age or a place.
        excluded: Such columns that others do not know, each with the written reason.
        sensitive: What others must not learn, named in the same way.
        k: Least number of subjects who share their quasi-identifiers, if the environment asks for no more.
        l: Least diversity of each sensitive column among them.
        diversity: How it is measured.
        c: The c of recursive (c, l)-diversity.
        t: Greatest distance of a sensitive column's distribution among them from that of all subjects.
        on_failure: What happens where this is missed: the step fails, or what is missed is suppressed.
        suppress: Whether values are set to null before subjects are left out, or subjects are left out at
            once.
        population: Population table of the catalog, for the risk that somebody of it is recognised.
    """

    quasi_identifiers: tuple[str, ...] | None = None
    excluded: dict[str, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)
    sensitive: tuple[str, ...] = ()
    k: Annotated[int, Field(ge=1, le=100_000)] = 1
    l: Annotated[float, Field(ge=1)] | None = None  # noqa: E741 - the name that the literature gives it
    diversity: Literal["distinct", "entropy", "recursive"] = "distinct"
    c: Annotated[float, Field(gt=0)] = 3.0
    t: Annotated[float, Field(ge=0, le=1)] | None = None
    on_failure: Literal["fail", "suppress"] = "fail"
    suppress: Literal["values", "rows"] = "values"
    population: str | None = None

    @model_validator(mode="after")
    def _check_sensitive(self) -> Self:
        if (self.l is not None or self.t is not None) and not self.sensitive:
            raise ValueError("'l' and 't' need 'sensitive' columns")
        return self


class WorkflowSpec(StrictModel):
    """One research workflow.

    Attributes:
        source: Where patients come from.
        views: ViewDefinitions of the catalog; each becomes a dataset.
        sql: What comes from a reporting database; nothing where ``None``.
        cohort: Who is kept; everybody where ``None``.
        maps: Per view, the code mappings to apply.
        units: Per view, the values to bring into the canonical unit of their code.
        redaction: How datasets are de-identified.
        exclusions: Who and what is left out, besides what the environment and the study ask for.
        risk: How far subjects must be alike; measured and reported in any case.
        quality: When they are good enough.
        partition_by: Per view, the columns to partition its dataset by, after the data interval.
    """

    source: SourceSpec
    views: Annotated[tuple[str, ...], Field(min_length=1)]
    sql: SqlSpec | None = None
    cohort: CohortDefinition | None = None
    maps: dict[str, tuple[CodeMapping, ...]] = Field(default_factory=dict)
    units: dict[str, tuple[UnitMapping, ...]] = Field(default_factory=dict)
    redaction: RedactionSpec = RedactionSpec()
    exclusions: ExclusionsSpec = ExclusionsSpec()
    risk: RiskSpec = RiskSpec()
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
