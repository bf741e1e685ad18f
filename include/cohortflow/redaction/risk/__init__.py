"""Re-identification risk of a release: how many people share what others may know of a subject.

The order of use: ``gather_subjects``, ``measure_risk``, ``meet_demand`` where the measure falls short,
``find_changes`` and ``apply_changes`` on the datasets, ``publish_risk`` and ``render_risk_page``.
Polars is imported with the first of them only, so that DAG files parse without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from cohortflow.redaction.risk.columns import Precision, SubjectColumn
from cohortflow.redaction.risk.demand import Diversity, RiskDemand

if TYPE_CHECKING:
    from cohortflow.redaction.risk.classes import SIZE, count_classes
    from cohortflow.redaction.risk.closeness import DISTANCE, measure_closeness
    from cohortflow.redaction.risk.disclosure import HIDDEN, show_count, show_counts, show_share
    from cohortflow.redaction.risk.diversity import (
        DISTINCT_L,
        ENTROPY_L,
        RECURSIVE_C,
        is_diverse,
        measure_diversity,
    )
    from cohortflow.redaction.risk.measure import RiskMeasure, SensitiveMeasure, measure_risk
    from cohortflow.redaction.risk.page import render_risk_page
    from cohortflow.redaction.risk.population import COUNT, POPULATION_SIZE, map_population
    from cohortflow.redaction.risk.report import (
        ColumnReport,
        RiskFigures,
        RiskReport,
        SensitiveFigures,
        SizeRange,
        Verdict,
        publish_risk,
    )
    from cohortflow.redaction.risk.subjects import (
        SUBJECT,
        apply_changes,
        find_changes,
        gather_subjects,
    )
    from cohortflow.redaction.risk.suppression import (
        Suppression,
        meet_demand,
        order_columns,
        suppress_rows,
        suppress_values,
    )

__all__ = [
    "COUNT",
    "DISTANCE",
    "DISTINCT_L",
    "ENTROPY_L",
    "HIDDEN",
    "POPULATION_SIZE",
    "RECURSIVE_C",
    "SIZE",
    "SUBJECT",
    "ColumnReport",
    "Diversity",
    "Precision",
    "RiskDemand",
    "RiskFigures",
    "RiskMeasure",
    "RiskReport",
    "SensitiveFigures",
    "SensitiveMeasure",
    "SizeRange",
    "SubjectColumn",
    "Suppression",
    "Verdict",
    "apply_changes",
    "count_classes",
    "find_changes",
    "gather_subjects",
    "is_diverse",
    "map_population",
    "measure_closeness",
    "measure_diversity",
    "measure_risk",
    "meet_demand",
    "order_columns",
    "publish_risk",
    "render_risk_page",
    "show_count",
    "show_counts",
    "show_share",
    "suppress_rows",
    "suppress_values",
]

_MODULES: Final = (
    "classes",
    "closeness",
    "disclosure",
    "diversity",
    "measure",
    "page",
    "population",
    "report",
    "subjects",
    "suppression",
)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a module's attribute is
    for module in map(import_module, [f"{__name__}.{name}" for name in _MODULES] if name in __all__ else ()):
        if name in module.__all__:
            return getattr(module, name)
    msg = f"module '{__name__}' has no attribute '{name}'"
    raise AttributeError(msg)
