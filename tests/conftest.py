"""What all tests share: no test meets the settings or the Airflow of the person who runs it."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FLIGHTS = Path(__file__).parent / "flights"
if FLIGHTS.is_dir():  # where a fork has put the use case that these tests are about
    os.environ.setdefault("ML_USECASE", str(FLIGHTS))

AIRFLOW_HOME = tempfile.mkdtemp(prefix="airflow-home-")
os.environ["AIRFLOW_HOME"] = AIRFLOW_HOME  # before anything imports Airflow
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # else trainings beside each other take ten times as long
atexit.register(shutil.rmtree, AIRFLOW_HOME, ignore_errors=True)


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Change settings for one test: `configure(chunk_rows=100)`. It starts from the defaults."""
    from include.settings import Settings, settings

    variables = {
        name: str(field.validation_alias or f"ML_{name.upper()}")
        for name, field in Settings.model_fields.items()
        if name != "usecase"  # this process has chosen; those that it starts have to follow
    }

    def change(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(variables[name], str(value))
        settings.cache_clear()

    for variable in variables.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("include.metrics.REFUSE_UNKNOWN", True)
    settings.cache_clear()
    yield change
    settings.cache_clear()
