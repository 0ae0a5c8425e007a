#!/bin/sh
# MWAA runs this on each of its containers before Airflow starts there. What it exports are the
# settings of the project: `make settings` shows all of them. No secrets: whoever may read the
# bucket may read this. docs/deploy.md says where those go.

export ML_LAKE_ROOT="s3://CHANGE-ME/lake"                      # a bucket that the environment's role may write
export MLFLOW_TRACKING_URI="http://CHANGE-ME:5000"             # an MLflow server that the VPC reaches
# export ML_STATSD_HOST="statsd.internal" ML_STATSD_PORT=9125  # a StatsD server of your own

# Secrets are read from AWS Secrets Manager, by the environment's role:
# secret() { python3 -c "import boto3, sys; print(boto3.client('secretsmanager').get_secret_value(SecretId=sys.argv[1])['SecretString'])" "$1"; }
# export ML_NOTIFY_URLS="$(secret ml/notify-urls)"
# export MLFLOW_TRACKING_USERNAME="ml" MLFLOW_TRACKING_PASSWORD="$(secret ml/mlflow-password)"
