"""Cohortflow: research datasets from hospital systems, orchestrated by Apache Airflow."""

__version__ = "0.1.0"

__all__ = ["__version__"]
