"""The pages on risk say what the program does."""

import json
import re
from pathlib import Path

import pytest
import yaml

from cohortflow.workflow.environment import load_environment
from cohortflow.workflow.risk_plan import PopulationTable
from cohortflow.workflow.spec import RiskSpec

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = (DOCS / "reidentification-risk.md").read_text(encoding="utf-8")
BOARD = (DOCS / "privacy-board.md").read_text(encoding="utf-8")


def block(title):
    (text,) = re.findall(rf'^```yaml title="{title}"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
    return yaml.safe_load(text)


def test_the_settings_are_accepted_and_all_are_documented():
    spec = RiskSpec.model_validate(block("risk")["risk"])
    assert (spec.k, spec.on_failure, spec.sensitive) == (11, "suppress", ("condition.code",))
    table = PAGE[PAGE.index("| key | default | meaning |") :]
    assert [key for key in RiskSpec.model_fields if f"`{key}`" not in table] == []


def test_the_population_is_accepted():
    table = PopulationTable.model_validate(block("population"))
    assert table.counts == f"{table.population}.csv"


@pytest.mark.parametrize("name", ["dev", "staging", "prod"])
def test_the_environments_k_is_documented(project, name):
    least = load_environment(name, project.catalog).minimum_k
    assert re.search(rf"^\| `{name}` \| {least}(:| \|)", PAGE, re.MULTILINE)
    assert re.search(rf"`{name}`[^.|]*\b{least}\b", BOARD)


def test_the_number_of_tables_and_measures_is_that_of_the_comparison():
    path = DOCS.parent / "tests" / "golden" / "risk_pycanon.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    measures = sum(1 + 3 * len(table["sensitive"]) for table in content["measures"])
    assert len(content["measures"]) == 12
    assert f"{measures} of {measures} agree with version {content['pycanon']}" in PAGE
