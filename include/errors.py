"""The kinds of failure. They decide about retries and alerts; the message never does."""

import errno
from typing import ClassVar, Literal

Kind = Literal["bad data", "missing data", "dependency down", "killed", "bug"]

DOWN_ERRNO = {
    errno.EACCES, errno.EBUSY, errno.EDQUOT, errno.EHOSTUNREACH, errno.EIO, errno.ENETUNREACH,
    errno.ENOSPC, errno.EPERM, errno.EROFS, errno.ESTALE, getattr(errno, "EREMOTEIO", errno.EIO),
}  # fmt: skip
"""Error numbers of a disk, a network share or (through s3fs) an object store that cannot serve."""

DOWN_NAMES = {
    "ConnectionError", "HTTPClientError", "Timeout",  # botocore and requests
    "ClientConnectionError", "ServiceRequestError", "TransportError",  # aiohttp, Azure, httpx
    "AirflowRuntimeError",  # Airflow's API server; `_is_refusal` has the exception
    "AirflowTaskTimeout",  # something hung until the task's time limit
}  # fmt: skip
"""Error classes of clients that do not derive from Python's own."""


PASSING = {401, 403, 408, 425, 429}
"""HTTP refusals that may not repeat: the next try comes later, and with a new token."""


class PipelineError(Exception):
    """A failure that a person can act on: the message says what happened, where, and what to do."""

    kind: ClassVar[Kind]


class BadData(PipelineError):
    """The data breaks its contract; a retry would fail in the same way."""

    kind = "bad data"


class MissingData(PipelineError):
    """Something is not there yet: a file, a partition, a champion."""

    kind = "missing data"


class ModelMissing(MissingData):
    """A model or its artifact is missing from the registry; other models can still score."""


class DependencyDown(PipelineError):
    """Something the run needs (lake, registry, server) does not answer; it may recover soon."""

    kind = "dependency down"


class ServerDown(DependencyDown):
    """A model server is down: it was asked for as long as the settings allow.

    Args:
        message: as for every failure.
        retry_after: seconds after which the server wants to be asked again, if it said so.
    """

    def __init__(self, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.retry_after = retry_after


class Overtaken(Exception):
    """A run published nothing, because the published version was made from newer inputs.

    This is not a failure: the day is done. Airflow skips the task, so that no asset event reports
    a new version.
    """


def kind_of(error: BaseException) -> Kind:
    """The kind of any exception. If neither the project nor the network raised it, it is a bug."""
    if isinstance(error, PipelineError):
        return error.kind
    names = {cls.__name__ for cls in type(error).__mro__}
    if _is_refusal(error):
        return "bug"
    if isinstance(error, TimeoutError) or names & DOWN_NAMES:
        return "dependency down"
    if isinstance(error, OSError) and error.errno in DOWN_ERRNO:
        return "dependency down"
    return "bug"


def _is_refusal(error: BaseException) -> bool:
    """Whether Airflow's API server answered, and refused the task's request."""
    detail = getattr(getattr(error, "error", None), "detail", None)
    status = detail.get("status_code") if isinstance(detail, dict) else None
    return isinstance(status, int) and 400 <= status < 500 and status not in PASSING
