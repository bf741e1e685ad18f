"""``repeat`` follows the data to any depth, in memory and from files."""

import json

import pytest

from cohortflow.fhir.ndjson import Malformation, read_views
from cohortflow.fhir.views import compile_view

PATHS = ["item", "answer.item"]
VIEW = {
    "name": "items",
    "resource": "QuestionnaireResponse",
    "select": [
        {"column": [{"name": "id", "path": "getResourceKey()"}]},
        {
            "repeat": PATHS,
            "column": [
                {"name": "n", "path": "%rowIndex"},
                {"name": "link", "path": "linkId"},
                {"name": "number", "path": "answer.value.ofType(decimal).toString().first()"},
                {"name": "of", "path": "%resource.status"},
            ],
        },
    ],
}


def response(depth, key="q"):
    """Nest items, by turns within items and within their answers."""
    item = {"linkId": str(depth), "answer": [{"valueDecimal": 1.5}]}
    for level in range(depth - 1, 0, -1):
        inner = {"item": [item]} if level % 2 else {"answer": [{"valueString": "x"}, {"item": [item]}]}
        item = {"linkId": str(level), **inner}
    return {"resourceType": "QuestionnaireResponse", "id": key, "status": "completed", "item": [item]}


@pytest.mark.parametrize("depth", [1, 13, 100])
def test_any_depth_in_memory(depth):
    rows = compile_view(VIEW).collect([response(depth)]).rows()
    assert [row[:3] for row in rows] == [("q", level, str(level + 1)) for level in range(depth)]
    assert {row[4] for row in rows} == {"completed"}


def test_files_keep_digits_and_malformed_lines_are_counted(tmp_path):
    file = tmp_path / "QuestionnaireResponse.ndjson"
    deep = json.dumps(response(40)).replace("1.5", "1.50")
    endless = '{"resourceType":"QuestionnaireResponse","id":"e","item":' + "[" * 3000 + "]" * 3000 + "}"
    lines = ["\ufeff" + deep, "", "{", "[]", endless, json.dumps(response(2, "r")), "not JSON"]
    wrong = {"resourceType": "QuestionnaireResponse", "id": "w", "item": [{"linkId": {"a": 1}}]}
    file.write_text("\n".join([*lines, json.dumps(wrong)]), encoding="utf-8")
    frames, bad = read_views([compile_view(VIEW)], [file]).collect()
    found = frames["items"]
    assert found["id"].value_counts(sort=True).rows() == [("q", 40), ("r", 2)]
    assert found["number"].drop_nulls().to_list() == ["1.50", "1.5"]
    assert bad.sort("line")["line"].to_list() == [3, 4, 5, 7, 8]
    assert bad.filter(line=8)["reason"].to_list() == [Malformation.WRONG_JSON_TYPE]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("repeat(item | answer.item).linkId", ["1", "2", "3"]),
        ("repeat(item).linkId", ["1", "2"]),
        ("repeat(item | answer.item).where(linkId > '1').linkId.first()", ["2"]),
        ("repeat(item | answer.item).count()", [3]),
        ("item.select(repeat(item | answer.item).linkId.join('+'))", ["2+3"]),
        ("item.where(repeat(item).exists(linkId = %resource.item.item.linkId.first())).linkId", ["1"]),
        ("repeat(item | answer.item).answer.value.ofType(decimal)", [1.5]),
    ],
)
def test_the_function(path, found):
    column = {"name": "c", "path": path, "collection": True}
    view = compile_view({"resource": "QuestionnaireResponse", "select": [{"column": [column]}]})
    assert view.collect([response(3)]).item().to_list() == found


def test_lineage_names_the_elements():
    view = compile_view(VIEW)
    assert view.lineage["link"] == ("QuestionnaireResponse.item.linkId",)
    assert view.lineage["of"] == ("QuestionnaireResponse.status",)
