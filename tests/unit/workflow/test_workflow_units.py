"""Units of a study: from the template through the plan to the table and its report."""

import json
import subprocess
import sys

import polars as pl
import pytest

from cohortflow.engine import read_table, write_table
from cohortflow.errors import CatalogError, CoverageError, StudyError
from cohortflow.model import PhiClass
from cohortflow.redaction.actions import Action
from cohortflow.workflow.plan import StepKind, compile_plan
from cohortflow.workflow.steps.map import map_view

ADDED = ["value_quantity_canonical", "value_unit_canonical", "unit_status", "plausible"]
LOINC = "http://loinc.org"


def compile_study(project, **overrides):
    return compile_plan(project.load_study("diabetes_nightly"), "dev", project, overrides)


def change(project, old, new):
    path = project.templates / "observational_cohort.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


class TestPlan:
    def test_observations_get_four_columns_and_a_step(self, project):
        plan = compile_study(project)
        dataset = plan.datasets["observation"]
        columns = {column.name: column for column in dataset.columns}
        assert list(columns)[-4:] == ADDED
        assert [columns[name].phi for name in ADDED] == [
            PhiClass.NUMBER,
            PhiClass.SAFE_CODE,
            PhiClass.SAFE_CODE,
            PhiClass.NUMBER,
        ]
        assert plan.step("redact.observation").needs == ("map.observation",)
        assert plan.step("map.observation").kind is StepKind.MAP

    @pytest.mark.parametrize("environment", ["dev", "staging", "prod"])
    @pytest.mark.parametrize("study", ["diabetes_nightly", "kidney_lab_registry"])
    def test_every_policy_publishes_them(self, project, study, environment):
        plan = compile_plan(project.load_study(study), environment, project, {})
        published = [column.name for column in plan.datasets["observation"].output_columns]
        assert set(ADDED) <= set(published)

    def test_what_is_dropped_of_a_value_is_dropped_of_what_came_from_it(self, project_copy):
        change(
            project_copy,
            "    policy: ${redaction_policy}\n",
            "    policy: ${redaction_policy}\n    overrides:\n      observation:\n"
            "        value_quantity: {action: drop}\n",
        )
        redaction = compile_study(project_copy).datasets["observation"].redaction
        dropped = {entry.column.name for entry in redaction.columns if entry.treatment.action is Action.DROP}
        assert {"value_quantity", "value_quantity_canonical", "plausible"} <= dropped
        assert "unit_status" not in dropped

    @pytest.mark.parametrize(
        ("entry", "message", "remedy"),
        [
            ("unit: value_units", "reads the column 'value_units'", "Did you mean 'value_unit'?"),
            (
                "prefix: a_\n      - prefix: b_",
                "adds the column 'value_quantity_canonical'",
                "each value once",
            ),
        ],
    )
    def test_columns_that_do_not_fit_do_not_compile(self, project_copy, entry, message, remedy):
        change(project_copy, "max_unknown_units: ${max_unknown_units}", entry)
        with pytest.raises(StudyError, match=message) as caught:
            compile_study(project_copy)
        assert remedy in caught.value.remedy
        assert caught.value.place.endswith("observational_cohort.yaml")

    def test_a_view_that_does_not_exist_is_named_with_its_line(self, project_copy):
        change(project_copy, "  units:\n    observation:", "  units:\n    observations:")
        with pytest.raises(StudyError, match="'units' names 'observations'") as caught:
            compile_study(project_copy)
        assert caught.value.remedy == "Did you mean 'observation'?"

    def test_the_catalogs_units_decide_the_rows(self, project_copy):
        before = compile_study(project_copy).digest
        path = project_copy.catalog.path("units", "vitals")
        path.write_text(path.read_text().replace("plausible: [4, 50]", "plausible: [5, 50]"))
        assert compile_study(project_copy).digest != before

    def test_a_malformed_file_of_units_does_not_compile(self, project_copy):
        path = project_copy.catalog.path("units", "vitals")
        path.write_text(path.read_text().replace("8867-4:", "8867-5:"))
        with pytest.raises(CatalogError, match="check digit") as caught:
            compile_study(project_copy)
        assert f"{path}:" in caught.value.place

    def test_compiling_loads_no_parser_of_units(self, project):
        program = (
            "import sys; from pathlib import Path; from cohortflow.workflow.study import Project\n"
            "from cohortflow.workflow.plan import compile_plan\n"
            f"project = Project(Path({str(project.root)!r}))\n"
            "compile_plan(project.load_study('diabetes_nightly'), 'dev', project, {})\n"
            "print([n for n in ('lark', 'pint', 'ucumvert', 'polars') if n in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


class TestStep:
    @pytest.fixture
    def run_of(self, open_run):
        """Return a function that maps given results of a cohort of one."""

        def make(rows, **overrides):
            run = open_run(overrides=overrides)
            schema = {"value_quantity": pl.Float64, "value_unit": pl.String, "code": pl.String}
            frame = pl.LazyFrame(rows, schema=schema, orient="row").with_columns(
                code_system=pl.lit(LOINC), patient_id=pl.lit("p1")
            )
            write_table(frame, "observation", run.output_path("transform", "observation"), run.work)
            cohort = pl.LazyFrame({"patient_id": ["p1"]})
            write_table(cohort, "cohort", run.output_path("select_cohort", "cohort"), run.work)
            return run

        return make

    def test_adds_canonical_values_and_a_report(self, run_of):
        rows = [(48.0, "mmol/mol", "4548-4")] * 12 + [(6.5, "%", "4548-4"), (70.0, "g/dL", "2885-2")]
        run = run_of(rows)
        result = map_view(run, "observation")
        table = read_table(run.output_path("map", "observation"), run.work).collect()
        assert table.height == len(rows)
        assert table["value_quantity_canonical"].to_list() == [
            *[pytest.approx(6.54304)] * 12,
            6.5,
            70.0,
        ]
        assert table["plausible"].to_list() == [True] * 13 + [False]
        report = result.facts["units"]["value_quantity"]
        assert (report["rows_usable"], report["implausible"]) == (14, 1)
        assert [code["code"] for code in report["codes"]] == ["4548-4"]  # a rare code is not shown
        stored = json.loads(run.datasets.read(f"{run.report_path('observation.units')}.json"))
        assert stored["units"]["observation"]["value_quantity"] == json.loads(json.dumps(report))

    def test_stops_where_too_many_units_are_unknown(self, run_of):
        rows = [(6.5, "%", "4548-4")] * 8 + [(6.5, "Name of a person", "4548-4")] * 2
        map_view(run_of(rows, max_unknown_units=0.2), "observation")
        run = run_of(rows, max_unknown_units=0.19)
        with pytest.raises(CoverageError, match=r"20\.0% of 10 values") as caught:
            map_view(run, "observation")
        assert caught.value.place.endswith("observation.units.json")
        assert "person" not in str(caught.value)
        assert b"person" not in run.datasets.read(f"{run.report_path('observation.units')}.json")
