"""The DAGs of the use case that these tests are about."""

from tests.case import CASE

VALIDATION = CASE.dag_id("data_validation")
INFERENCE = CASE.dag_id("batch_inference")
ENSEMBLE_INFERENCE = CASE.dag_id("ensemble_inference")
RETRAINING = CASE.dag_id("model_retraining")
MONITORING = CASE.dag_id("model_monitoring")
ROLLBACK = CASE.dag_id("model_rollback")
HOUSEKEEPING = CASE.dag_id("housekeeping")
ERASURE = CASE.dag_id("erasure")
