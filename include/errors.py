"""The kinds of failure. A task's retry policy and its alert both follow the kind, never the message."""

from typing import ClassVar, Literal

Kind = Literal["bad data", "missing data", "dependency down", "bug"]


class PipelineError(Exception):
    """A failure somebody can act on: its message says what happened, to what, and what to do."""

    kind: ClassVar[Kind]


class BadData(PipelineError):
    """The data breaks its contract; trying again gives the same answer."""

    kind = "bad data"


class MissingData(PipelineError):
    """Something that should be there is not there yet: a file, a partition, a champion."""

    kind = "missing data"


class DependencyDown(PipelineError):
    """A part this run needs (lake, registry, server) does not answer; it may again soon."""

    kind = "dependency down"


def kind_of(error: BaseException) -> Kind:
    """The kind of any exception: what is not ours and not the network's is a bug."""
    if isinstance(error, PipelineError):
        return error.kind
    if isinstance(error, ConnectionError | TimeoutError):
        return "dependency down"
    return "bug"
