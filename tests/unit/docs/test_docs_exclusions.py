"""The page on exclusions says what the code does."""

import re
from pathlib import Path

from cohortflow.model import Catalog
from cohortflow.terminology import load_value_set
from cohortflow.workflow.exclusion_spec import ExclusionsSpec, LabelRule
from cohortflow.workflow.plan import compile_plan

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "exclusions.md").read_text(encoding="utf-8")


def rows(pattern):
    return re.findall(pattern, PAGE, re.MULTILINE)


def test_every_kind_and_action_is_documented():
    named = set(rows(r"^\| `([a-z_]+)` \|"))
    assert set(ExclusionsSpec.model_fields) <= named
    assert set(LabelRule.model_json_schema()["properties"]["action"]["enum"]) <= named


def test_the_table_of_labels_is_that_of_the_catalog():
    catalog = Catalog.default()
    shipped = {
        name: {code for part in load_value_set(catalog, name).include for code in part.codes or ()}
        for name in catalog.names("valuesets")
        if name.startswith(("sensitivity_", "confidentiality_"))
    }
    documented = {
        name: set(re.findall(r"`([A-Za-z0-9]+)`", codes))
        for name, codes in rows(r"^\| `((?:sensitivity|confidentiality)_\w+)` \| (.*) \|$")
    }
    assert documented == shipped


def test_the_example_leaves_out_what_the_page_says(project_copy):
    (text,) = rows(r'^```yaml title="dags/studies/hypertension_by_consent.yaml"\n((?:.*\n)*?)```')
    path = project_copy.root / "dags/studies/hypertension_by_consent.yaml"
    path.write_text(text)
    made = compile_plan(project_copy.load_study(path), "prod", project_copy).exclusions
    assert made.consent == "opt_in"
    assert made.minors_below == 18
    # Production asks for restricted records to be left out, where the study would mask them.
    actions = {rule.value_set: rule.action for rule in made.labels}
    assert actions["confidentiality_restricted"] == "exclude_record"
    assert actions["sensitivity_hiv"] == "exclude_record"
