"""`make usecase` in a forked process, which has the libraries already: a second, not five.

Nothing here imports `include` before the use case is chosen.
"""

import os
import sys
from pathlib import Path

PRELOADED = [
    "tests.unit.tried_usecase", "matplotlib.pyplot", "mlflow.sklearn", "pandera.polars", "polars",
    "pyarrow.parquet", "scipy.stats", "skops.io", "sklearn.ensemble", "sklearn.linear_model",
    "sklearn.pipeline", "uvicorn", "xgboost",
]  # fmt: skip


def look_at(folder: str, data: str, output: str) -> None:
    """Look at a use case; what it prints is in a file, and the exit code is the process's."""
    os.environ |= {"ML_USECASES": folder, "ML_DATA_DIR": data}
    descriptor = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    Path(data).mkdir(exist_ok=True)
    from local.usecase import main

    sys.exit(main([]))
