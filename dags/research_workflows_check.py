"""Shows every broken study file as an import error; defines no DAG."""

from __future__ import annotations

from airflow.sdk import get_parsing_context

from cohortflow.errors import StudyError
from cohortflow.workflow.environment import name_environment
from cohortflow.workflow.plan import compile_plan
from cohortflow.workflow.study import Project

if not get_parsing_context().dag_id:  # a worker has no use for it
    project = Project.default()
    faults = []
    for file in project.study_files():
        try:
            compile_plan(project.load_study(file), name_environment(), project)
        except Exception as error:  # noqa: BLE001  # whatever it is, somebody must see it
            faults.append(f"{file.name}: {error}")
    if faults:
        raise StudyError("\n\n".join(faults))
