"""What all tests share: no test meets the settings or the Airflow of the person who runs it."""

import atexit
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest

from include import usecases

FLIGHTS = Path(__file__).parent / "usecases" / "flight_delays"
"""Folder of the use case that these tests are about, which a fork may move to `tests/usecases`."""
if not FLIGHTS.is_dir():
    FLIGHTS = usecases.OWN / "flight_delays"
if not FLIGHTS.is_dir():
    pytest.exit(
        "The flights are gone, and the library's tests run on them. Restore the folder and move it "
        "instead: git mv include/usecases/flight_delays tests/usecases/ (docs/fork.md)",
        returncode=2,
    )

GIVEN_USECASES = os.environ.get("ML_USECASES", "")
"""What `tests/usecase` tests. All other tests have the flights alone, whatever a fork adds."""
os.environ["ML_USECASES"] = str(FLIGHTS)

AIRFLOW_HOME = tempfile.mkdtemp(prefix="airflow-home-")
os.environ["AIRFLOW_HOME"] = AIRFLOW_HOME  # before anything imports Airflow
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # else trainings beside each other take ten times as long
atexit.register(shutil.rmtree, AIRFLOW_HOME, ignore_errors=True)

usecases.load(FLIGHTS)  # wherever it is, tests import its modules as include.usecases.flight_delays


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--sample N`: run only one in N of the chosen test files, other ones the next day."""
    parser.addoption("--sample", type=int, default=1, metavar="N")


@pytest.hookimpl(trylast=True)  # after `-m` has chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the files that are not in the day's sample."""
    share = config.getoption("--sample")
    files = sorted({item.path for item in items})
    chosen = files[date.today().toordinal() % share :: share]
    config.hook.pytest_deselected(items=[item for item in items if item.path not in chosen])
    items[:] = [item for item in items if item.path in chosen]


@pytest.fixture(autouse=True)
def unknown_metrics_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every test; in production they are only logged."""
    monkeypatch.setattr("include.metrics.REFUSE_UNKNOWN", True)


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Change settings for one test: `configure(chunk_rows=100)`. It starts from the defaults."""
    from include.settings import Settings, settings

    variables = {
        name: str(field.validation_alias or f"ML_{name.upper()}")
        for name, field in Settings.model_fields.items()
    }

    def change(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(variables[name], str(value))
        settings.cache_clear()

    for name, variable in variables.items():
        if name != "usecases":  # this process has chosen; those that it starts have to follow
            monkeypatch.delenv(variable, raising=False)
    for variable in [one for one in os.environ if one.startswith("ML_") and "__" in one]:
        monkeypatch.delenv(variable)  # of one use case
    settings.cache_clear()
    yield change
    settings.cache_clear()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[dict[str, str]]:
    """A real S3 protocol on localhost. Gives the environment that leads boto and Airflow to it."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = s3_environment(f"http://{host}:{port}")
    boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        region_name="us-east-1",
    ).create_bucket(Bucket="bucket")
    yield environment
    server.stop()


def s3_environment(url: str) -> dict[str, str]:
    """Variables for `s3://bucket` (boto's own) and for `s3://lake_test@bucket` (a connection)."""
    connection = {
        "conn_type": "aws",
        "login": "testing",
        "password": "testing",
        "extra": {"endpoint_url": url, "region_name": "us-east-1"},
    }
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AIRFLOW_CONN_LAKE_TEST": json.dumps(connection),
    }


def notified_queue(bucket: str) -> str:
    """The URL of a queue that a bucket of the S3 server tells of new objects."""
    import boto3

    sqs = boto3.client("sqs")
    url: str = sqs.create_queue(QueueName="drops")["QueueUrl"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    told = {"QueueArn": found["QueueArn"], "Events": ["s3:ObjectCreated:*"]}
    boto3.client("s3").put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [told]}
    )
    return url
