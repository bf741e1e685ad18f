# One image for Airflow and the sandbox EHR.
FROM python:3.11-slim-bookworm

RUN pip install --no-cache-dir uv==0.13.9 \
    && useradd --create-home --uid 50000 cohortflow
WORKDIR /opt/cohortflow
COPY requirements.lock .
RUN uv pip sync --system --no-cache --require-hashes requirements.lock
COPY --chown=cohortflow . .
RUN uv pip install --system --no-cache --no-deps --editable . \
    && mkdir -p /opt/airflow /data && chown cohortflow /opt/airflow /data
USER cohortflow
ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/cohortflow/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/cohortflow/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False
