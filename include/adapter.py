"""Dataclasses as plain JSON and back, by their annotations."""

from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter


@lru_cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """Pydantic's adapter of a type, made once. Fields that only a newer release knows are ignored.

    Args:
        kind: a dataclass, or a type made of dataclasses such as `list[Chunk]`.
    """
    return TypeAdapter(kind)
