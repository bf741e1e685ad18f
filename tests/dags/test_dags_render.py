"""Studies as DAGs: structure, form, documentation."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import Asset

from cohortflow.airflow.operators import StudyOperator
from cohortflow.airflow.render import dataset_asset, render_study
from cohortflow.errors import UnknownEnvironmentError
from cohortflow.workflow.plan import compile_plan

STUDIES = ("diabetes_nightly", "kidney_lab_registry")


@pytest.fixture(scope="module", params=STUDIES)
def study(request, project):
    return project.load_study(request.param)


@pytest.fixture(scope="module")
def plan(study, project):
    return compile_plan(study, "dev", project)


@pytest.fixture(scope="module")
def dag(study, project):
    return render_study(study.model.study, project)


def task_of(step):
    """Return the task id of a plan's step: grouped by dataset, landings under ``publish``."""
    if step.kind == "land":
        return f"publish.{step.view}"
    return f"{step.view}.{step.kind}" if step.view else str(step.kind)


def test_every_step_is_a_task_that_runs_it(dag, plan):
    assert set(dag.task_ids) == {task_of(step) for step in plan.steps}
    for step in plan.steps:
        task = dag.get_task(task_of(step))
        assert isinstance(task, StudyOperator)
        assert (task.step.id, task.study) == (step.id, plan.study)


def test_tasks_wait_for_what_their_steps_need(dag, plan):
    for step in plan.steps:
        needed = {task_of(plan.step(need)) for need in step.needs}
        assert dag.get_task(task_of(step)).upstream_task_ids == needed


def test_each_dataset_has_a_group(dag, plan):
    groups = set(dag.task_group.get_task_group_dict()) - {None}
    assert groups == {"cohort", *plan.spec.views, "publish"}


def test_the_clean_up_is_a_teardown_that_runs_whatever_happens(dag):
    clean = dag.get_task("clean")
    assert clean.is_teardown
    assert not clean.on_failure_fail_dagrun, "a finished study stays finished"
    assert clean.downstream_task_ids == set()
    assert [task.task_id for task in dag.tasks if task.is_teardown] == ["clean"]


def test_tasks_are_retried_with_growing_pauses(dag):
    for task in dag.tasks:
        assert task.retries == 3
        assert task.retry_delay == timedelta(seconds=30)
        assert task.retry_exponential_backoff
        assert task.max_retry_delay == timedelta(minutes=30)


def test_only_the_export_takes_a_slot_of_the_sources_pool(dag, plan):
    pools = {task.task_id: task.pool for task in dag.tasks}
    assert pools.pop("extract") == plan.extract_pool == "cohortflow_exports"
    assert set(pools.values()) == {"default_pool"}


@pytest.mark.parametrize(
    ("of_environment", "of_study", "pool"),
    [
        ("cohortflow_exports", None, "cohortflow_exports"),
        ("exports_{connection}", None, "exports_fhir_default"),
        ("exports_{connection}", "night_shift", "night_shift"),
    ],
)
def test_the_pool_is_the_studys_or_the_environments(plan, of_environment, of_study, pool):
    environment = plan.environment.model_copy(update={"extract_pool": of_environment})
    source = plan.spec.source.model_copy(update={"pool": of_study})
    spec = plan.spec.model_copy(update={"source": source})
    assert dataclasses.replace(plan, environment=environment, spec=spec).extract_pool == pool


def test_landings_update_the_assets_of_their_datasets(dag, plan):
    outlets = {task.task_id: task.outlets for task in dag.tasks if task.outlets}
    assert set(outlets) == {f"publish.{view}" for view in ("cohort", *plan.spec.views)}
    (asset,) = outlets["publish.patient"]
    assert isinstance(asset, Asset)
    assert asset == dataset_asset(plan, "patient")
    assert asset.uri == f"cohortflow://dev/{plan.study}/patient"


def test_runs_of_one_study_do_not_overlap_and_the_past_is_not_made_up(dag):
    assert dag.max_active_runs == 1
    assert not dag.catchup


def test_schedule_and_start_are_the_studys(dag, study):
    assert dag.timetable.expression == study.model.schedule
    assert dag.start_date == datetime(2026, 11, 1, tzinfo=UTC)


def test_tags_find_the_dag(dag, study):
    assert {"cohortflow", "dev", study.model.template, *study.model.tags} == set(dag.tags)


class TestForm:
    def test_it_has_the_parameters_that_a_run_may_change_and_no_other(self, dag, study):
        parameters = study.template.model.parameters
        runtime = {name for name, parameter in parameters.items() if parameter.runtime}
        assert set(dag.params) == {*runtime, "fresh_export"}
        assert runtime.isdisjoint({"source", "level", "views", "redaction_policy"})

    def test_it_shows_the_studys_values_with_their_help(self, dag, study):
        values = study.resolve()
        for name in set(dag.params) - {"fresh_export"}:
            param = dag.params.get_param(name)
            assert param.resolve() == values[name]
            assert param.description == study.template.model.parameters[name].help
            assert param.schema["title"]
        assert dag.params["fresh_export"] is False

    def test_airflow_refuses_what_the_study_refuses(self, dag):
        from airflow.sdk.exceptions import ParamValidationError

        param = dag.params.get_param("min_age")
        assert param.resolve(40) == 40
        for wrong in (-1, 121, "40", None):
            with pytest.raises(ParamValidationError):
                param.resolve(wrong)


def test_the_documentation_says_what_where_and_how(dag, study, plan):
    assert dag.doc_md.startswith(f"# {study.model.title}\n\n{study.model.description}")
    assert f"Environment **dev**, redaction **{plan.policy.name}**" in dag.doc_md
    assert "```mermaid\nflowchart LR\n" in dag.doc_md
    for name, value in plan.parameters.items():
        assert f"| {name} | {value} | " in dag.doc_md


def test_the_environment_is_the_deployments(project, monkeypatch):
    monkeypatch.setenv("COHORTFLOW_ENVIRONMENT", "prod")
    dag = render_study(STUDIES[0], project)
    assert "prod" in dag.tags
    assert dag.get_task("publish.patient").outlets[0].uri.startswith("cohortflow://prod/")
    monkeypatch.setenv("COHORTFLOW_ENVIRONMENT", "prd")
    with pytest.raises(UnknownEnvironmentError):
        render_study(STUDIES[0], project)


def test_a_dag_survives_airflows_serialization(dag):
    from airflow.serialization.serialized_objects import DagSerialization

    restored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert restored.dag_id == dag.dag_id
    assert set(restored.task_ids) == set(dag.task_ids)
    assert restored.get_task("clean").is_teardown
