"""The page on the leak gate says what the gate does."""

import re
from pathlib import Path

from cohortflow.redaction.leaks.columns import FormRule
from cohortflow.redaction.leaks.shift import UNSHIFTED

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "leak-gate.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_program_prints_what_the_page_shows(capsys):
    (program,) = blocks("python")
    exec(compile(program, "leak-gate.md", "exec"), {})
    assert capsys.readouterr().out == blocks("text")[-1]


def test_every_form_is_explained():
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| ")]
    explained = {rule.strip() for row in rows for rule in re.split(r", (?=not |partly |a full)", row)}
    assert {*map(str, FormRule), UNSHIFTED} <= explained
