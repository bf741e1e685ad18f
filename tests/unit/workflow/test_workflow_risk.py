"""The assessment of a study: what is taken to be known, what is refused, what is suppressed."""

import dataclasses
import itertools
import json
import secrets
from datetime import date

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohortflow.errors import CatalogError, PolicyError, ReidentificationRiskError, StudyError
from cohortflow.model import ColumnType, DataInterval, EnvDeployment
from cohortflow.redaction.risk import Suppression
from cohortflow.workflow.datasets import COHORT_DATASET
from cohortflow.workflow.plan import Step, StepKind, check_safety, compile_plan
from cohortflow.workflow.risk_plan import published_subject
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.runner import run_step
from cohortflow.workflow.steps.release import read_release, write_release
from cohortflow.workflow.steps.risk import load_removed, read_published
from cohortflow.workflow.steps.select import ATTRITION

STUDY = "diabetes_nightly"
TYPES = {
    ColumnType.STRING: (pl.String, "x"),
    ColumnType.BOOLEAN: (pl.Boolean, True),
    ColumnType.INTEGER: (pl.Int64, 2000),
    ColumnType.FLOAT: (pl.Float64, 1.0),
    ColumnType.DECIMAL: (pl.Decimal(38, 10), 1),
    ColumnType.DATE: (pl.Date, None),
    ColumnType.DATETIME: (pl.Datetime("us", "UTC"), None),
}


def demand(project, **settings):
    """Let the template ask for something of the risk."""
    path = project.templates / "observational_cohort.yaml"
    text = path.read_text(encoding="utf-8")
    block = "  risk:\n    k: ${minimum_k}\n    on_failure: ${below_minimum_k}\n"
    assert block in text
    lines = "".join(f"    {key}: {json.dumps(value)}\n" for key, value in settings.items())
    path.write_text(text.replace(block, f"  risk:\n{lines}"), encoding="utf-8")


def compile_study(project, environment="dev"):
    return compile_plan(project.load_study(STUDY), environment, project)


def names(columns):
    return [column.name for column in columns]


class TestPlan:
    def test_what_others_may_know_is_every_such_column_of_patients_and_cohort(self, project):
        risk = compile_study(project).risk
        assert {"cohort.age_at_index", "patient.gender", "patient.birth_year", "patient.postal_code"} <= set(
            names(risk.quasi_identifiers)
        )
        assert not [name for name in names(risk.quasi_identifiers) if name.endswith("patient_id")]
        assert risk.suppressible == tuple(names(risk.quasi_identifiers))

    def test_dates_that_were_moved_are_compared_by_the_year(self, project_copy):
        path = project_copy.root / "dags/studies" / f"{STUDY}.yaml"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("parameters:\n", "parameters:\n  redaction_policy: shifted_dates\n"))
        columns = {item.name: item for item in compile_study(project_copy, "staging").risk.quasi_identifiers}
        assert columns["patient.birth_date"].precision == "year"
        assert columns["patient.gender"].precision == "exact"

    def test_the_environments_k_counts_where_it_is_greater(self, project_copy):
        assert compile_study(project_copy).risk.demand.k == 1
        assert compile_study(project_copy, "prod").risk.demand.k == 5
        demand(project_copy, k=7)
        assert compile_study(project_copy, "prod").risk.demand.k == 7

    def test_a_study_cannot_leave_out_silently_what_it_publishes(self, project_copy):
        demand(project_copy, quasi_identifiers=["patient.gender"])
        with pytest.raises(
            StudyError, match=r"leaves out .*cohort\.age_at_index.*patient\.birth_date"
        ) as caught:
            compile_study(project_copy)
        assert "risk.excluded" in caught.value.remedy

    def test_with_a_reason_it_can_and_the_reason_is_kept(self, project_copy):
        every = [
            f"{name}.{entry.column.name}"
            for name, dataset in compile_study(project_copy).datasets.items()
            if name in (COHORT_DATASET, "patient")
            for entry in dataset.redaction.columns
            if entry.output is not None and entry.column.name not in ("patient_id", "gender")
        ]
        demand(
            project_copy,
            quasi_identifiers=["patient.gender", "condition.code", "encounter", "patient.city"],
            excluded=dict.fromkeys(every, "not known outside"),
        )
        risk = compile_study(project_copy).risk
        assert names(risk.quasi_identifiers) == ["patient.gender", "condition.code", "encounter"]
        assert risk.suppressible == ("patient.gender",)
        assert risk.unpublished == ("patient.city",)
        assert set(risk.excluded.values()) == {"not known outside"}

    @pytest.mark.parametrize(
        ("settings", "message", "remedy"),
        [
            ({"sensitive": ["patient.gendr"]}, "names 'patient.gendr', which does not exist", "'gender'"),
            ({"sensitive": ["patent.gender"]}, "names 'patent.gender', which does not exist", "'patient'"),
            ({"excluded": {"patient.x": "y"}}, "names 'patient.x', which does not exist", "Valid columns"),
            ({"l": 2}, "'l' and 't' need 'sensitive' columns", ""),
            ({"k": 0}, "greater than or equal to 1", ""),
            ({"on_failure": "ignore"}, "'fail' or 'suppress'", ""),
        ],
    )
    def test_a_wrong_setting_is_refused(self, project_copy, settings, message, remedy):
        demand(project_copy, **settings)
        with pytest.raises(StudyError, match=r"observational_cohort\.yaml") as caught:
            compile_study(project_copy)
        assert message in caught.value.message
        assert remedy in caught.value.remedy

    def test_columns_of_datasets_that_the_study_leaves_out_are_no_fault(self, project_copy):
        demand(project_copy, sensitive=["allergy.code"])
        assert compile_study(project_copy).risk.unpublished == ("allergy.code",)

    def test_what_must_not_be_learnt_is_not_taken_to_be_known(self, project_copy):
        demand(project_copy, sensitive=["patient.deceased"])
        risk = compile_study(project_copy).risk
        assert "patient.deceased" not in names(risk.quasi_identifiers)
        assert names(risk.sensitive) == ["patient.deceased"]

    def test_the_digest_follows_the_demand_and_the_environments_k(self, project_copy):
        digests = {compile_study(project_copy).digest}
        demand(project_copy, k=3)
        digests.add(compile_study(project_copy).digest)
        path = project_copy.catalog.path("environments", "dev")
        path.write_text(path.read_text().replace("minimum_k: 1", "minimum_k: 2"))
        digests.add(compile_study(project_copy).digest)
        assert len(digests) == 3


class TestPopulation:
    def add(self, project, header, name="town"):
        folder = project.root / "include/catalog/populations"
        folder.mkdir(exist_ok=True)
        entry = {"population": name, "title": "A town", "source": "made up", "counts": f"{name}.csv"}
        (folder / f"{name}.yaml").write_text(json.dumps(entry))
        (folder / f"{name}.csv").write_text(header + "\nfemale,30\nmale,12\n")

    def test_it_is_found_and_part_of_the_digest(self, project_copy):
        demand(project_copy, population="town")
        self.add(project_copy, "patient.gender,count")
        plan = compile_study(project_copy)
        assert plan.risk.population_name == "town"
        self.add(project_copy, "count,patient.gender")
        assert compile_study(project_copy).digest != plan.digest

    @pytest.mark.parametrize("header", ["gender,count", "patient.gender,people"])
    def test_one_that_does_not_fit_is_refused(self, project_copy, header):
        demand(project_copy, population="town")
        self.add(project_copy, header)
        with pytest.raises(StudyError, match="no column 'count', or none that is named") as caught:
            compile_study(project_copy)
        assert "patient.gender" in caught.value.remedy

    def test_an_unknown_one_is_refused(self, project_copy):
        demand(project_copy, population="twn")
        self.add(project_copy, "patient.gender,count")
        with pytest.raises(CatalogError, match="No entry 'twn'"):
            compile_study(project_copy)


class TestSafety:
    def test_every_shipped_study_assesses_before_it_validates(self, project):
        plan = compile_study(project)
        assert set(plan.step("assess_risk").needs) == {f"redact.{view}" for view in plan.published}
        assert "assess_risk" in plan.step("validate").needs

    @given(data=st.data())
    def test_nothing_lands_that_was_not_assessed(self, project, data):
        plan = compile_study(project)
        view = data.draw(st.sampled_from(plan.published))
        cut = data.draw(st.sampled_from([("assess_risk", f"redact.{view}"), ("validate", "assess_risk")]))
        steps = tuple(
            dataclasses.replace(step, needs=tuple(need for need in step.needs if (step.id, need) != cut))
            for step in plan.steps
        )
        with pytest.raises(PolicyError, match="without "):
            check_safety(steps)


def make_run(project, folder, environment="dev", title="test"):
    """Return a run whose work zone holds redacted datasets of sixty subjects, two of whom stand out."""
    environ = {
        "AIRFLOW_VAR_COHORTFLOW_LAKE": str(folder / "lake"),
        "AIRFLOW_CONN_FHIR_DEFAULT": '{"conn_type": "fhir", "host": "https://ehr.example/fhir"}',
        f"AIRFLOW_CONN_COHORTFLOW_KEY_{environment.upper()}": json.dumps(
            {"conn_type": "generic", "password": secrets.token_hex(32)}
        ),
    }
    plan = compile_study(project, environment)
    deployment = EnvDeployment(environ)
    run = Run(plan, DataInterval.of_day(date(2026, 10, 31)), title, deployment, project.catalog)
    subjects = [f"{number:032x}" for number in range(60)]
    for view in plan.published:
        dataset = plan.datasets[view]
        columns = {
            column.name: pl.Series([TYPES[column.type][1]] * 60, dtype=TYPES[column.type][0])
            for column in dataset.output_columns
            if not column.collection
        }
        columns[published_subject(dataset)] = pl.Series(subjects)
        frame = pl.DataFrame(columns)
        if view == "patient":
            sexes = ["female"] * 30 + ["male"] * 28 + ["other"] * 2
            frame = frame.with_columns(pl.Series("gender", sexes))
        path = run.work.child(run.output_path("redact", view))
        frame.write_parquet(path, mkdir=True)
    return run


def assess(run):
    return run_step(run, Step(StepKind.ASSESS))


def report(run):
    """Return the published report and its page."""
    texts = [run.datasets.read(run.report_path(f"risk.{kind}")).decode() for kind in ("json", "html")]
    return json.loads(texts[0]), texts[1]


class TestStep:
    def test_without_a_demand_it_measures_and_changes_nothing(self, project_copy, tmp_path):
        run = make_run(project_copy, tmp_path)
        result = assess(run)
        assert result.datasets == ()
        assert result.facts["risk"]["verdict"] == "measured"
        found, page = report(run)
        assert found["after"]["k"] == "<11"
        assert "Measured only" in page
        assert read_published(run, "patient").collect()["gender"].null_count() == 0

    def test_below_the_environments_k_the_step_fails_and_says_no_value(self, project_copy, tmp_path):
        demand(project_copy, on_failure="fail")
        run = make_run(project_copy, tmp_path, "prod")
        with pytest.raises(ReidentificationRiskError) as caught:
            assess(run)
        text = str(caught.value)
        assert "k = 5 (k by environment 'prod')" in text
        assert "on_failure: suppress" in text
        assert "other" not in text
        assert "risk.html" in text
        assert "Demands not met" in report(run)[1]

    def test_small_classes_lose_the_values_that_make_them_small(self, project_copy, tmp_path):
        demand(project_copy, k=11, on_failure="suppress")
        run = make_run(project_copy, tmp_path)
        result = assess(run)
        # Two subjects cannot form a class of eleven by themselves: they are left out everywhere.
        assert load_removed(run) == 2
        assert {dataset.name for dataset in result.datasets} == set(run.plan.published)
        for view in run.plan.published:
            assert read_published(run, view).collect().height == 58
        found, page = report(run)
        assert found["verdict"] == "suppressed"
        assert (found["before"]["k"], found["after"]["k"], found["removed"]) == ("<11", "28", "<11")
        assert "Demands met after suppression" in page

    def test_values_are_suppressed_where_others_share_what_is_left(self, project_copy, tmp_path):
        demand(project_copy, k=29, on_failure="suppress")
        run = make_run(project_copy, tmp_path)
        assess(run)
        patients = read_published(run, "patient").collect()
        assert patients.height == 60
        assert patients["gender"].null_count() == 30
        assert patients["patient_id"].n_unique() == 60
        assert read_published(run, "cohort").collect().height == 60
        assert load_removed(run) == 0

    def test_subjects_are_left_out_at_once_where_the_study_says_so(self, project_copy, tmp_path):
        demand(project_copy, k=29, on_failure="suppress", suppress="rows")
        run = make_run(project_copy, tmp_path)
        assess(run)
        patients = read_published(run, "patient").collect()
        assert (patients.height, patients["gender"].null_count()) == (30, 0)

    def test_a_repetition_measures_the_same(self, project_copy, tmp_path):
        demand(project_copy, k=29, on_failure="suppress")
        run = make_run(project_copy, tmp_path)
        first = assess(run)
        assert assess(run) == first

    def test_a_repetition_after_other_data_forgets_what_was_suppressed(self, project_copy, tmp_path):
        demand(project_copy, k=29, on_failure="suppress")
        run = make_run(project_copy, tmp_path)
        assess(run)
        path = run.work.child(run.output_path("redact", "patient"))
        pl.read_parquet(path).with_columns(gender=pl.lit("female")).write_parquet(path)
        assert assess(run).facts["risk"]["verdict"] == "met"
        assert read_published(run, "patient").collect()["gender"].null_count() == 0

    def test_it_fails_where_nobody_would_be_left(self, project_copy, tmp_path):
        demand(project_copy, k=100, on_failure="suppress")
        run = make_run(project_copy, tmp_path)
        with pytest.raises(ReidentificationRiskError, match="Suppression would leave nobody"):
            assess(run)

    def test_suppression_is_measured_again_before_it_is_trusted(self, project_copy, tmp_path, monkeypatch):
        demand(project_copy, k=11, on_failure="suppress")
        run = make_run(project_copy, tmp_path)
        broken = lambda subjects, *_, **__: Suppression(subjects.collect(), ())  # noqa: E731
        monkeypatch.setattr("cohortflow.workflow.steps.risk.meet_demand", broken)
        with pytest.raises(ReidentificationRiskError):
            assess(run)
        assert "Demands not met" in report(run)[1]

    def test_the_population_table_is_read(self, project_copy, tmp_path):
        demand(project_copy, population="town")
        TestPopulation().add(project_copy, "patient.gender,count")
        run = make_run(project_copy, tmp_path)
        assess(run)
        found, page = report(run)
        assert (found["population"], found["after"]["k_map"]) == ("town", "<11")
        assert "population table &#x27;town&#x27;" in page or "population table 'town'" in page

    def test_nothing_that_is_published_or_returned_holds_a_small_count(self, project_copy, tmp_path):
        demand(project_copy, k=11, on_failure="suppress")
        run = make_run(project_copy, tmp_path)
        result = assess(run)
        found, page = report(run)
        del found["demand"], found["small_cell"]
        figures = [found["before"], found["after"], found["removed"], found["quasi_identifiers"]]
        texts = [value for item in figures for value in flatten(item)]
        assert not [text for text in texts if text.isdigit() and 0 < int(text) < 11]
        returned = json.loads(json.dumps(result.facts["risk"]))
        assert {key: returned[key] for key in found} == found
        assert ">2<" not in page

    def test_a_study_without_such_columns_has_nothing_to_measure(self, project_copy, tmp_path):
        run = make_run(project_copy, tmp_path)
        risk = dataclasses.replace(run.plan.risk, quasi_identifiers=(), sensitive=())
        run = dataclasses.replace(run, plan=dataclasses.replace(run.plan, risk=risk))
        assert assess(run).facts["risk"]["verdict"] == "unknown"
        assert "Nothing to measure" in report(run)[1]


class TestRelease:
    def release(self, run, attrition):
        run.work.write(ATTRITION, json.dumps(attrition).encode())
        for view in run.plan.published:
            run.save_result(f"land.{view}", StepResult(), 0)
        write_release(run)
        return read_release(run.datasets, run.interval.key)

    def attrition(self, *counts):
        return [
            {
                "step": number,
                "criterion": f"rule {number}",
                "n_before": before,
                "n_excluded": before - after,
                "n_after": after,
                "n_unit_mismatch": 0,
                "n_unknown": 0,
            }
            for number, (before, after) in enumerate(itertools.pairwise(counts), start=1)
        ]

    def test_it_links_the_page_and_says_what_was_found(self, project_copy, tmp_path):
        run = make_run(project_copy, tmp_path)
        assess(run)
        document = self.release(run, self.attrition(200, 120, 60))
        assert document["reports"]["risk"].endswith("/risk.html")
        assert document["risk"]["after"]["k"] == "<11"
        assert [row["n_after"] for row in document["attrition"]] == ["120", "60"]

    def test_small_counts_of_the_attrition_are_not_published(self, project_copy, tmp_path):
        run = make_run(project_copy, tmp_path)
        assess(run)
        document = self.release(run, self.attrition(200, 64, 60))
        assert [(row["step"], row["n_excluded"]) for row in document["attrition"]] == [("1-2", "140")]

    def test_subjects_who_are_left_out_cannot_be_counted_from_it(self, project_copy, tmp_path):
        demand(project_copy, k=11, on_failure="suppress")
        run = make_run(project_copy, tmp_path)
        assess(run)
        (row,) = self.release(run, self.attrition(200, 60))["attrition"]
        assert (row["n_before"], row["n_excluded"], row["n_after"]) == ("200", "142", "58")
        assert row["criterion"] == "rule 1; Left out for the risk of re-identification"


def flatten(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [text for item in value for text in flatten(item)]
    return [value] if isinstance(value, str) else []
