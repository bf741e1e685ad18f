"""What the page on local codes shows, works: its files are written and its commands run, in its order."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from cohortflow.cli.main import run
from cohortflow.model import Catalog
from cohortflow.terminology import CodeMapping, load_concept_map
from cohortflow.terminology.review import Decision
from cohortflow.terminology.review_file import read_review

PAGE = Path(__file__).resolve().parents[3] / "docs/terminology-local-codes.md"
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
NEEDS_DATA = "coverage"


@pytest.fixture
def shown(project_copy, tmp_path, monkeypatch, capsys):
    """Follow the page in a project of one's own; return the texts that each command printed."""
    monkeypatch.setenv("AIRFLOW_VAR_COHORTFLOW_LAKE", str(tmp_path / "lake"))
    monkeypatch.setattr("cohortflow.cli.console.stdout._width", 200)
    monkeypatch.chdir(project_copy.root)
    outputs = {}
    for language, title, text in FENCE.findall(PAGE.read_text(encoding="utf-8")):
        if title:
            if title == "review.yaml":
                outputs["proposed"] = read_review(Path(title))
            Path(title).write_text(text, encoding="utf-8")
        for line in text.splitlines() if language == "bash" else ():
            _, *words = shlex.split(line)
            if words[1] != NEEDS_DATA:
                assert run(words) == 0, capsys.readouterr().err
                outputs[words[1]] = capsys.readouterr().out
    return outputs


def test_the_page_leads_from_codes_to_a_map(shown):
    proposed = {row.source_code: row.target_code for row in reversed(shown["proposed"])}
    assert proposed == {"CREA-S": "2160-0", "HBA1C": "4548-4", "COMM": ""}
    assert "3 mappings" in shown["accept"]
    assert "2160-0" in shown["translate"]
    assert "no target" in shown["translate"]
    entries = load_concept_map(Catalog.default(), "ourlab_to_loinc").entries
    assert [entry.source_code for entry in entries] == ["COMM", "CREA-S", "HBA1C"]


def test_the_page_names_every_decision():
    text = PAGE.read_text(encoding="utf-8")
    assert [value for value in Decision if f"`{value}`" not in text] == []


def test_the_pages_mapping_is_one():
    (block,) = [
        text for language, title, text in FENCE.findall(PAGE.read_text()) if language == "yaml" and not title
    ]
    (mapping,) = yaml.safe_load(block)["maps"]["observation"]
    assert CodeMapping(**mapping).min_coverage == 0.95
