"""Scan for leaks: nothing lands in which an identifier of the source is left."""

from __future__ import annotations

import hmac
import json
from typing import TYPE_CHECKING

import polars as pl

from cohortflow.engine import read_table
from cohortflow.patterns import load_patterns
from cohortflow.redaction.keys import PSEUDONYM_DIGITS
from cohortflow.redaction.leaks import (
    LeakReport,
    LeakScan,
    check_leaks,
    load_common_words,
)
from cohortflow.workflow.datasets import COHORT_DATASET
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.steps.identifiers import collect_identifiers
from cohortflow.workflow.steps.map import STEP as MAP
from cohortflow.workflow.steps.redact import STEP as REDACT
from cohortflow.workflow.steps.risk import read_published
from cohortflow.workflow.steps.transform import read_view

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["scan_for_leaks"]

STEP = "scan_for_leaks"

_TEXTS = (".json", ".html", ".csv", ".md", ".txt")


def scan_for_leaks(run: Run, _view: str = "") -> StepResult:
    """Search all that the run is about to publish for the identifiers in its raw zone.

    Searched are the redacted datasets, the reports that earlier steps wrote and what those steps say of
    themselves, which becomes the release document. Reports with a find are removed.

    Raises:
        LeakError: Something was found. It names column, rule and count; nothing lands.
    """
    facts = collect_identifiers(run)
    scan = LeakScan(
        facts,
        common=load_common_words(run.catalog),
        patterns=load_patterns(run.catalog),
        as_of_year=run.interval.end.year,
        pseudonymize=lambda ids: _pseudonymize(run, ids),
    )
    published = run.plan.published
    for done, view in enumerate(published):
        run.progress.update(STEP, done, len(published), "datasets")
        plan = run.plan.datasets[view].redaction
        scan.add_table(view, read_published(run, view), plan)
        if plan.subject:
            redacted = read_table(run.output_path(REDACT, view), run.work)
            scan.add_shifted(view, _read_unredacted(run, view), redacted, plan)
    known = _describe_plan(run)
    documents = dict(_read_documents(run))
    for name, text in documents.items():
        scan.add_document(name, text, known=known)
    run.progress.update(STEP, len(published), len(published), "datasets")
    report = scan.finish()
    path = run.report_path("leaks.json")
    run.datasets.write(path, json.dumps(report.to_dict(), indent=1).encode())
    _withdraw_documents(run, report)
    check_leaks(report, place=run.datasets.child(path))
    return StepResult(facts={"leak_scan": report.to_dict()})


def _pseudonymize(run: Run, ids: pl.Series) -> pl.Series:
    """Return the pseudonyms of patients' ids, computed apart from the redaction that is checked."""
    key = run.key.pseudonym_key("Patient").encode()
    names = [hmac.digest(key, number.encode(), "sha256").hex()[:PSEUDONYM_DIGITS] for number in ids]
    return pl.Series(names, dtype=pl.String)


def _read_unredacted(run: Run, view: str) -> pl.LazyFrame:
    if view == COHORT_DATASET:
        return read_table(run.output_path("select_cohort", view), run.work)
    path = run.output_path(MAP, view)
    return read_view(run, view) if run.work.size(path) is None else read_table(path, run.work)


def _read_documents(run: Run) -> Iterator[tuple[str, str]]:
    for path in run.datasets.list(run.report_path("")):
        name = path.rpartition("/")[2]
        if name.endswith(_TEXTS) and name != "leaks.json":
            yield name, (run.datasets.read(path) or b"").decode("utf-8", "replace")
    for step, result in run.load_results().items():
        yield f"result of {step}", json.dumps(result, ensure_ascii=False)


def _withdraw_documents(run: Run, report: LeakReport) -> None:
    found = {leak.place for leak in report.leaks}
    for path in run.datasets.list(run.report_path("")):
        if path.rpartition("/")[2] in found:
            run.datasets.remove(path)


def _describe_plan(run: Run) -> str:
    """Return what people wrote into the study, its policy, its views and its expectations."""
    plan = run.plan
    parts = [
        plan.title,
        json.dumps(dict(plan.parameters), default=str, ensure_ascii=False),
        plan.spec.model_dump_json(),
        plan.policy.model_dump_json(),
        *(json.dumps(dataset.redaction.to_dict(), ensure_ascii=False) for dataset in plan.datasets.values()),
        *(dataset.suite.suite.model_dump_json() for dataset in plan.datasets.values()),
        *(column.description for dataset in plan.datasets.values() for column in dataset.columns),
        json.dumps([str(run.datasets.uri), str(run.raw.uri), str(run.work.uri)]),
    ]
    return "\n".join(parts)
