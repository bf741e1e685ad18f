"""No identifier of the sample patients is left in any redacted view."""

import datetime as dt
import gzip
import json
import os
from pathlib import Path

import polars as pl
import pytest

from cohortflow.fhir.views import compile_view
from cohortflow.model import Catalog
from cohortflow.redaction import NO_AGES, ProjectKey, load_policy, plan_redaction, redact

pytestmark = pytest.mark.integration

CATALOG = Catalog.default()
KEY = ProjectKey.from_text("8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083")


@pytest.fixture(scope="module")
def sample():
    shared = os.environ.get("COHORTFLOW_SHARED")
    if not shared:
        pytest.skip("COHORTFLOW_SHARED names no folder with sample data")
    return Path(shared) / "data" / "synthea-100"


@pytest.fixture(scope="module")
def identifiers(sample):
    """Names, numbers, addresses and ids of all sample patients."""
    found = set()
    with gzip.open(sample / "Patient.ndjson.gz", "rt", encoding="utf-8") as lines:
        for patient in map(json.loads, lines):
            found.add(patient["id"])
            found.update(entry["value"] for entry in patient["identifier"])
            found.update(entry["value"] for entry in patient["telecom"])
            found.update(name["family"] for name in patient["name"])
            found.update(given for name in patient["name"] for given in name["given"])
            found.update(line for address in patient["address"] for line in address["line"])
    assert len(found) > 500
    return sorted(found)


@pytest.mark.parametrize("policy", CATALOG.names("redaction"))
@pytest.mark.parametrize("view", CATALOG.names("views"))
def test_no_identifier_is_left(view, policy, sample, identifiers, tmp_path):
    compiled = compile_view(CATALOG.load("views", view))
    packed = sample / f"{compiled.resource}.ndjson.gz"
    if not packed.exists():
        pytest.skip(f"the sample has no {compiled.resource}")
    raw = tmp_path / "raw.ndjson"
    raw.write_bytes(gzip.decompress(packed.read_bytes()))
    table = compiled.lazy(pl.scan_ndjson(raw, schema=compiled.read_schema)).collect()
    plan = plan_redaction(view, compiled.columns, load_policy(CATALOG, policy))

    redacted = redact(table.lazy(), plan, KEY, as_of=dt.date(2026, 1, 1), ages=NO_AGES).collect()

    # A town that a policy keeps may be called like a person.
    towns = {"city"} if policy in {"limited_dataset", "synthetic_only"} else set()
    texts = [name for name, dtype in redacted.schema.items() if dtype == pl.String and name not in towns]
    leaks = {name: count for name in texts if (count := count_leaks(redacted[name], identifiers))}
    assert leaks == {}
    assert table.height == redacted.height
    if plan.subject:  # the search finds what is there before redaction
        assert count_leaks(table[plan.subject], identifiers) == table.height


def count_leaks(values, identifiers):
    return values.str.contains_any(identifiers).sum()
