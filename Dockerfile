# Two images of one base: Airflow with the pipelines, and the MLflow server.

FROM apache/airflow:3.3.2-python3.12 AS airflow

# Airflow stays the version that the image has. Where the pipelines' libraries need others of its
# libraries than it has, the lock says which, and with botocore comes the boto3 that fits it.
# Celery 5.7 installs, but Airflow's provider cannot import it.
COPY requirements.txt requirements.lock /tmp/
RUN uv pip install --no-cache --compile-bytecode --python "$(command -v python)" \
      --requirements /tmp/requirements.txt --constraints /tmp/requirements.lock \
      "apache-airflow==$(airflow version)" boto3 "celery<5.7"

# A new volume takes its owner from the image's folder.
RUN mkdir -p /opt/airflow/data /opt/airflow/logs
ENV ML_DATA_DIR=/opt/airflow/data \
    PYTHONPATH=/opt/airflow:/opt/airflow/config \
    PYTHONDONTWRITEBYTECODE=

COPY --chown=airflow:0 config /opt/airflow/config
COPY --chown=airflow:0 dags /opt/airflow/dags
COPY --chown=airflow:0 include /opt/airflow/include
COPY --chown=airflow:0 local /opt/airflow/local
COPY --chown=airflow:0 plugins /opt/airflow/plugins
COPY --chown=airflow:0 serving /opt/airflow/serving
ARG GIT_COMMIT=
ENV ML_GIT_COMMIT=$GIT_COMMIT


# The whole of MLflow in an environment of its own: its pins and Airflow's do not meet.
FROM apache/airflow:3.3.2-python3.12 AS mlflow
RUN uv venv --quiet --python "$(command -v python)" /home/airflow/mlflow \
 && uv pip install --no-cache --compile-bytecode --python /home/airflow/mlflow/bin/python \
      mlflow==3.17.2 psycopg2-binary \
 && mkdir -p /home/airflow/artifacts
ENTRYPOINT ["/usr/bin/dumb-init", "--", "/home/airflow/mlflow/bin/mlflow"]
