"""Release: say which versions of a study's datasets belong together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from cohortflow import __version__
from cohortflow.cohort import suppress_small_counts
from cohortflow.errors import ArtifactNotFoundError
from cohortflow.lake import vacuum_tables
from cohortflow.workflow.exclusions import describe_exclusions, hides_counts, load_steps
from cohortflow.workflow.permission import keeps_one_interval
from cohortflow.workflow.plan import StepKind
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.steps.risk import load_removed
from cohortflow.workflow.steps.select import ATTRITION

if TYPE_CHECKING:
    from cohortflow.lake import Store, WithdrawalCommit

__all__ = ["amend_releases", "list_releases", "read_release", "released_versions", "write_release"]


_FOLDER = "_releases"


def list_releases(datasets: Store) -> list[str]:
    """Return the keys of the intervals that a study has released, sorted."""
    return [path.rpartition("/")[2].removesuffix(".json") for path in datasets.list(_FOLDER)]


def read_release(datasets: Store, interval: str) -> dict[str, Any]:
    """Return the release document of an interval.

    Args:
        datasets: The study's datasets.
        interval: Key of the interval.

    Raises:
        ArtifactNotFoundError: Nothing was released for it.
    """
    content = datasets.read(f"{_FOLDER}/{interval}.json")
    if content is None:
        raise ArtifactNotFoundError(
            f"Nothing was released for {interval}.", place=datasets.uri, remedy="Run the study for that day."
        )
    document: dict[str, Any] = json.loads(content)
    return document


def released_versions(datasets: Store) -> dict[str, list[int]]:
    """Return the versions that a study's release documents name, by dataset."""
    versions: dict[str, set[int]] = {}
    for interval in list_releases(datasets):
        for dataset in read_release(datasets, interval)["datasets"]:
            versions.setdefault(dataset["name"], set()).add(int(dataset["version"]))
    return {name: sorted(found) for name, found in versions.items()}


def write_release(run: Run, _view: str = "") -> StepResult:
    """Write the release document: dataset versions, attrition, coverage, validation, seconds per step.

    It is the last thing that a run publishes: a reader that takes versions from it never sees
    datasets of two runs mixed.
    """
    results = run.load_results()
    landed = [results[f"{StepKind.LAND}.{name}"] for name in run.plan.published]
    one_interval = keeps_one_interval(run.plan, run.deployment)
    document = {
        "study": run.plan.study,
        "variant": run.plan.variant,
        "title": run.plan.title,
        "environment": run.plan.environment.environment,
        "policy": run.plan.policy.name,
        "standard": str(run.plan.policy.standard),
        "guarantee": run.plan.policy.guarantee,
        "snapshots": "latest" if one_interval else "linked",
        "approval": None if run.plan.approval is None else run.plan.approval.model_dump(mode="json"),
        "interval": {
            "key": run.interval.key,
            "start": run.interval.start.isoformat(),
            "end": run.interval.end.isoformat(),
        },
        "parameters": dict(run.plan.parameters),
        "plan": run.plan.digest,
        "key": run.key.fingerprint,
        "cohortflow": __version__,
        "released_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "datasets": [_describe(run, dataset) for record in landed for dataset in record["datasets"]],
        "extraction": _describe_extraction(run, results.get(StepKind.EXTRACT, {})),
        "malformed": results.get(StepKind.TRANSFORM, {}).get("malformed", {}),
        "snapshot": results.get(StepKind.TRANSFORM, {}).get("snapshot", {}),
        "deletions": _facts(results.get(StepKind.WITHDRAW, {})),
        "attrition": _publish_attrition(run),
        "exclusions": describe_exclusions(run),
        "coverage": _by_view(results, StepKind.MAP, "coverage"),
        "units": _by_view(results, StepKind.MAP, "units"),
        "validation": results.get(StepKind.VALIDATE, {}).get("validation", {}),
        "reports": {
            "coverage": _by_view(results, StepKind.MAP, "page"),
            "validation": results.get(StepKind.VALIDATE, {}).get("pages", {}),
            "risk": results.get(StepKind.ASSESS, {}).get("page", ""),
        },
        "risk": results.get(StepKind.ASSESS, {}).get("risk", {}),
        "leak_scan": results.get(StepKind.SCAN, {}).get("leak_scan", {}),
        "redaction": _by_view(results, StepKind.REDACT, "actions"),
        "overrides": _by_view(results, StepKind.REDACT, "overrides"),
        "capped_ages": _by_view(results, StepKind.REDACT, "capped_ages"),
        "scrubbed": _by_view(results, StepKind.REDACT, "scrubbed"),
        "seconds": {step: record["seconds"] for step, record in results.items()},
    }
    path = f"{_FOLDER}/{run.interval.key}.json"
    run.datasets.write(path, json.dumps(document, indent=1).encode())
    if one_interval:
        _forget_others(run)
    return StepResult(facts={"release": run.datasets.child(path), "datasets_released": len(landed)})


def _publish_attrition(run: Run) -> list[dict[str, str]]:
    """Return the attrition with small counts suppressed: exclusions, the cohort, and the assessment's step.

    Without the last one, the rows of the datasets would give small numbers of them away.
    """
    attrition = load_steps(run)
    first = len(attrition)
    for row in json.loads(run.work.read(ATTRITION) or b"[]"):
        attrition.append({**row, "step": row["step"] + first})
    if not attrition:
        return []
    removed = load_removed(run)
    last = attrition[-1]
    if removed:
        left = {
            "step": int(last["step"]) + 1,
            "criterion": "Left out for the risk of re-identification",
            "n_before": last["n_after"],
            "n_excluded": removed,
            "n_after": last["n_after"] - removed,
            "n_unit_mismatch": 0,
            "n_unknown": 0,
        }
        attrition = [*attrition, left]
    shown = suppress_small_counts(pl.DataFrame(attrition)).to_dicts()
    if len(shown) == 1 and shown[0]["n_excluded"].startswith("<"):
        # The rows of the datasets say how many are left, so the count before must not be told either.
        shown[0]["n_before"] = "not shown"
    return shown


def _forget_others(run: Run) -> None:
    """Remove the documents of other intervals, and the files of the table versions that held their rows.

    Otherwise old versions of the tables would show them side by side with the new one.
    """
    for interval in list_releases(run.datasets):
        if interval != run.interval.key:
            run.datasets.remove(f"{_FOLDER}/{interval}.json")
            run.datasets.delete(f"_reports/{interval}")
    vacuum_tables(run.datasets, timedelta(0), released_versions(run.datasets), dry_run=False, abandoned=False)


def amend_releases(datasets: Store, name: str, withdrawals: Sequence[WithdrawalCommit]) -> None:
    """Let release documents name the version of a dataset that its last withdrawal made.

    What they say of rows is brought up to date, and what was withdrawn is listed. A document that is up
    to date stays as it is, so that a run that was killed in between can be repeated.

    Args:
        datasets: The study's datasets.
        name: The dataset.
        withdrawals: All of its withdrawals, oldest first.
    """
    if not withdrawals:
        return
    for interval in list_releases(datasets):
        document = read_release(datasets, interval)
        amended = False
        for dataset in document["datasets"]:
            for commit in withdrawals if dataset["name"] == name else ():
                if dataset["version"] >= commit.version:
                    continue
                removed = commit.rows.get(interval, 0)
                dataset |= {"version": commit.version, "rows": dataset["rows"] - removed}
                entry = {"dataset": name, "version": commit.version, "rows": removed}
                document.setdefault("withdrawals", []).append(entry)
                amended = True
        if amended:
            datasets.write(f"{_FOLDER}/{interval}.json", json.dumps(document, indent=1).encode())


def _describe(run: Run, dataset: Mapping[str, Any]) -> dict[str, Any]:
    columns = run.plan.datasets[dataset["name"]].output_columns
    return {
        **dataset,
        "columns": [
            {"name": column.name, "type": str(column.type), "description": column.description}
            for column in columns
        ],
    }


def _facts(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("datasets", "step", "seconds")}


def _describe_extraction(run: Run, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was exported; without counts where, with the datasets' rows, they would tell small ones."""
    hidden = ("resources", "coverage", "bytes") if hides_counts(run) else ()
    return {key: value for key, value in _facts(record).items() if key not in hidden}


def _by_view(results: Mapping[str, Mapping[str, Any]], kind: StepKind, fact: str) -> dict[str, Any]:
    prefix = f"{kind}."
    return {
        step.removeprefix(prefix): record[fact]
        for step, record in results.items()
        if step.startswith(prefix) and fact in record
    }
