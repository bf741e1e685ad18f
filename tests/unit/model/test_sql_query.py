import pytest
import yaml

from cohortflow.errors import CatalogError
from cohortflow.model import Catalog
from cohortflow.model.sql_query import SqlQuery

DOCUMENT = {
    "query": "problems",
    "title": "Problems",
    "key": ["id"],
    "columns": [
        {"name": "id", "type": "integer", "path": "Condition.id", "role": "key", "target": "Condition"}
    ],
}


def load(tmp_path, sql="SELECT id FROM problems", **changes):
    folder = tmp_path / "queries"
    folder.mkdir()
    (folder / "problems.yaml").write_text(yaml.safe_dump({**DOCUMENT, **changes}))
    if sql is not None:
        (folder / "problems.sql").write_text(sql)
    return SqlQuery.load(Catalog(tmp_path), "problems")


def test_a_query_is_its_two_files(tmp_path):
    query = load(tmp_path, "SELECT id FROM problems;\n")
    assert query.sql == "SELECT id FROM problems"
    column = query.columns[0].to_column()
    assert (column.paths, column.target, dict(column.tags)) == (
        ("Condition.id",),
        "Condition",
        {"cohortflow/role": "key"},
    )


def test_shipped_queries_load():
    catalog = Catalog.default()
    assert [SqlQuery.load(catalog, name).query for name in catalog.names("queries")] == [
        "clarity_problem_list"
    ]


@pytest.mark.parametrize(
    ("sql", "changes", "message"),
    [
        (None, {}, "SQL file is missing"),
        (" ;", {}, "the file is empty"),
        ("SELECT 1", {"key": ["code"]}, "'key' names 'code', which is no column"),
        ("SELECT 1", {"key": []}, "key: "),
        ("SELECT 1", {"columns": DOCUMENT["columns"] * 2}, "the column 'id' is declared twice"),
        ("SELECT 1", {"columns": [{"name": "id", "type": "datetime"}]}, "a datetime; use integer, string"),
        ("SELECT 1", {"timezone": "Chicago"}, "timezone: "),
        ("SELECT 1", {"query": "others"}, "The file is named 'problems', the query in it 'others'"),
        ("SELECT 1", {"keys": ["id"]}, "keys: Extra inputs"),
        ("SELECT 1", {"columns": [{"name": "ID", "type": "integer"}]}, r"columns\.0\.name: "),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(tmp_path, sql, changes, message):
    with pytest.raises(CatalogError, match=message) as caught:
        load(tmp_path, sql, **changes)
    assert "problems." in caught.value.place


def test_two_subjects_are_refused(tmp_path):
    columns = [{"name": name, "type": "string", "role": "subject"} for name in ("id", "other")]
    with pytest.raises(CatalogError, match="two columns have the role 'subject'"):
        load(tmp_path, columns=columns)


def test_what_decides_the_rows_decides_the_digest(tmp_path):
    query = load(tmp_path)
    assert query.model_copy(update={"sql": "SELECT id FROM other"}).digest != query.digest
