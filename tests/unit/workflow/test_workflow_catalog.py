"""Every view of the catalog, from the study that publishes it to the validated table."""

import datetime as dt
import os
from pathlib import Path

import polars as pl
import pytest

from cohortflow.fhir.ndjson import read_views
from cohortflow.fhir.views import compile_view
from cohortflow.model import Catalog
from cohortflow.quality import Outcome, Severity, bind_suite, load_suite, validate_dataset
from cohortflow.redaction import NO_AGES, ProjectKey, load_policy, plan_redaction, redact
from cohortflow.workflow.plan import StepKind, compile_plan

CATALOG = Catalog.default()
ENVIRONMENTS, POLICIES = CATALOG.names("environments"), CATALOG.names("redaction")
KEY = ProjectKey.from_text("8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083")
AS_OF = dt.date(2026, 6, 30)
EMPTY = "expect_table_row_count_to_be_between"
# Synthea writes an organization and a practitioner again for each patient.
REPEATED = {
    "organization": {"expect_compound_columns_to_be_unique"},
    "practitioner": {"expect_column_values_to_be_unique"},
}
BY_RESOURCE = {}
for _name in CATALOG.names("views"):
    BY_RESOURCE.setdefault(CATALOG.load("views", _name)["resource"], []).append(_name)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_study_can_publish_all_views(project_copy, environment):
    names = project_copy.catalog.names("views")
    path = project_copy.root / "dags" / "studies" / "diabetes_nightly.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("parameters:\n", f"parameters:\n  views: [{', '.join(names)}]\n"))
    plan = compile_plan(project_copy.load_study("diabetes_nightly"), environment, project_copy)
    assert sorted(plan.spec.views) == names
    landed = {step.view for step in plan.steps if step.kind is StepKind.LAND}
    assert landed == {"cohort", *names}
    for name in names:
        dataset = plan.datasets[name]
        assert dataset.output_columns, name
        assert all(entry.reason for entry in dataset.redaction.columns)


@pytest.mark.parametrize("resource", sorted(BY_RESOURCE))
def test_synthea_passes_redaction_and_validation(resource):
    shared = os.environ.get("COHORTFLOW_SHARED")
    if not shared:
        pytest.skip("COHORTFLOW_SHARED is not set")
    path = Path(shared) / "data" / "synthea-100" / f"{resource}.ndjson.gz"
    if not path.exists():
        pytest.skip("Synthea makes no such resource")
    views = [compile_view(CATALOG.load("views", name)) for name in BY_RESOURCE[resource]]
    frames, malformed = read_views(views, [str(path)]).collect()
    assert malformed.is_empty()
    for view in views:
        frame = frames[view.name]
        assert frame.schema == view.schema
        plan = plan_redaction(view.name, view.columns, load_policy(CATALOG, "safe_harbor"))
        redacted = redact(frame.lazy(), plan, KEY, as_of=AS_OF, ages=NO_AGES).collect()
        assert redacted.columns == [column.name for column in plan.output_columns]
        if plan.subject:
            assert redacted.height == frame.get_column(plan.subject).count()
        suite = bind_suite(load_suite(CATALOG, view.name), redacted.columns, known=plan.known_columns)
        report = validate_dataset(redacted, suite, view.name)
        assert report.broken(Severity.CRITICAL) == (), view.name
        assert report.count(Outcome.PASSED) >= 3, view.name
        warned = {item.type for item in report.broken(Severity.WARNING)}
        assert warned == ({EMPTY} if frame.is_empty() else REPEATED.get(view.name, set())), view.name


def test_validation_stops_a_table_whose_ids_were_not_redacted():
    for name in CATALOG.names("views"):
        view = compile_view(CATALOG.load("views", name))
        key = next(column.name for column in view.columns if column.tags.get("cohortflow/role") == "key")
        row = {column: ["a-real-id" if column == key else None] for column in view.schema}
        frame = pl.DataFrame(row, schema=view.schema)
        plan = plan_redaction(name, view.columns, load_policy(CATALOG, POLICIES[0]))
        suite = bind_suite(load_suite(CATALOG, name), frame.columns, known=plan.known_columns)
        broken = {
            (item.type, item.columns)
            for item in validate_dataset(frame, suite, name).broken(Severity.CRITICAL)
        }
        assert ("expect_column_values_to_match_regex", (key,)) in broken, name
