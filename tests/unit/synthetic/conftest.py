from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cohortflow.synthetic import SyntheticSummary, generate

PATIENTS = 400
SEED = 20


@dataclass
class Population:
    """A generated population, read back with nothing but the standard library."""

    summary: SyntheticSummary
    resources: dict[str, list[dict]]
    truth: dict[str, dict[str, str]]
    planted: list[dict[str, str]]
    by_id: dict[str, dict] = field(init=False)

    def __post_init__(self):
        self.by_id = {
            f"{name}/{resource['id']}": resource
            for name, resources in self.resources.items()
            for resource in resources
        }

    def of_patients(self):
        """Yield each resource that belongs to a patient, with the patient."""
        for name, resources in self.resources.items():
            for resource in resources:
                owner = resource.get("subject") or resource.get("patient")
                if owner:
                    yield name, resource, self.by_id[owner["reference"]]


def read_population(summary: SyntheticSummary) -> Population:
    def rows(name: str) -> list[dict[str, str]]:
        with (summary.out / "ground_truth" / name).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    resources = {
        file.resource_type: [
            json.loads(line) for line in (summary.out / file.name).read_text(encoding="utf-8").splitlines()
        ]
        for file in summary.files
    }
    return Population(
        summary, resources, {row["patient_id"]: row for row in rows("patients.csv")}, rows("planted.csv")
    )


@pytest.fixture(scope="session")
def population(tmp_path_factory) -> Population:
    out: Path = tmp_path_factory.mktemp("synthetic") / "population"
    return read_population(generate(out, patients=PATIENTS, seed=SEED))
