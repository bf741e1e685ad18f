"""The pages of the catalog's views say what the views do."""

from pathlib import Path

import build_view_pages
import pytest

from cohortflow.model import Catalog

ROOT = Path(__file__).resolve().parents[3]
PAGES = build_view_pages.build(Catalog(ROOT / "include" / "catalog"))


def test_every_view_has_a_page_and_no_page_is_left_over():
    present = {path.name for path in (ROOT / "docs" / "views").glob("*.md")}
    views = Catalog(ROOT / "include" / "catalog").names("views")
    assert present == set(PAGES) == {"index.md", *(f"{name}.md" for name in views)}


@pytest.mark.parametrize("name", sorted(PAGES))
def test_pages_are_what_the_tool_writes(name):
    found = (ROOT / "docs" / "views" / name).read_text(encoding="utf-8")
    assert found == PAGES[name], "run: python tools/build_view_pages.py"


def test_the_index_and_the_site_lead_to_every_page():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for name in PAGES:
        assert f"views/{name}\n" in navigation
        assert name == "index.md" or f"]({name})" in PAGES["index.md"]


def test_a_page_names_every_column_with_its_class_and_treatment():
    page = PAGES["coverage.md"]
    assert "| `subscriber_number` | string | `Coverage.subscriberId` |" in page
    assert "| `subscriber_number` | DIRECT_IDENTIFIER | drop |  |" in page
    assert "| `started_at` | DATE | generalize to year | `started_year` |" in page


def test_the_check_fails_for_a_page_that_is_out_of_date(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build_view_pages, "TARGET", tmp_path)
    assert build_view_pages.main([]) == 0
    assert build_view_pages.main(["--check"]) == 0
    (tmp_path / "goal.md").write_text("another text")
    (tmp_path / "no_view.md").write_text("left over")
    assert build_view_pages.main(["--check"]) == 1
    assert "goal.md, no_view.md" in capsys.readouterr().out
    assert build_view_pages.main([]) == 0
    assert build_view_pages.main(["--check"]) == 0
