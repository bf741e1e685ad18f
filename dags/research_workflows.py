"""Every study file becomes a DAG; a broken one leaves the others alone.

A study that does not compile is reported by ``research_workflows_check.py`` as an import error, so
that its message is on Airflow's home page while all other studies keep running.
"""

from __future__ import annotations

from airflow.sdk import DAG, get_parsing_context

from cohortflow.airflow.render import render_study
from cohortflow.workflow.study import Project

project = Project.default()
wanted = get_parsing_context().dag_id  # a worker builds only the DAG that it runs

dags: list[DAG] = []
for file in project.study_files():
    if wanted and wanted != file.stem:
        continue
    try:
        dags.append(render_study(file, project))
    except Exception:  # noqa: BLE001, S112  # research_workflows_check.py shows it; the others stay
        continue

globals().update({dag.dag_id: dag for dag in dags})
