"""The leak gate raises no alarm where redaction did what it should."""

import datetime as dt
import os
from pathlib import Path

import polars as pl
import pytest

from cohortflow.fhir.ndjson import read_views
from cohortflow.fhir.views import compile_view
from cohortflow.model import Catalog
from cohortflow.patterns import load_patterns
from cohortflow.redaction import NO_AGES, ProjectKey, load_policy, plan_redaction, redact
from cohortflow.redaction.leaks import LeakScan, collect_facts, load_common_words

pytestmark = pytest.mark.integration

CATALOG = Catalog.default()
KEY = ProjectKey.from_text("8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083")
FALSE_ALARMS = 0.001


class Source:
    """The facts and the views of a folder of NDJSON."""

    def __init__(self, folder):
        files = sorted(folder.glob("*.ndjson*"))
        self.facts = pl.concat(collect_facts(file.name.partition(".")[0], [str(file)]) for file in files)
        self.views = {}
        for name in CATALOG.names("views"):
            compiled = compile_view(CATALOG.load("views", name))
            own = [file for file in files if file.name.startswith(f"{compiled.resource}.")]
            if own:
                self.views[name] = (compiled, read_views([compiled], own).collect()[0][name])

    def scan(self, policy):
        scan = LeakScan(
            self.facts,
            common=load_common_words(CATALOG),
            patterns=load_patterns(CATALOG),
            as_of_year=2026,
            pseudonymize=lambda ids: pl.Series(
                [KEY.pseudonym("Patient", one) for one in ids], dtype=pl.String
            ),
        )
        values = 0
        for name, (compiled, table) in self.views.items():
            plan = plan_redaction(name, compiled.columns, load_policy(CATALOG, policy))
            redacted = redact(table.lazy(), plan, KEY, as_of=dt.date(2026, 11, 1), ages=NO_AGES).collect()
            scan.add_table(name, redacted.lazy(), plan)
            scan.add_shifted(name, table.lazy(), redacted.lazy(), plan)
            values += sum(redacted[column].n_unique() for column in redacted.columns)
        return scan.finish(), values


@pytest.fixture(scope="module")
def synthea():
    shared = os.environ.get("COHORTFLOW_SHARED")
    if not shared:
        pytest.skip("COHORTFLOW_SHARED names no folder with sample data")
    return Source(Path(shared) / "data" / "synthea-100")


@pytest.fixture(scope="module")
def synthetic(patients):
    return Source(patients)


@pytest.mark.parametrize("policy", CATALOG.names("redaction"))
@pytest.mark.parametrize("sample", ["synthea", "synthetic"])
def test_clean_run_raises_no_alarm(sample, policy, request):
    source = request.getfixturevalue(sample)
    report, values = source.scan(policy)
    assert report.leaks == ()
    assert report.identifiers > 500
    assert report.tables == len(source.views) > 10
    assert report.candidates <= FALSE_ALARMS * values


def test_nothing_is_clean_before_redaction(synthetic):
    """The same search finds every identifying column of the tables that were not redacted."""
    plan = plan_redaction(
        "patient", synthetic.views["patient"][0].columns, load_policy(CATALOG, "safe_harbor")
    )
    scan = LeakScan(
        synthetic.facts, common=load_common_words(CATALOG), patterns=load_patterns(CATALOG), as_of_year=2026
    )
    scan.add_table("patient", synthetic.views["patient"][1].lazy(), plan)
    found = {leak.place.removeprefix("patient.") for leak in scan.finish().leaks}
    assert {
        "patient_id",
        "mrn",
        "ssn",
        "family_name",
        "given_name",
        "phone",
        "email",
        "address_line",
    } <= found
