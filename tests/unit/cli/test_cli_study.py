"""cohortflow study: exit codes, messages, output for machines."""

import itertools
import json
import re

import pytest

from cohortflow.cli import console
from cohortflow.cli.main import run

STUDY = "diabetes_nightly"


def rewrite(project, old, new):
    path = project.root / "dags" / "studies" / f"{STUDY}.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return text[: text.index(old)].count("\n") + 1


class TestLint:
    def test_all_shipped_studies_pass(self, project_copy, capsys):
        assert run(["study", "lint"]) == 0
        assert capsys.readouterr().out.split() == [STUDY, "ok", "kidney_lab_registry", "ok"]

    def test_a_typo_is_shown_with_line_and_nearest_name_and_the_others_are_still_checked(
        self, project_copy, capsys
    ):
        line = rewrite(project_copy, "min_age:", "mn_age:")
        assert run(["study", "lint"]) == 2
        output = capsys.readouterr()
        assert f"{STUDY}.yaml:{line}: " in output.err
        assert "has no parameter 'mn_age'.\n  -> Did you mean 'min_age'?" in output.err
        assert output.out == "kidney_lab_registry ok\n"

    def test_brackets_in_a_message_are_printed(self, project_copy, capsys):
        rewrite(project_copy, f"study: {STUDY}", "study: Not-A-Name")
        assert run(["study", "lint", STUDY]) == 2
        assert "'^[a-z][a-z0-9_]*$'" in capsys.readouterr().err

    def test_a_file_elsewhere_can_be_checked(self, project_copy, tmp_path, capsys):
        path = tmp_path / "draft.yaml"
        text = (project_copy.root / "dags" / "studies" / f"{STUDY}.yaml").read_text()
        path.write_text(text.replace(f"study: {STUDY}", "study: draft"))
        assert run(["study", "lint", str(path)]) == 0

    def test_an_unknown_environment_is_refused(self, project_copy, capsys):
        assert run(["study", "lint", "--env", "prd"]) == 2
        assert "Unknown environment 'prd'.\n  -> Did you mean 'prod'?" in capsys.readouterr().err


class TestPlan:
    def test_every_column_is_shown_with_its_action(self, project_copy, capsys):
        assert run(["study", "plan", STUDY, "--json"]) == 0
        plan = json.loads(capsys.readouterr().out)
        assert plan["study"] == STUDY
        actions = {
            dataset: {column["column"]: column["action"] for column in columns}
            for dataset, columns in plan["columns"].items()
        }
        assert actions["patient"]["family_name"] == "drop"
        assert actions["patient"]["patient_id"] == "hash"
        assert actions["patient"]["birth_date"] == "generalize to year"
        assert actions["patient"]["postal_code"] == "generalize to zip3"
        assert actions["condition"]["code"] == "keep"
        assert actions["condition"]["icd10cm_code"] == "keep"
        every = [column for columns in plan["columns"].values() for column in columns]
        assert all(column["action"] and column["reason"] and column["class"] for column in every)
        steps = [step["id"] for step in plan["steps"]]
        assert steps[0] == "extract"
        assert steps.index("redact.condition") < steps.index("validate") < steps.index("land.condition")

    def test_what_others_are_taken_to_know_is_shown(self, project_copy, capsys):
        assert run(["study", "plan", STUDY, "--env", "prod", "--json"]) == 0
        risk = json.loads(capsys.readouterr().out)["risk"]
        assert (risk["demand"], risk["on_failure"]) == ({"k": "5"}, "suppress")
        known = {row["column"]: row for row in risk["quasi_identifiers"]}
        assert known["patient.gender"] == {
            "column": "patient.gender",
            "compared": "as published",
            "suppressible": True,
        }
        assert run(["study", "plan", STUDY, "--env", "prod"]) == 0
        assert "patient.gender" in capsys.readouterr().out

    def test_the_columns_are_those_of_the_datasets_that_land(self, project_copy, capsys):
        run(["study", "plan", "kidney_lab_registry", "--json"])
        plan = json.loads(capsys.readouterr().out)
        landed = {
            step["id"].removeprefix("land.") for step in plan["steps"] if step["id"].startswith("land.")
        }
        assert set(plan["columns"]) == landed

    def test_people_see_the_same(self, project_copy, capsys, monkeypatch):
        monkeypatch.setattr(console.stdout, "_width", 250)
        assert run(["study", "plan", STUDY]) == 0
        output = capsys.readouterr().out
        assert "patient under 'safe_harbor'" in output
        assert re.search(r"family_name\s*│\s*│\s*DIRECT_IDENTIFIER\s*│\s*drop", output)

    def test_parameters_of_a_trial_make_a_variant(self, project_copy, capsys):
        assert run(["study", "plan", STUDY, "--json", "-p", "min_age=40", "-p", "lab_minimum=7.5"]) == 0
        plan = json.loads(capsys.readouterr().out)
        assert re.fullmatch(rf"{STUDY}~[0-9a-f]{{8}}", plan["study"])
        assert (plan["parameters"]["min_age"], plan["parameters"]["lab_minimum"]) == (40, 7.5)

    @pytest.mark.parametrize("unit", ["%", "{score}", "[iU]/L", "@", "*"])
    def test_a_value_that_is_no_yaml_is_text(self, project_copy, capsys, unit):
        assert run(["study", "plan", STUDY, "--json", "-p", f"lab_unit='{unit}'"]) == 0
        quoted = json.loads(capsys.readouterr().out)["parameters"]
        if run(["study", "plan", STUDY, "--json", "-p", f"lab_unit={unit}"]) == 0:
            assert json.loads(capsys.readouterr().out)["parameters"] == quoted
        else:
            assert unit.startswith("{"), "YAML of another kind: a mapping"
            assert "Parameter 'lab_unit': a value of type string" in capsys.readouterr().err

    def test_brackets_in_a_title_are_printed(self, project_copy, capsys):
        rewrite(project_copy, "title: Type 2 diabetes, nightly", 'title: "Diabetes [pilot] [/]"')
        assert run(["study", "plan", STUDY]) == 0
        assert "Diabetes [pilot] [/] in dev" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["-p", "min_age"], "'min_age' is not name=value."),
            (["-p", "min_age=old"], "Parameter 'min_age': a value of type integer is required."),
            (["-p", "source=other"], "A run cannot change source."),
            (["-p", "min_aeg=3"], "Did you mean 'min_age'?"),
            (["--env", "staging "], "Did you mean 'staging'?"),
        ],
    )
    def test_bad_input_is_exit_code_2(self, project_copy, capsys, arguments, message):
        assert run(["study", "plan", STUDY, *arguments]) == 2
        output = capsys.readouterr()
        assert message in output.err
        assert output.err.startswith("error: ")
        assert output.out == ""


def test_graph_is_a_mermaid_flowchart(project_copy, capsys):
    assert run(["study", "graph", STUDY]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "flowchart LR"
    nodes, edges = set(), []
    for line in map(str.strip, lines[1:]):
        if match := re.fullmatch(r"(\w+) --> (\w+)", line):
            edges.append(match.groups())
        elif match := re.fullmatch(r'(\w+)(\["\w+"\]|\[\("\w+"\)\]|\{\{[\w ]+\}\})', line):
            nodes.add(match[1])
        else:
            assert re.fullmatch(r"subgraph \w+|end", line), line
    assert {end for edge in edges for end in edge} == nodes
    way = ("redact_condition", "assess_risk", "validate", "scan_for_leaks", "land_condition")
    assert set(itertools.pairwise(way)) <= set(edges)


class TestRun:
    def test_without_a_lake_nothing_starts(self, project_copy, capsys, monkeypatch):
        monkeypatch.delenv("AIRFLOW_VAR_COHORTFLOW_LAKE", raising=False)
        assert run(["study", "run", STUDY]) == 2
        assert "outside of Airflow as AIRFLOW_VAR_COHORTFLOW_LAKE" in capsys.readouterr().err

    def test_without_a_key_nothing_starts(self, project_copy, capsys, monkeypatch, tmp_path):
        monkeypatch.setenv("AIRFLOW_VAR_COHORTFLOW_LAKE", str(tmp_path / "lake"))
        monkeypatch.delenv("AIRFLOW_CONN_COHORTFLOW_KEY_DEV", raising=False)
        assert run(["study", "run", STUDY, "--date", "2026-11-01"]) == 2
        assert "openssl rand -hex 32" in capsys.readouterr().err
        files = [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]
        assert {path.relative_to(tmp_path).parts[:3] for path in files} == {("lake", "dev", "audit")}

    def test_a_date_that_is_none_is_refused(self, project_copy, capsys):
        assert run(["study", "run", STUDY, "--date", "1.11.2026"]) == 2
        assert "--date" in capsys.readouterr().err
