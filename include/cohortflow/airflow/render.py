"""Studies to DAGs. Parsed every few seconds: no network, no lake, no data library is touched here."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, CronDataIntervalTimetable, Param, TaskGroup

from cohortflow.airflow import operators
from cohortflow.airflow.run import FRESH_EXPORT
from cohortflow.workflow.environment import name_environment
from cohortflow.workflow.graph import draw_mermaid
from cohortflow.workflow.plan import Plan, StepKind, compile_plan
from cohortflow.workflow.study import LoadedStudy, Project

__all__ = ["dataset_asset", "render_plan", "render_study"]

_OPERATORS: dict[StepKind, type[operators.StudyOperator]] = {
    operator.kind: operator
    for operator in (
        operators.ExtractFhirBulkOperator,
        operators.ExtractSqlOperator,
        operators.WithdrawDeletedOperator,
        operators.TransformViewsOperator,
        operators.SelectCohortOperator,
        operators.MapTerminologyOperator,
        operators.RedactDatasetOperator,
        operators.AssessRiskOperator,
        operators.ValidateDatasetOperator,
        operators.ScanForLeaksOperator,
        operators.LandDatasetOperator,
        operators.WriteReleaseOperator,
        operators.CleanWorkOperator,
    )
}

_PUBLISH = "publish"


def render_study(study: str | Path, project: Project) -> DAG:
    """Compile a study for this deployment's environment and return its DAG.

    Raises:
        CohortflowError: The study does not compile.
    """
    loaded = project.load_study(study)
    return render_plan(compile_plan(loaded, name_environment(), project), loaded)


def render_plan(plan: Plan, study: LoadedStudy) -> DAG:
    """Return the DAG of a plan: a task group per dataset, one for publication, a teardown."""
    model = study.model
    dag = DAG(
        dag_id=model.study,
        dag_display_name=model.title,
        description=model.title,
        doc_md=_document(plan, study),
        schedule=CronDataIntervalTimetable(model.schedule, timezone="UTC") if model.schedule else None,
        start_date=datetime.combine(model.start_date, time(), tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        tags=sorted({"cohortflow", plan.environment.environment, model.template, *model.tags}),
        params=_params(plan, study),
        default_args={
            "owner": model.owner,
            "retries": 3,
            "retry_delay": timedelta(seconds=30),
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": timedelta(minutes=30),
        },
        auto_register=False,
    )
    groups: dict[str, TaskGroup] = {}
    tasks: dict[str, operators.StudyOperator] = {}
    for step in plan.steps:
        extra: dict[str, Any] = {}
        name = str(step.kind)
        if step.kind is StepKind.LAND:
            name, group = step.view, _PUBLISH
            extra["outlets"] = [dataset_asset(plan, step.view)]
        else:
            group = step.view
        if step.kind is StepKind.EXTRACT:
            extra["pool"] = plan.extract_pool
        if step.kind is StepKind.EXTRACT_SQL and plan.spec.sql is not None:
            extra["pool"] = plan.spec.sql.pool or plan.extract_pool
        if group:
            if group not in groups:
                groups[group] = TaskGroup(group, dag=dag)
            extra["task_group"] = groups[group]
        task = _OPERATORS[step.kind](task_id=name, study=model.study, view=step.view, dag=dag, **extra)
        tasks[step.id] = task
        for needed in step.needs:
            task.set_upstream(tasks[needed])
        if step.kind is StepKind.CLEAN:
            task.as_teardown()
    return dag


def dataset_asset(plan: Plan, view: str) -> Asset:
    """Return the asset that a landing updates; other DAGs may be scheduled on it."""
    environment = plan.environment.environment
    return Asset(
        name=f"{environment}/{plan.study}/{view}",
        uri=f"cohortflow://{environment}/{plan.study}/{view}",
        group="cohortflow",
    )


def _params(plan: Plan, study: LoadedStudy) -> dict[str, Param]:
    params = {}
    for name, parameter in study.template.model.parameters.items():
        if parameter.runtime:
            schema = parameter.json_schema()
            params[name] = Param(plan.parameters[name], title=name.replace("_", " ").capitalize(), **schema)
    params[FRESH_EXPORT] = Param(
        False,
        type="boolean",
        title="Fresh export",
        description="Export from the source again, even where this interval's export is complete",
    )
    return params


def _document(plan: Plan, study: LoadedStudy) -> str:
    """Return the DAG's page: what the study is, its parameters, its graph."""
    rows = "\n".join(
        f"| {name} | {_cell(plan.parameters[name])} | {_cell(parameter.help)} |"
        for name, parameter in study.template.model.parameters.items()
    )
    return (
        f"# {study.model.title}\n\n{study.model.description}\n\n{study.template.model.description}\n\n"
        f"Environment **{plan.environment.environment}**, "
        f"redaction **{plan.policy.name}**: {plan.policy.title}\n\n"
        f"| parameter | value | meaning |\n|---|---|---|\n{rows}\n\n"
        "A run triggered with other values publishes beside the study's datasets, never over them.\n\n"
        f"```mermaid\n{draw_mermaid(plan)}```\n"
    )


def _cell(value: object) -> str:
    """Return a value as the text of a Markdown table's cell."""
    return str(value).replace("|", r"\|").replace("\n", " ")
