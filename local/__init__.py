"""What runs on this machine: commands, and the Airflow that they start."""
