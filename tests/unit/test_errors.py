"""Every error has a kind."""

import errno

import pytest
import requests
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

from include.errors import BadData, DependencyDown, MissingData, PipelineError, kind_of
from tests.unit.airflow_parts import airflow_says

KINDS = [
    (BadData("x"), "bad data"),
    (MissingData("x"), "missing data"),
    (DependencyDown("x"), "dependency down"),
    (ConnectionError(), "dependency down"),
    (ConnectionResetError(), "dependency down"),
    (BrokenPipeError(), "dependency down"),
    (TimeoutError(), "dependency down"),
    (requests.ConnectionError(), "dependency down"),
    (requests.ReadTimeout(), "dependency down"),
    (EndpointConnectionError(endpoint_url="http://x"), "dependency down"),
    (ReadTimeoutError(endpoint_url="http://x"), "dependency down"),
    (OSError(errno.ENOSPC, "full"), "dependency down"),
    (OSError(errno.EROFS, "read-only"), "dependency down"),
    (OSError(errno.ESTALE, "stale"), "dependency down"),
    (OSError(errno.EBUSY, "slow down"), "dependency down"),
    (airflow_says(503), "dependency down"),
    (airflow_says(None), "dependency down"),
    (airflow_says(403), "dependency down"),
    (airflow_says(429), "dependency down"),
    (airflow_says(400), "bug"),
    (airflow_says(404), "bug"),
    (OSError("no number"), "bug"),
    (FileNotFoundError("x"), "bug"),
    (requests.HTTPError(), "bug"),
    (ValueError("x"), "bug"),
    (AssertionError(), "bug"),
    (KeyboardInterrupt(), "bug"),
]


@pytest.mark.parametrize(("error", "kind"), KINDS, ids=lambda value: repr(value))
def test_every_error_has_a_kind(error: BaseException, kind: str) -> None:
    assert kind_of(error) == kind


def test_every_error_of_the_project_has_its_own_kind() -> None:
    kinds = [cls.kind for cls in PipelineError.__subclasses__()]
    assert len(kinds) == len(set(kinds)) == 3
    assert "bug" not in kinds
