"""The page on the scrubbing of texts says what the program does."""

import re
from pathlib import Path

import yaml

from cohortflow.model import Catalog
from cohortflow.redaction import load_policy
from cohortflow.redaction.scrub import TAGS, load_lexicon
from cohortflow.workflow.spec import RedactionSpec

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "scrubbing.md").read_text(encoding="utf-8")


def block(title):
    (text,) = re.findall(rf'^```yaml title="{title}"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
    return yaml.safe_load(text)


def test_the_example_is_true():
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(code, "docs/scrubbing.md", "exec"), {})


def test_the_settings_are_accepted():
    spec = RedactionSpec.model_validate(block("template")["redaction"])
    assert spec.overrides["document_reference"]["content_data"].reason
    assert spec.policy == "expert"


def test_the_policies_that_scrub_are_those_that_are_named():
    catalog = Catalog.default()
    allowing = [
        name
        for name in catalog.names("redaction")
        if "FREE_TEXT" in str(load_policy(catalog, name).overridable)
    ]
    named = re.search(r"the policies (.+?) let it ask", PAGE, re.DOTALL)[1]
    assert set(re.findall(r"`(\w+)`", named)) == set(allowing)


def test_all_tags_are_named():
    assert [tag for tag in TAGS if f"`[{tag}]`" not in PAGE] == []


def test_words_can_be_added(tmp_path):
    (tmp_path / "scrub").mkdir()
    content = yaml.safe_dump(block("catalog/scrub/our_words.yaml"))
    (tmp_path / "scrub" / "our_words.yaml").write_text(content)
    lexicon = load_lexicon(Catalog(tmp_path))
    assert "handover" in lexicon.common
    assert ("wilhelmina", "mina") in lexicon.nicknames.rows()
