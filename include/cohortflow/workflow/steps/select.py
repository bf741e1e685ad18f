"""Select: who is in the cohort."""

from __future__ import annotations

import json

from cohortflow.cohort import select_cohort, suppress_small_counts
from cohortflow.engine import write_table
from cohortflow.workflow.code_maps import open_value_set
from cohortflow.workflow.datasets import COHORT_DATASET
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.steps.transform import read_cleared
from cohortflow.workflow.terminology import open_terminology

__all__ = ["ATTRITION", "select_subjects"]

ATTRITION = "select_cohort/attrition.json"
"""In the work zone: the exact counts."""


def select_subjects(run: Run, _view: str = "") -> StepResult:
    """Write the cohort's subjects and count the attrition, as of the interval's end.

    The exact attrition stays in the work zone; what is returned has no small counts.
    """
    definition = run.plan.spec.cohort
    if definition is None:
        return StepResult()
    views = {name: read_cleared(run, name) for name in definition.views}
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
    run.work.write(ATTRITION, json.dumps(attrition.to_dicts()).encode())
    return StepResult((reference,), {"attrition": suppress_small_counts(attrition).to_dicts()})
