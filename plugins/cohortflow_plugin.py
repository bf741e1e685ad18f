"""Registers Cohortflow with Airflow; nothing else."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class CohortflowPlugin(AirflowPlugin):
    """The plugin's name, so that Airflow lists it; pages and links come here."""

    name = "cohortflow"
