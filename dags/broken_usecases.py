"""An import error for each enabled use case that cannot be loaded; the DAGs of the others stand.

An Airflow DAG file has one import error, so it names all of them.
"""

from include import usecases

if wrong := usecases.broken():
    raise ImportError("\n".join(str(error) for error in wrong.values()))

# Airflow looks for DAGs only in files that hold its name and the word dag.
