"""Templates and studies compiled to plans; steps; a runner without Airflow."""
