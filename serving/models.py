"""The served versions of a use case: the champion, and the one before it.

That is the version that the champion replaced while the server was running.
"""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from include.messages import ModelVersion
from include.registry import registry
from include.usecase import UseCase

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

log = logging.getLogger(__name__)

LOOK_SECONDS = 3.0
"""Time between two look-ups of the champion."""

WAIT_SECONDS = 2.0
"""Longest wait for a look-up; one that takes longer ends in the background."""

STUCK_SECONDS = 120.0
"""Time after which a look-up that has not ended no longer keeps the next one from beginning."""


@dataclass(frozen=True)
class Loaded:
    """A version that is ready to predict."""

    case: UseCase
    model: ModelVersion
    pipeline: "Pipeline"


class Models:
    """The served models of a use case. Loaded models stay, whatever happens to the registry."""

    def __init__(self, case: UseCase) -> None:
        self.case = case
        self.loaded: tuple[Loaded, ...] = ()  # the champion comes first
        self.problem = "The champion is being loaded; ask again in a few seconds."
        self._began = self._as_of = -math.inf
        self._search = Thread()
        self._lock = Lock()

    @contextmanager
    def kept_up_to_date(self) -> Iterator[None]:
        """Look for a new champion repeatedly while the block runs.

        A model is loaded as soon as it is champion, not with the first request: on a busy machine
        loading takes longer than clients wait.
        """
        ended = Event()

        def keep_looking() -> None:
            self.look()
            while not ended.wait(LOOK_SECONDS):
                self.look()

        Thread(target=keep_looking, daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def look(self) -> None:
        """Look for a new champion, unless the last look was a moment ago."""
        with self._lock:
            now = time.monotonic()
            least = STUCK_SECONDS if self._search.is_alive() else LOOK_SECONDS
            if now - self._began >= least:
                # A daemon, so that a hanging registry cannot keep the server from ending.
                self._began, self._search = now, Thread(target=self._find, args=[now], daemon=True)
                self._search.start()
            search = self._search
        search.join(WAIT_SECONDS)

    def get(self, version: str | None = None) -> Loaded | None:
        """A version by its number, or the champion; None if it is not loaded."""
        found = (one for one in self.loaded if version in (None, one.model.version))
        return next(found, None)

    def _find(self, began: float) -> None:
        try:
            found = registry.find_champion(self.case)
            if found is None:
                what, action = registry.why_no_champion(self.case)
                self.problem = f"{what} {action}: the server finds it by itself."
                return
            served = self.loaded
            if not served or served[0].model != found:
                self.problem = f"{found} is being loaded; ask again in a few seconds."
                champion = Loaded(self.case, found, registry.load(self.case, found))
                before = (one for one in served[:1] if one.model.version != found.version)
                served = (champion, *before)
            self._serve(began, served)
        except Exception as error:  # any error: loaded models keep serving
            if self.problem != str(error):
                log.warning("Cannot read the registry: %s", error)
            self.problem = str(error)

    def _serve(self, began: float, loaded: tuple[Loaded, ...]) -> None:
        """Serve the result of a look-up, unless a later look-up already has a result."""
        with self._lock:
            if began >= self._as_of:
                self._as_of, self.loaded = began, loaded
