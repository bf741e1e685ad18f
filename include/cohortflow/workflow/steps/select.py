"""Select: who is in the cohort."""

from __future__ import annotations

from cohortflow.cohort import select_cohort
from cohortflow.engine import read_table, write_table
from cohortflow.workflow.code_maps import open_value_set
from cohortflow.workflow.datasets import COHORT_DATASET
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.steps.transform import STEP as TRANSFORM
from cohortflow.workflow.terminology import open_terminology

__all__ = ["select_subjects"]


def select_subjects(run: Run, _view: str = "") -> StepResult:
    """Write the cohort's subjects and count the attrition, as of the interval's end."""
    definition = run.plan.spec.cohort
    if definition is None:
        return StepResult()
    views = {name: read_table(run.output_path(TRANSFORM, name), run.work) for name in definition.views}
    times = {name: run.plan.datasets[name].time_column for name in definition.views}
    selection = select_cohort(
        views,
        definition,
        {
            name: open_value_set(run.catalog, name, lambda: open_terminology(run.deployment))
            for name in definition.value_sets
        },
        run.interval.end,
        time_columns={name: column for name, column in times.items() if column},
    )
    subjects, attrition = selection.collect()
    path = run.output_path("select_cohort", COHORT_DATASET)
    reference = write_table(subjects.lazy(), COHORT_DATASET, path, run.work)
    return StepResult((reference,), {"attrition": attrition.to_dicts()})
