"""Which versions are served: the champion, and the one that it has replaced while we served."""

import logging
import math
import time
from dataclasses import dataclass
from threading import Lock, Thread
from typing import TYPE_CHECKING

from include import registry, usecase
from include.registry import ModelVersion

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

log = logging.getLogger(__name__)

LOOK_SECONDS = 3.0
"""Least time between two look-ups of the champion."""

WAIT_SECONDS = 2.0
"""Longest wait for a look-up; one that takes longer ends in the background."""


@dataclass(frozen=True)
class Loaded:
    """A version that is ready to predict."""

    model: ModelVersion
    pipeline: "Pipeline"


class Models:
    """What is served. Whatever happens to the registry, what is loaded stays."""

    def __init__(self) -> None:
        self.loaded: tuple[Loaded, ...] = ()  # the champion comes first
        self.problem = "The champion is being loaded; ask again in a few seconds."
        self._began = -math.inf
        self._search = Thread()
        self._lock = Lock()

    def look(self) -> None:
        """Look for a new champion, unless that was done a moment ago."""
        with self._lock:
            now = time.monotonic()
            if not self._search.is_alive() and now - self._began >= LOOK_SECONDS:
                # A daemon: a registry that does not answer must not keep the server from ending.
                self._began, self._search = now, Thread(target=self._find, daemon=True)
                self._search.start()
            search = self._search
        search.join(WAIT_SECONDS)

    def get(self, version: str | None = None) -> Loaded | None:
        """A version by its number, or the champion; None if it is not loaded."""
        found = (one for one in self.loaded if version in (None, one.model.version))
        return next(found, None)

    def _find(self) -> None:
        try:
            found = registry.find_champion()
            if found is None:
                self.problem = (
                    f"There is no champion of {usecase.NAME!r} yet. Run `model_retraining` once; "
                    "the server finds it by itself."
                )
            elif not self.loaded or self.loaded[0].model != found:
                champion = Loaded(found, registry.load(found))
                before = [one for one in self.loaded[:1] if one.model.version != found.version]
                self.loaded = (champion, *before)
        except Exception as error:  # of whatever kind: what is loaded goes on serving
            if self.problem != str(error):
                log.warning("No look at the registry: %s", error)
            self.problem = str(error)
