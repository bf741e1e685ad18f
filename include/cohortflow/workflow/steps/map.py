"""Map: source codes to standard ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cohortflow.cohort.attrition import SMALL_CELL
from cohortflow.engine import write_table
from cohortflow.terminology import check_coverage, map_codes, measure_coverage
from cohortflow.workflow.code_maps import load_code_map, load_map_content
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.steps.transform import read_view
from cohortflow.workflow.terminology import open_terminology

if TYPE_CHECKING:
    from cohortflow.lake.terminology import TerminologyStore

__all__ = ["map_view"]

STEP = "map"


def map_view(run: Run, view: str) -> StepResult:
    """Add the target columns of every mapping of a view; no row is lost.

    Raises:
        CoverageError: Fewer rows were mapped than the study demands.
    """

    def terminologies() -> TerminologyStore:
        return open_terminology(run.deployment)

    frame = read_view(run, view)
    coverage = {}
    for mapping in run.plan.datasets[view].mappings:
        maps = [load_code_map(run.catalog, name, terminologies) for name in mapping.maps]
        content = load_map_content(mapping, maps, terminologies)
        frame = map_codes(frame, mapping, maps, content=content)
        # Measured before the next mapping, which may multiply rows.
        measured = measure_coverage(frame, mapping)
        check_coverage(measured, mapping.min_coverage)
        versions = [code_map.label for code_map in maps]
        coverage[mapping.prefix] = {**_hide_rare_codes(measured.to_dict()), "versions": versions}
    reference = write_table(frame, view, run.output_path(STEP, view), run.work)
    return StepResult((reference,), {"coverage": coverage})


def _hide_rare_codes(coverage: dict[str, Any]) -> dict[str, Any]:
    """Leave out unmapped codes of few rows: a rare code could point at a patient."""
    listed = [code for code in coverage["top_unmapped"] if code["rows"] >= SMALL_CELL]
    return {**coverage, "top_unmapped": listed}
