"""Commands for this machine, and the embedded Airflow that they start."""
