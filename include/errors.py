"""The kinds of failure. A task's retries and its alert follow the kind, never the message."""

import errno
from typing import ClassVar, Literal

Kind = Literal["bad data", "missing data", "dependency down", "killed", "bug"]

DOWN_ERRNO = {
    errno.EACCES, errno.EBUSY, errno.EDQUOT, errno.EHOSTUNREACH, errno.EIO, errno.ENETUNREACH,
    errno.ENOSPC, errno.EPERM, errno.EROFS, errno.ESTALE, getattr(errno, "EREMOTEIO", errno.EIO),
}  # fmt: skip
"""What a disk, a network share or (through s3fs) an object store says when it cannot serve."""

DOWN_NAMES = {
    "ConnectionError", "HTTPClientError", "Timeout",  # botocore and requests
    "ClientConnectionError", "ServiceRequestError", "TransportError",  # aiohttp, Azure, httpx
    "AirflowRuntimeError",  # Airflow's API server does not answer the task, or see `_is_refusal`
    "AirflowTaskTimeout",  # something hung for the whole of the task's time
}  # fmt: skip
"""Errors of clients that do not derive theirs from Python's, told by their class."""


PASSING = {401, 403, 408, 425, 429}
"""Refusals of an HTTP server that another try may not meet: it has a new token, and comes later."""


class PipelineError(Exception):
    """A failure somebody can act on: its message says what happened, to what, and what to do."""

    kind: ClassVar[Kind]


class BadData(PipelineError):
    """The data breaks its contract; trying again gives the same answer."""

    kind = "bad data"


class MissingData(PipelineError):
    """Something that should be there is not there yet: a file, a partition, a champion."""

    kind = "missing data"


class ModelMissing(MissingData):
    """A model, or what was kept with it, is not in the registry: other models can still score."""


class DependencyDown(PipelineError):
    """A part this run needs (lake, registry, server) does not answer; it may again soon."""

    kind = "dependency down"


class ServerDown(DependencyDown):
    """A model server was asked again and again, for as long as the settings allow, and is down.

    Args:
        message: as of every failure.
        retry_after: seconds after which the server wants to be asked again, if it has said so.
    """

    def __init__(self, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.retry_after = retry_after


class Overtaken(Exception):
    """A run has published nothing, as what is published was made from newer inputs.

    This is no failure: the day is done. Airflow skips the task, so that no asset event says that
    something new is there.
    """


def kind_of(error: BaseException) -> Kind:
    """The kind of any exception: what is not ours and not the network's is a bug."""
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
    """Whether Airflow's API server did answer: that it will not do what the task asks for."""
    detail = getattr(getattr(error, "error", None), "detail", None)
    status = detail.get("status_code") if isinstance(detail, dict) else None
    return isinstance(status, int) and 400 <= status < 500 and status not in PASSING
