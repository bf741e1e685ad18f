"""Map: source codes to standard ones, values to canonical units."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cohortflow.cohort.attrition import SMALL_CELL
from cohortflow.engine import write_table
from cohortflow.terminology import (
    Coverage,
    UnitTable,
    check_coverage,
    check_units,
    harmonize_units,
    hide_rare_codes,
    load_unit_catalog,
    map_codes,
    measure_coverage,
    measure_units,
    render_coverage_page,
)
from cohortflow.workflow.code_maps import load_code_map, load_concepts, load_map_content
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.steps.transform import read_view
from cohortflow.workflow.terminology import open_terminology

if TYPE_CHECKING:
    import polars as pl

    from cohortflow.lake.terminology import TerminologyStore

__all__ = ["map_view"]

STEP = "map"


def map_view(run: Run, view: str) -> StepResult:
    """Add the target columns of every mapping of a view, then its values in canonical units; no row is lost.

    What was mapped is kept as JSON and as a page, also where it is too little.

    Raises:
        CoverageError: Fewer rows were mapped, or more units are unknown, than the study allows.
    """

    def terminologies() -> TerminologyStore:
        return open_terminology(run.deployment)

    frame = read_view(run, view)
    dataset = run.plan.datasets[view]
    coverage: dict[str, Coverage] = {}
    for mapping in dataset.mappings:
        maps = [load_code_map(run.catalog, name, terminologies) for name in mapping.maps]
        content = load_map_content(mapping, maps, terminologies)
        frame = map_codes(frame, mapping, maps, content=content)
        # Measured before the next mapping, which may multiply rows.
        measured = measure_coverage(frame, mapping, maps, concepts=load_concepts(maps, terminologies))
        # A rare code could point at a patient.
        coverage[mapping.prefix] = hide_rare_codes(measured, SMALL_CELL)
    facts: dict[str, Any] = {}
    if dataset.mappings:
        page = _keep(run, view, coverage)
        for mapping in dataset.mappings:
            check_coverage(coverage[mapping.prefix], mapping.min_coverage, place=page)
        facts = {
            "coverage": {prefix: measured.to_dict() for prefix, measured in coverage.items()},
            "page": page,
        }
    if dataset.units:
        frame, facts["units"] = _harmonize(run, view, frame)
    reference = write_table(frame, view, run.output_path(STEP, view), run.work)
    return StepResult((reference,), facts)


def _harmonize(run: Run, view: str, frame: pl.LazyFrame) -> tuple[pl.LazyFrame, dict[str, Any]]:
    """Add the values in canonical units; return them, and the report by value."""
    table = UnitTable(load_unit_catalog(run.catalog))
    mappings = run.plan.datasets[view].units
    for mapping in mappings:
        frame = harmonize_units(frame, mapping, table)
    counted = {mapping.value: measure_units(frame, mapping) for mapping in mappings}
    report = {value: found.hide_rare(SMALL_CELL).to_dict() for value, found in counted.items()}
    path = f"{run.report_path(f'{view}.units')}.json"
    run.datasets.write(path, json.dumps({"units": {view: report}}, indent=1).encode())
    for mapping in mappings:
        place = run.datasets.child(path)
        check_units(counted[mapping.value], mapping.max_unknown_units, place=place)
    return frame, report


def _keep(run: Run, view: str, coverage: dict[str, Coverage]) -> str:
    """Write the report of a view; return where its page is."""
    path = run.report_path(f"{view}.coverage")
    facts = {prefix: measured.to_dict() for prefix, measured in coverage.items()}
    run.datasets.write(f"{path}.json", json.dumps({"coverage": {view: facts}}, indent=1).encode())
    page = render_coverage_page(f"{run.plan.title}, {run.interval.key}", {view: tuple(coverage.values())})
    run.datasets.write(f"{path}.html", page.encode())
    return run.datasets.child(f"{path}.html")
