"""cohortflow synth: synthetic patients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cohortflow.cli.console import BarProgress, print_json, print_table

__all__ = ["synth"]


def synth(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    patients: Annotated[int, typer.Option(min=1, help="Number of patients.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal files.")] = 1,
    gzip: Annotated[bool, typer.Option("--gzip", help="Compress the files.")] = False,
    privacy: Annotated[bool, typer.Option("--privacy", help="Add Consents and security labels.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make synthetic patients as FHIR R4 NDJSON, with a ground truth of who has which disease."""
    from cohortflow.synthetic import generate

    with BarProgress() as progress:
        summary = generate(out, patients=patients, seed=seed, gzip=gzip, progress=progress, privacy=privacy)
    if json:
        facts = {"files": {file.resource_type: str(out / file.name) for file in summary.files}}
        print_json(
            {**facts, "bytes": summary.size, "counts": summary.counts, "cohorts": dict(summary.cohorts)}
        )
        return
    print_table(f"{patients:,} patients in {out}", ["resource", "count"], list(summary.counts.items()))
    print_table("Ground truth", ["cohort", "patients"], list(summary.cohorts.items()))
