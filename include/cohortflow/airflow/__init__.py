"""Operators, triggers and DAG rendering: the only part that imports Airflow."""
