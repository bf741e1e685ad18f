"""The identifying facts of a run's raw zone: texts are scrubbed of them, the leak gate searches for them."""

from __future__ import annotations

import polars as pl

from cohortflow.engine import read_table
from cohortflow.redaction.leaks import FACTS, collect_facts, collect_table_facts
from cohortflow.workflow.run import Run
from cohortflow.workflow.steps.extract import load_chain
from cohortflow.workflow.steps.extract_sql import load_queries
from cohortflow.workflow.steps.transform import STEP as TRANSFORM

__all__ = ["collect_identifiers"]


def collect_identifiers(run: Run) -> pl.DataFrame:
    """Return the identifying facts of every resource type in the raw zone, and of the database's tables."""
    chain = load_chain(run)
    types = sorted({resource for extraction in chain for resource in extraction.result.files})
    found = [FACTS.to_frame()]
    for done, resource in enumerate(types):
        run.progress.update("read identifiers", done, len(types), "resource types")
        files = [uri for extraction in chain for uri in extraction.uris(resource)]
        found.append(collect_facts(resource, files, run.raw.polars_options))
    for name in load_queries(run):
        table = read_table(run.output_path(TRANSFORM, name), run.work)
        found.append(collect_table_facts(table, run.plan.datasets[name].columns))
    run.progress.update("read identifiers", len(types), len(types), "resource types")
    return pl.concat(found).unique()
