"""What others may know of the subjects of a study, decided before any data are read."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cohortflow.errors import StudyError
from cohortflow.model import PhiClass
from cohortflow.redaction import Action
from cohortflow.redaction.risk import RiskDemand, SubjectColumn
from cohortflow.workflow.datasets import COHORT_DATASET
from cohortflow.workflow.document import Document, StrictModel, nearest

if TYPE_CHECKING:
    from cohortflow.model import Catalog
    from cohortflow.redaction.plan import ColumnRedaction
    from cohortflow.redaction.risk import Precision
    from cohortflow.workflow.datasets import DatasetPlan
    from cohortflow.workflow.environment import Environment
    from cohortflow.workflow.spec import RiskSpec

__all__ = ["PopulationTable", "RiskPlan", "plan_risk", "published_subject"]

_KNOWABLE: Final = frozenset({PhiClass.QUASI_IDENTIFIER, PhiClass.DATE, PhiClass.AGE, PhiClass.GEOGRAPHIC})
_YEAR_DAYS: Final = 183  # a shift of so many days either way hides the day and the month
_MONTH_DAYS: Final = 16


class PopulationTable(StrictModel):
    """An entry of the catalog's populations.

    Attributes:
        population: Its name.
        title: One line: who is counted.
        source: Where the counts are from.
        counts: CSV file beside the entry: columns named like quasi-identifiers, and ``count``.
    """

    population: str
    title: str
    source: str
    counts: str


@dataclass(frozen=True, slots=True)
class RiskPlan:
    """How the risk of a study is assessed.

    Attributes:
        quasi_identifiers: What others may know, the most important to keep first.
        suppressible: Names of those whose values may be set to null; the others are of events, of which
            there may be several per subject.
        sensitive: What they must not learn.
        excluded: Published columns that they do not know, by name, with the study's reason.
        unpublished: Declared columns that are not published.
        demand: What must be met.
        suppress: Whether what is missed is suppressed; otherwise the step fails.
        population: CSV file of the population table, where the study names one.
        population_name: Its name.
    """

    quasi_identifiers: tuple[SubjectColumn, ...]
    suppressible: tuple[str, ...]
    sensitive: tuple[SubjectColumn, ...]
    excluded: Mapping[str, str]
    unpublished: tuple[str, ...]
    demand: RiskDemand
    suppress: bool
    population: Path | None = None
    population_name: str = ""

    @property
    def columns(self) -> tuple[SubjectColumn, ...]:
        """Everything that is gathered per subject."""
        return (*self.quasi_identifiers, *self.sensitive)

    def describe(self) -> dict[str, Any]:
        """Return a JSON-ready form for people who look at the plan of a study."""
        return {
            "demand": self.demand.describe(),
            "on_failure": "suppress" if self.suppress else "fail",
            "quasi_identifiers": [
                {
                    "column": column.name,
                    "compared": column.compared,
                    "suppressible": column.name in self.suppressible,
                }
                for column in self.quasi_identifiers
            ],
            "sensitive": [column.name for column in self.sensitive],
            "excluded": dict(self.excluded),
            "unpublished": list(self.unpublished),
            "population": self.population_name,
        }


@dataclass(frozen=True, slots=True)
class _Declared:
    """A declared name and what it stands for; ``column`` is ``None`` where it is not published."""

    name: str
    column: SubjectColumn | None
    suppressible: bool = False


def plan_risk(
    spec: RiskSpec,
    datasets: Mapping[str, DatasetPlan],
    published: tuple[str, ...],
    environment: Environment,
    catalog: Catalog,
    place: str,
) -> tuple[RiskPlan, dict[str, Any]]:
    """Plan the assessment of a study.

    Args:
        spec: What the study declares.
        datasets: All datasets by name.
        published: Names of those that land.
        environment: Demands a least k.
        catalog: Where population tables are.
        place: The template's file, for messages.

    Returns:
        The plan, and the catalog entries that it rests on, for the plan's digest.

    Raises:
        StudyError: A declared column does not exist, a published column that others may know is neither
            declared nor excluded, or the population table does not fit.
        CatalogError: There is no such population table.
    """
    resolver = _Resolver(
        datasets, published, (COHORT_DATASET, *catalog.names("views"), *catalog.names("queries")), place
    )
    sensitive = [resolver.resolve(name, "sensitive") for name in spec.sensitive]
    hidden = {item.name for item in sensitive}
    for name in spec.excluded:
        resolver.resolve(name, "excluded")
    knowable = [name for name in resolver.find_knowable() if name not in spec.excluded and name not in hidden]
    if spec.quasi_identifiers is not None:
        _check_complete(knowable, spec.quasi_identifiers, place)
    names = knowable if spec.quasi_identifiers is None else spec.quasi_identifiers
    declared = [resolver.resolve(name, "quasi_identifiers") for name in names]
    columns = tuple(item.column for item in declared if item.column is not None)
    population, sources = _find_population(spec, columns, catalog)
    plan = RiskPlan(
        quasi_identifiers=columns,
        suppressible=tuple(
            item.column.name
            for item in declared
            if item.column is not None and item.suppressible and spec.suppress == "values"
        ),
        sensitive=tuple(item.column for item in sensitive if item.column is not None),
        excluded={
            name: reason
            for name, reason in spec.excluded.items()
            if resolver.resolve(name, "excluded").column is not None
        },
        unpublished=tuple(item.name for item in (*declared, *sensitive) if item.column is None),
        demand=RiskDemand(
            k=max(spec.k, environment.minimum_k), l=spec.l, diversity=spec.diversity, c=spec.c, t=spec.t
        ),
        suppress=spec.on_failure == "suppress",
        population=population,
        population_name=spec.population or "",
    )
    return plan, sources


def published_subject(dataset: DatasetPlan) -> str:
    """Return the published column that names the subject, or an empty text."""
    entries = (entry for entry in dataset.redaction.columns if entry.column.name == dataset.redaction.subject)
    return next((entry.output.name for entry in entries if entry.output is not None), "")


@dataclass(frozen=True, slots=True)
class _Resolver:
    """Finds what names such as ``patient.birth_date`` stand for."""

    datasets: Mapping[str, DatasetPlan]
    published: tuple[str, ...]
    known: tuple[str, ...]
    place: str

    def resolve(self, name: str, key: str) -> _Declared:
        """Return what a declared name stands for."""
        dataset_name, _, column = name.partition(".")
        if dataset_name not in self.known:
            raise self._refuse(name, key, nearest(dataset_name, list(self.known), "dataset"))
        if dataset_name not in self.published:
            return _Declared(name, None)  # its template may serve studies that publish it
        dataset = self.datasets[dataset_name]
        if not published_subject(dataset):
            raise self._refuse(name, key, "Publish the pseudonym of the patient with it.", "names no patient")
        if not column:
            return _Declared(name, SubjectColumn(name, dataset_name, ""))
        entries = {entry.column.name: entry for entry in dataset.redaction.columns}
        if column not in entries:
            raise self._refuse(name, key, nearest(column, list(entries), "column"))
        entry = entries[column]
        if entry.output is None:
            return _Declared(name, None)
        return _Declared(
            name,
            SubjectColumn(
                f"{dataset_name}.{entry.output.name}",
                dataset_name,
                entry.output.name,
                _find_precision(entry, dataset),
                many=_has_many_rows(dataset),
            ),
            suppressible=_is_of_patients(dataset),
        )

    def find_knowable(self) -> Iterator[str]:
        """Yield the published columns of patients and cohort that others may know."""
        for name in self.published:
            dataset = self.datasets[name]
            if _is_of_patients(dataset):
                for entry in dataset.redaction.columns:
                    if entry.output is not None and entry.column.phi in _KNOWABLE:
                        yield f"{name}.{entry.column.name}"

    def _refuse(self, name: str, key: str, remedy: str, fault: str = "does not exist") -> StudyError:
        return StudyError(f"'risk.{key}' names '{name}', which {fault}.", place=self.place, remedy=remedy)


def _is_of_patients(dataset: DatasetPlan) -> bool:
    """Whether a dataset describes patients, not what happened to them."""
    return dataset.name == COHORT_DATASET or (dataset.view is not None and dataset.view.resource == "Patient")


def _has_many_rows(dataset: DatasetPlan) -> bool:
    if dataset.name == COHORT_DATASET:
        return False
    return dataset.view is None or dataset.view.resource != "Patient" or bool(dataset.view.plan.steps)


def _find_precision(entry: ColumnRedaction, dataset: DatasetPlan) -> Precision:
    """Say how closely others can know a date: not closer than it was moved."""
    if entry.treatment.action is not Action.SHIFT:
        return "exact"
    window = dataset.redaction.policy.shift_days
    if window >= _YEAR_DAYS:
        return "year"
    return "month" if window >= _MONTH_DAYS else "exact"


def _check_complete(knowable: list[str], declared: tuple[str, ...], place: str) -> None:
    missing = [name for name in knowable if name not in declared]
    if missing:
        raise StudyError(
            f"'risk.quasi_identifiers' leaves out {', '.join(missing)}, which the study publishes.",
            place=place,
            remedy="Declare them, or write into 'risk.excluded' why others cannot know them.",
        )


def _find_population(
    spec: RiskSpec, columns: tuple[SubjectColumn, ...], catalog: Catalog
) -> tuple[Path | None, dict[str, Any]]:
    if spec.population is None:
        return None, {}
    entry = catalog.path("populations", spec.population)
    table = Document.read(entry).validate(PopulationTable)
    path = entry.parent / Path(table.counts).name
    if not path.is_file():
        raise StudyError("The file of counts is missing.", place=str(path), remedy="Put it beside the entry.")
    with path.open(encoding="utf-8", newline="") as lines:
        header = next(csv.reader(lines), [])
    names = [column.name for column in columns]
    if "count" not in header or not set(names) & set(header):
        raise StudyError(
            "The table has no column 'count', or none that is named like a quasi-identifier.",
            place=str(path),
            remedy=f"The quasi-identifiers are {', '.join(names) or 'none'}.",
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path, {f"populations/{spec.population}": {**table.model_dump(mode="json"), "sha256": digest}}
