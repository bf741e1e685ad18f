"""cohortflow view: tables from NDJSON, what a view does, and what is wrong with it."""

import gzip
import json

import polars as pl
import pytest

from cohortflow.cli.main import run
from cohortflow.model import Catalog

VIEW = {
    "name": "people",
    "resource": "Patient",
    "select": [
        {
            "column": [
                {"name": "id", "path": "getResourceKey()", "description": "The key."},
                {"name": "born", "path": "birthDate", "tag": [{"name": "ansi/type", "value": "DATE"}]},
            ]
        }
    ],
}


def line(key, **more):
    return json.dumps({"resourceType": "Patient", "id": key, "birthDate": "1970-06", **more}) + "\n"


@pytest.fixture
def view(tmp_path):
    path = tmp_path / "people.json"
    path.write_text(json.dumps(VIEW), encoding="utf-8")
    return str(path)


@pytest.fixture
def export(tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "Patient.1.ndjson").write_text(line("a") + "oops\n" + line("b"))
    (folder / "Patient.2.ndjson.gz").write_bytes(gzip.compress(line("c").encode()))
    (folder / "PatientList.ndjson").write_text("not of this type")
    (folder / "Observation.ndjson").write_text('{"resourceType":"Observation","id":"o"}\n')
    return folder


def shown(text):
    return " ".join(text.split())


@pytest.mark.parametrize("command", ["", "run", "explain", "lint", "conformance"])
def test_every_command_explains_itself(command, capsys):
    assert run(["view", *command.split(), "--help"]) == 0
    assert "Usage: " in capsys.readouterr().out


class TestRun:
    @pytest.mark.parametrize("suffix", [".parquet", ".csv", ".ndjson"])
    def test_a_folder_becomes_a_table(self, suffix, view, export, tmp_path, capsys):
        out = tmp_path / "new" / f"people{suffix}"
        assert run(["view", "run", view, str(export), "-o", str(out)]) == 0
        read = {".parquet": pl.read_parquet, ".csv": pl.read_csv, ".ndjson": pl.read_ndjson}[suffix]
        assert read(out)["id"].to_list() == ["a", "b", "c"]
        assert [path.name for path in out.parent.iterdir()] == [out.name]
        said = shown(capsys.readouterr().out)
        assert "3 rows of people from 2 files" in said
        assert "1 malformed lines were left out" in said
        assert "--malformed FILE lists them" in said

    def test_malformed_lines_are_listed(self, view, export, tmp_path, capsys):
        bad = tmp_path / "bad.csv"
        words = ["view", "run", view, str(export), "-o", str(tmp_path / "p.parquet"), "--malformed", str(bad)]
        assert run([*words, "--json"]) == 0
        summary = json.loads(capsys.readouterr().out)
        assert (summary["rows"], summary["malformed"], len(summary["files"])) == (3, 1, 2)
        file = str(export / "Patient.1.ndjson")
        assert pl.read_csv(bad).rows() == [(file, 2, "not one JSON value")]

    def test_files_and_patterns(self, view, export, tmp_path, capsys):
        inputs = [str(export / "Patient.*.gz"), str(export / "Patient.1.ndjson")]
        out = tmp_path / "p.parquet"
        assert run(["view", "run", view, *inputs, inputs[1], "-o", str(out)]) == 0
        assert pl.read_parquet(out)["id"].to_list() == ["c", "a", "b"]
        assert "from 2 files" in shown(capsys.readouterr().out)

    def test_files_of_a_folder_may_be_compressed(self, view, tmp_path):
        lines = pl.DataFrame([json.loads(line(key)) for key in "ab"])
        lines.write_ndjson(tmp_path / "Patient.ndjson.zst", compression="zstd")
        out = tmp_path / "p.csv"
        assert run(["view", "run", view, str(tmp_path), "-o", str(out)]) == 0
        assert pl.read_csv(out)["id"].to_list() == ["a", "b"]

    def test_a_view_of_the_catalog(self, export, tmp_path):
        out = tmp_path / "p.parquet"
        assert run(["view", "run", "patient", str(export), "-o", str(out)]) == 0
        assert pl.read_parquet(out)["patient_id"].to_list() == ["a", "b", "c"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nonesuch", "{export}", "-o", "{tmp}/p.csv"], "No entry 'nonesuch' in the catalog's views"),
            (["{tmp}/gone.json", "{export}", "-o", "{tmp}/p.csv"], "gone.json: The file cannot be read"),
            (["{view}", "{tmp}/gone.ndjson", "-o", "{tmp}/p.csv"], "gone.ndjson: There is no such file."),
            (["{view}", "{tmp}", "-o", "{tmp}/p.csv"], "No Patient files are there."),
            (["{view}", "{export}", "-o", "{tmp}/p.xlsx"], "'.xlsx' is no format that can be written."),
            (["{view}", "{export}", "-o", "{view}/p.csv"], "The folder cannot be made"),
            (["{view}", "{export}"], "Missing option '--out'"),
        ],
    )
    def test_wrong_input_is_exit_code_2(self, arguments, message, view, export, tmp_path, capsys):
        words = [word.format(view=view, export=export, tmp=tmp_path) for word in arguments]
        assert run(["view", "run", *words]) == 2
        assert message in shown(capsys.readouterr().err)
        assert not list(tmp_path.glob("p.*"))

    def test_csv_has_no_lists(self, export, tmp_path, capsys):
        path = tmp_path / "names.json"
        column = {"name": "given", "path": "name.given", "collection": True}
        path.write_text(json.dumps({"resource": "Patient", "select": [{"column": [column]}]}))
        words = ["view", "run", str(path), str(export), "-o"]
        assert run([*words, str(tmp_path / "n.csv")]) == 2
        assert "CSV cannot hold the lists of given." in shown(capsys.readouterr().err)
        assert run([*words, str(tmp_path / "n.ndjson")]) == 0

    def test_a_failure_leaves_the_old_table(self, view, tmp_path, capsys):
        out = tmp_path / "out" / "p.parquet"
        out.parent.mkdir()
        out.write_text("the old one")
        packed = gzip.compress("".join(line(f"p{n}") for n in range(5000)).encode())
        cut = tmp_path / "Patient.ndjson.gz"
        cut.write_bytes(packed[: len(packed) // 2])
        assert run(["view", "run", view, str(cut), "-o", str(out)]) == 1
        assert f"{cut}: A file cannot be read to its end" in shown(capsys.readouterr().err)
        assert out.read_text() == "the old one"
        assert [path.name for path in out.parent.iterdir()] == ["p.parquet"]


class TestExplain:
    def test_schema_lineage_reads_and_plan(self, view, capsys):
        assert run(["view", "explain", view, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["columns"][0] == {
            "name": "id",
            "type": "String",
            "paths": ["Patient.id"],
            "tags": {},
            "description": "The key.",
        }
        assert told["columns"][1]["type"] == "Date"
        assert told["reads"] == {"birthDate": "String", "id": "String"}
        assert "birthDate" in told["plan"]

    def test_for_people(self, capsys):
        assert run(["view", "explain", "patient"]) == 0
        said = capsys.readouterr().out
        assert "patient_id" in said
        assert "Read of each resource" in said
        assert "Plan" in said


class TestLint:
    def test_the_catalog_is_clean(self, capsys):
        assert run(["view", "lint"]) == 0
        said = capsys.readouterr().out.splitlines()
        assert said == [f"{name} ok" for name in Catalog.default().names("views")]

    def test_a_fault_is_named_with_its_place(self, view, tmp_path, capsys):
        wrong = tmp_path / "wrong.json"
        wrong.write_text(json.dumps({**VIEW, "where": [{"path": "birthdate.exists()"}]}))
        broken = tmp_path / "broken.json"
        broken.write_text("{")
        assert run(["view", "lint", view, str(wrong), str(broken)]) == 2
        said = capsys.readouterr()
        assert "people.json ok" in said.out
        assert "view people.where[0].path: 'birthdate.exists()', character 1" in said.err
        assert "Did you mean 'birthDate'?" in said.err
        assert "broken.json: Not JSON" in said.err

    def test_for_machines(self, view, tmp_path, capsys):
        (tmp_path / "list.json").write_text("[]")
        assert run(["view", "lint", view, str(tmp_path / "list.json"), "--json"]) == 2
        good, bad = json.loads(capsys.readouterr().out)
        assert good == {"view": view, "ok": True, "columns": 2}
        assert bad["error"]["message"] == "A ViewDefinition must be an object."


class TestConformance:
    @pytest.fixture
    def suite(self, tmp_path):
        folder = tmp_path / "tests"
        folder.mkdir()
        resource = {"resourceType": "Patient", "id": "a"}
        cases = [
            {"title": "good", "view": VIEW, "expect": [{"id": "a"}]},
            {"title": "bad", "view": VIEW, "expect": [{"id": "b"}]},
        ]
        (folder / "own.json").write_text(json.dumps({"resources": [resource], "tests": cases}))
        return folder

    def test_a_failed_test_is_exit_code_1(self, suite, tmp_path, capsys):
        report = tmp_path / "new" / "report.json"
        assert run(["view", "conformance", str(suite), "--report", str(report)]) == 1
        said = capsys.readouterr()
        assert "1 of 2 tests passed" in said.out
        assert "own.json bad: 1 of 1 rows differ." in said.err
        good, bad = json.loads(report.read_text())["own.json"]["tests"]
        assert (good["name"], good["result"]) == ("good", {"passed": True})
        assert bad["result"] == {"passed": False, "reason": "1 of 1 rows differ."}
        assert bad["actual"] == [{"id": "a", "born": None}]

    def test_all_passed(self, suite, capsys):
        document = json.loads((suite / "own.json").read_text())
        del document["tests"][1]
        (suite / "own.json").write_text(json.dumps(document))
        assert run(["view", "conformance", str(suite), "--json"]) == 0
        assert list(json.loads(capsys.readouterr().out)) == ["own.json"]

    def test_no_tests(self, tmp_path, capsys):
        assert run(["view", "conformance", str(tmp_path)]) == 2
        assert "There are no test files." in capsys.readouterr().err
