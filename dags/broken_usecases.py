"""Shows use cases that cannot be loaded as an import error; the DAGs of the others work.

A DAG file can have only one import error, so it names all of them.
"""

from include import usecases

if wrong := usecases.broken():
    raise ImportError("\n".join(str(error) for error in wrong.values()))

# Airflow looks for DAGs only in files that contain the words airflow and dag.
