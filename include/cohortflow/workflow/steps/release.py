"""Release: say which versions of a study's datasets belong together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cohortflow import __version__
from cohortflow.errors import ArtifactNotFoundError
from cohortflow.workflow.plan import StepKind
from cohortflow.workflow.run import Run, StepResult

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
    document = {
        "study": run.plan.study,
        "variant": run.plan.variant,
        "title": run.plan.title,
        "environment": run.plan.environment.environment,
        "policy": run.plan.policy.name,
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
        "extraction": _facts(results.get(StepKind.EXTRACT, {})),
        "malformed": results.get(StepKind.TRANSFORM, {}).get("malformed", {}),
        "snapshot": results.get(StepKind.TRANSFORM, {}).get("snapshot", {}),
        "deletions": _facts(results.get(StepKind.WITHDRAW, {})),
        "attrition": results.get(StepKind.SELECT, {}).get("attrition", []),
        "coverage": _by_view(results, StepKind.MAP, "coverage"),
        "validation": results.get(StepKind.VALIDATE, {}).get("validation", {}),
        "redaction": _by_view(results, StepKind.REDACT, "actions"),
        "seconds": {step: record["seconds"] for step, record in results.items()},
    }
    path = f"{_FOLDER}/{run.interval.key}.json"
    run.datasets.write(path, json.dumps(document, indent=1).encode())
    return StepResult(facts={"release": run.datasets.child(path), "datasets_released": len(landed)})


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


def _by_view(results: Mapping[str, Mapping[str, Any]], kind: StepKind, fact: str) -> dict[str, Any]:
    prefix = f"{kind}."
    return {
        step.removeprefix(prefix): record[fact]
        for step, record in results.items()
        if step.startswith(prefix) and fact in record
    }
