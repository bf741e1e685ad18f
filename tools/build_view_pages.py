"""Write ``docs/views/``: one page for each view of the catalog, and their index.

Everything on a page comes from the view itself, from the table of PHI classes and from the policy, so
that a page cannot say what the view does not do.

    python tools/build_view_pages.py            # write the pages
    python tools/build_view_pages.py --check    # fail if a page is not what would be written
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cohortflow.fhir.views import analyze_view
from cohortflow.model import Catalog, Column
from cohortflow.redaction import RedactionPlan, load_policy, plan_redaction

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "views"
POLICY = "safe_harbor"
ROLES = {"key": "key", "subject": "patient", "time": "time"}


def build(catalog: Catalog) -> dict[str, str]:
    """Return the text of each page by its file name."""
    documents = {name: catalog.load("views", name) for name in catalog.names("views")}
    pages = {f"{name}.md": _page(name, document, catalog) for name, document in documents.items()}
    return {"index.md": _index(documents), **pages}


def _index(documents: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        f"| [`{name}`]({name}.md) | {document['resource']} | {_sentence(document['description'])} |"
        for name, document in sorted(documents.items(), key=lambda item: (item[1]["resource"], item[0]))
    ]
    return "\n".join(
        [
            "# Views",
            "",
            (
                f"The catalog has {len(documents)} [SQL-on-FHIR](https://sql-on-fhir.org/) views, in"
                " `include/catalog/views/`. A study publishes those that it names, each as a dataset; add"
                " your own as files beside them. This page and those of the views are written by"
                " `tools/build_view_pages.py`."
            ),
            "",
            "| view | resource | rows |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _page(name: str, document: Mapping[str, Any], catalog: Catalog) -> str:
    plan = plan_redaction(name, analyze_view(document).columns, load_policy(catalog, POLICY))
    return "\n".join(
        [
            f"# {document['title']}",
            "",
            f"`{name}` · resource {document['resource']} · `include/catalog/views/{name}.json`",
            "",
            f"**Purpose.** {document['purpose']}",
            "",
            f"**Rows.** {document['description']}",
            "",
            *_limits(document),
            "## Columns",
            "",
            "| column | type | FHIR elements | meaning |",
            "|---|---|---|---|",
            *(_column_row(entry.column) for entry in plan.columns),
            "",
            *_privacy(plan),
            "",
        ]
    )


def _limits(document: Mapping[str, Any]) -> list[str]:
    conditions = []
    for where in document.get("where", ()):
        path = where["path"]
        for constant in document.get("constant", ()):
            value = next(value for key, value in constant.items() if key != "name")
            path = path.replace(f"%{constant['name']}", f"'{value}'")
        conditions.append(f"`{path}`")
    return [f"**Only where.** {', '.join(conditions)}", ""] if conditions else []


def _column_row(column: Column) -> str:
    role = ROLES.get(column.tags.get("cohortflow/role", ""), "")
    name = f"`{column.name}`" + (f" ({role})" if role else "")
    kind = f"list of {column.type}" if column.collection else str(column.type)
    paths = "<br>".join(f"`{path}`" for path in column.paths)
    return f"| {name} | {kind} | {paths} | {column.description} |"


def _privacy(plan: RedactionPlan) -> list[str]:
    rows = [
        f"| `{entry.column.name}` | {entry.column.phi.name} | {entry.treatment} "
        f"| {f'`{entry.output.name}`' if entry.output else ''} |"
        for entry in plan.columns
    ]
    subject = (
        f"Rows belong to the patient in `{plan.subject}`; rows without one are dropped."
        if plan.subject
        else "Rows belong to no patient: a cohort does not limit them, and no dates can be shifted."
    )
    return [
        "## Privacy",
        "",
        (
            f"{subject} The policy `{POLICY}` treats the columns so; other policies are on the page"
            " [Privacy](../environments-and-redaction.md)."
        ),
        "",
        f"| column | PHI class | under `{POLICY}` | published as |",
        "|---|---|---|---|",
        *rows,
    ]


def _sentence(text: str) -> str:
    """Return the first sentence of a text."""
    return text.partition(". ")[0].rstrip(".") + "."


def main(arguments: list[str]) -> int:
    """Write or check the pages; return the exit code."""
    pages = build(Catalog(ROOT / "include" / "catalog"))
    present = {path.name: path.read_text(encoding="utf-8") for path in TARGET.glob("*.md")}
    if "--check" in arguments:
        stale = sorted(name for name in {*pages, *present} if pages.get(name) != present.get(name))
        if stale:
            print(f"Out of date: {', '.join(stale)}. Run: python tools/build_view_pages.py")
        return 1 if stale else 0
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in present.keys() - pages.keys():
        (TARGET / name).unlink()
    for name, text in pages.items():
        (TARGET / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
