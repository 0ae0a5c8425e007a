"""Shows use cases that cannot be loaded as an import error; the DAGs of the others work.

So does a variable such as `ML_CHURN__SEED` if there is no use case `churn`.

A DAG file can have only one import error, so it names all of them.
"""

from include import usecases
from include.errors import BadData

wrong = [str(error) for error in usecases.broken().values()]
try:
    usecases.check_variables()
except BadData as error:
    wrong.append(str(error))
if wrong:
    raise ImportError("\n".join(wrong))

# Airflow looks for DAGs only in files that contain the words airflow and dag.
