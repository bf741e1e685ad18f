"""What each dataset of a workflow holds, column by column, from view to publication."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cohortflow.cohort.definition import SUBJECT_COLUMNS
from cohortflow.errors import StudyError
from cohortflow.fhir.views.analysis import AnalyzedView, analyze_view
from cohortflow.model.sql_query import SqlQuery
from cohortflow.quality.suite import BoundSuite, bind_suite, load_suite
from cohortflow.redaction.phi import classify_columns
from cohortflow.redaction.plan import RedactionPlan, plan_redaction
from cohortflow.terminology.mapping import CodeMapping, mapped_columns
from cohortflow.terminology.unit_mapping import UnitMapping
from cohortflow.workflow.code_maps import map_sources
from cohortflow.workflow.document import nearest
from cohortflow.workflow.unit_maps import extend_overrides, plan_units, unit_sources

if TYPE_CHECKING:
    from cohortflow.model import Catalog, Column
    from cohortflow.redaction.policy import RedactionPolicy
    from cohortflow.workflow.spec import WorkflowSpec

__all__ = ["COHORT_DATASET", "DatasetPlan", "plan_datasets", "views_to_read"]

COHORT_DATASET = "cohort"
"""The dataset with one row per subject: pseudonym, index date, age at the index date."""


@dataclass(frozen=True, slots=True)
class DatasetPlan:
    """One dataset through every step.

    Attributes:
        name: The view's or query's name, or ``cohort``.
        view: The analysed view; ``None`` for a query and the cohort.
        columns: Columns before redaction, with the mapped ones, each with its PHI class.
        mappings: Code mappings to apply.
        units: Values to bring into canonical units, after the code mappings.
        redaction: What happens to each column.
        suite: Expectations, bound to the columns of the redacted dataset.
        partition_by: Columns to partition by, after the data interval.
    """

    name: str
    view: AnalyzedView | None
    columns: tuple[Column, ...]
    mappings: tuple[CodeMapping, ...]
    units: tuple[UnitMapping, ...]
    redaction: RedactionPlan
    suite: BoundSuite
    partition_by: tuple[str, ...]

    @property
    def is_mapped(self) -> bool:
        """Whether it goes through the step that maps codes and units."""
        return bool(self.mappings or self.units)

    @property
    def output_columns(self) -> tuple[Column, ...]:
        """Columns of the published dataset, without the data interval."""
        return self.redaction.output_columns

    @property
    def time_column(self) -> str:
        """The column that the view tags with the role ``time``, empty where it has none."""
        tagged = (column.name for column in self.columns if column.tags.get("cohortflow/role") == "time")
        return next(tagged, "")


def views_to_read(spec: WorkflowSpec) -> tuple[str, ...]:
    """Return the views that are published or that the cohort looks into, sorted by name."""
    needed = set(spec.views)
    if spec.cohort is not None:
        needed.update(spec.cohort.views)
    return tuple(sorted(needed))


def plan_datasets(
    spec: WorkflowSpec, policy: RedactionPolicy, catalog: Catalog, place: str
) -> tuple[dict[str, DatasetPlan], dict[str, Any]]:
    """Plan all datasets of a workflow.

    Args:
        spec: The workflow.
        policy: The redaction policy.
        catalog: Where views, maps, value sets and suites are.
        place: The template's file, for messages.

    Returns:
        The datasets by name (views that only the cohort reads included), and every catalog entry that
        they rest on, for the plan's digest.
    """
    sources: dict[str, Any] = {}
    datasets: dict[str, DatasetPlan] = {}
    if spec.cohort is not None:
        for name in spec.cohort.value_sets:
            sources[f"valuesets/{name}"] = catalog.load("valuesets", name)
        datasets[COHORT_DATASET] = _plan(COHORT_DATASET, None, SUBJECT_COLUMNS, spec, policy, catalog, place)
    for name in views_to_read(spec):
        document = catalog.load("views", name)
        sources[f"views/{name}"] = document
        view = analyze_view(document)
        datasets[name] = _plan(name, view, view.columns, spec, policy, catalog, place)
    for name in spec.sql.queries if spec.sql else ():
        query = SqlQuery.load(catalog, name)
        sources[f"queries/{name}"] = query.model_dump(mode="json")
        columns = tuple(column.to_column() for column in query.columns)
        datasets[name] = _plan(name, None, columns, spec, policy, catalog, place)
    if any(dataset.units for dataset in datasets.values()):
        sources.update(unit_sources(catalog))
    for name, dataset in datasets.items():
        for mapping in dataset.mappings:
            sources.update(map_sources(catalog, mapping))
        _check_columns(name, dataset, place)
        suite = dataset.suite.suite
        sources[f"expectations/{suite.name}"] = suite.model_dump(mode="json")
    return datasets, sources


def _plan(
    name: str,
    view: AnalyzedView | None,
    columns: tuple[Column, ...],
    spec: WorkflowSpec,
    policy: RedactionPolicy,
    catalog: Catalog,
    place: str,
) -> DatasetPlan:
    mappings, units = spec.maps.get(name, ()), spec.units.get(name, ())
    added = tuple(column for mapping in mappings for column in mapped_columns(mapping))
    classified = classify_columns((*columns, *added))
    classified = (*classified, *classify_columns(plan_units(name, classified, units, place)))
    overrides = extend_overrides(spec.redaction.overrides.get(name, {}), units)
    redaction = plan_redaction(name, classified, policy, overrides)
    suite = load_suite(catalog, spec.quality.expectations.get(name, name))
    return DatasetPlan(
        name=name,
        view=view,
        columns=classified,
        mappings=mappings,
        units=units,
        redaction=redaction,
        suite=bind_suite(
            suite,
            (c.name for c in redaction.output_columns),
            known=redaction.known_columns,  # one suite serves every policy
        ),
        partition_by=spec.partition_by.get(name, ()),
    )


def _check_columns(name: str, dataset: DatasetPlan, place: str) -> None:
    before: Mapping[str, str] = {
        column: f"maps.{name}" for mapping in dataset.mappings for column in mapping.source_columns.values()
    }
    columns = [column.name for column in dataset.columns]
    for column, where in before.items():
        if column not in columns:
            raise StudyError(
                f"'{where}' reads the column '{column}', which '{name}' does not have.",
                place=place,
                remedy=nearest(column, columns, "column"),
            )
    published = [column.name for column in dataset.output_columns]
    for column in dataset.partition_by:
        if column not in published:
            raise StudyError(
                f"'partition_by.{name}' names '{column}', which the redacted dataset does not have.",
                place=place,
                remedy=nearest(column, published, "column"),
            )
