#!/bin/sh
# MWAA runs this in each of its containers before Airflow starts. It exports the settings of the
# project: `make settings` shows all of them. Do not put secrets here, because everyone who may read
# the bucket can read this file; docs/deploy.md says where they go.

export ML_LAKE_ROOT="s3://CHANGE-ME/lake"                      # a bucket that the environment's role may write
export MLFLOW_TRACKING_URI="http://CHANGE-ME:5000"             # an MLflow server that the VPC reaches
# export ML_STATSD_HOST="statsd.internal" ML_STATSD_PORT=9125  # a StatsD server of your own

# Secrets are read from AWS Secrets Manager, by the environment's role:
# secret() { python3 -c "import boto3, sys; print(boto3.client('secretsmanager').get_secret_value(SecretId=sys.argv[1])['SecretString'])" "$1"; }
# export ML_NOTIFY_URLS="$(secret ml/notify-urls)"
# export MLFLOW_TRACKING_USERNAME="ml" MLFLOW_TRACKING_PASSWORD="$(secret ml/mlflow-password)"
