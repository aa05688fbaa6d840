"""Who asks for the catalogue of job types, and when they are told.

Kept by :mod:`dangad.scheduler.dispatcher`; :mod:`dangad.scheduler.registry` has the catalogue.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail

from dangad.scheduler.chores import PART

if TYPE_CHECKING:
    from dangad.errors import DangadError
    from dangad.scheduler.admission import Admission
    from dangad.scheduler.matching import Matching
    from dangad.scheduler.state import State


class Descriptions:
    """Tells the catalogue to those who ask, and asks for a worker if none has ever sent one."""

    def __init__(self, state: State, admission: Admission, matching: Matching) -> None:
        self._state = state
        self._admission = admission
        self._matching = matching

    def describe(self, by_server: bool) -> Deferred[str]:
        """The catalogue of job types, for a client or for the server itself.

        Fires with the JSON document of :mod:`dangad.wire.catalogue` once a worker has sent one; a
        worker is started for this if need be. Fails with :class:`ShuttingDown` if the server stops
        first, :class:`NoWorkers` if none can be started, :class:`QueueFull` if too many wait.
        """
        registry = self._state.registry
        refusal = None if registry.known else self._admission.refusal_to_describe(by_server)
        if refusal is not None:
            return fail(refusal)
        waiter = registry.catalogue()
        if not registry.known:
            self._matching.demand(1)
        return waiter

    def tell(self, error: DangadError) -> None:
        """Tell all who wait for the catalogue what it is, or `error` if it is not known."""
        registry = self._state.registry
        if registry.waiting:
            tell = partial(registry.tell, PART, error)
            self._state.outbox.put(self._state.chores.begin, tell)
