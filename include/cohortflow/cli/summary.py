"""A release for people: what was published, how well it mapped, how long it took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cohortflow.cli.console import print_table, stdout
from cohortflow.terminology.coverage import Coverage
from cohortflow.workflow.plan import StepKind

__all__ = ["print_release"]


def print_release(document: Mapping[str, Any]) -> None:
    """Print the tables of a release document."""
    title = f"{document['title']}: {document['interval']['key']}, {document['environment']}"
    print_table(
        title,
        ["dataset", "rows", "columns", "version", "URI"],
        [(d["name"], d["rows"], len(d["columns"]), d["version"], d["uri"]) for d in document["datasets"]],
    )
    if document["attrition"]:
        print_table(
            "Attrition",
            ["step", "criterion", "before", "excluded", "after"],
            [
                (row["step"], row["criterion"], row["n_before"], row["n_excluded"], row["n_after"])
                for row in document["attrition"]
            ],
        )
    if document["risk"].get("after"):
        before, after = document["risk"]["before"], document["risk"]["after"]
        print_table(
            "Re-identification risk",
            ["", "before suppression", "as published"],
            [
                ("subjects", before["subjects"], after["subjects"]),
                ("smallest class (k)", before["k"], after["k"]),
                ("subjects alone in their class", before["unique"], after["unique"]),
                ("subjects in small classes", before["small"], after["small"]),
            ],
        )
    coverage = [
        (view, *_summarize(Coverage.from_dict(measured)))
        for view, prefixes in document["coverage"].items()
        for measured in prefixes.values()
    ]
    if coverage:
        columns = [
            "dataset",
            "map",
            "rows with a code",
            "mapped",
            "share",
            "unmapped codes",
            "ambiguous codes",
        ]
        print_table("Mapping coverage", columns, coverage)
    units = [
        (view, value, found["rows_with_unit"], found["rows_usable"], found["implausible"])
        for view, values in document.get("units", {}).items()
        for value, found in values.items()
    ]
    if units:
        title = "Values whose code has a canonical unit"
        print_table(title, ["dataset", "value", "rows", "in canonical unit", "implausible"], units)
    print_table(
        "Validation",
        ["dataset", "passed", "warnings", "critical failures", "not applicable"],
        [
            (view, v["passed"], v["warnings"], v["critical"], v["not_applicable"])
            for view, v in document["validation"].items()
        ],
    )
    print_table(
        "Time",
        ["step", "seconds"],
        _seconds_by_kind(document["seconds"]),
    )
    malformed = sum(document["malformed"].values())
    if malformed:
        stdout.print(f"[yellow]{malformed} malformed lines were quarantined:[/] {document['malformed']}")


def _seconds_by_kind(seconds: Mapping[str, float]) -> list[tuple[str, float]]:
    """Add up the steps of one kind, in the order of the pipeline."""
    totals: dict[str, float] = dict.fromkeys(map(str, StepKind), 0.0)
    for step, spent in seconds.items():
        totals[step.partition(".")[0]] += spent
    return [(kind, round(spent, 1)) for kind, spent in totals.items() if spent]


def _summarize(coverage: Coverage) -> tuple[object, ...]:
    return (
        ", ".join(coverage.versions or coverage.maps),
        coverage.rows_with_code,
        coverage.rows_mapped,
        _percent(coverage.share),
        coverage.unmapped.codes,
        "-" if coverage.ambiguous is None else coverage.ambiguous.codes,
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
