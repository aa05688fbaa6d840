"""What keeps a failure of the server's own with the one worker that it dealt with.

Used by :mod:`dangad.pool.link` and by its parts. Whoever calls them is in the middle of something
that concerns other workers and clients, too, and must not be kept from it by an exception.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

log = Logger()


class Faulty(Protocol):
    """Whoever can tell that the server has failed in dealing with a worker."""

    def fault(self, doing: str, /) -> None:
        """End the worker: while `doing` something with it, an exception was raised."""


_L = TypeVar("_L", bound=Faulty)
_P = ParamSpec("_P")
_T = TypeVar("_T")


def contained(
    instead: _T,
) -> Callable[[Callable[Concatenate[_L, _P], _T]], Callable[Concatenate[_L, _P], _T]]:
    """Make a method one that raises nothing, and costs the worker its life instead.

    :param instead: what it returns if it would have raised.
    """

    def decorate(
        method: Callable[Concatenate[_L, _P], _T],
    ) -> Callable[Concatenate[_L, _P], _T]:
        @wraps(method)
        def call(self: _L, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
            try:
                return method(self, *args, **kwargs)
            except Exception:  # noqa: BLE001 - whatever it is, it is this worker's alone
                self.fault(method.__name__.strip("_").replace("_", " "))
                return instead

        return call

    return decorate


class LastSteps:
    """What is done at a worker's death: each step is taken, whatever becomes of the others."""

    def __init__(self, pid: int, job_id: int | None) -> None:
        """:param job_id: the job that it ran, if any."""
        self._pid = pid
        self._job_id = job_id

    def take(
        self, doing: str, act: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _T | None:
        """What `act` returns; None if it fails, which is logged."""
        try:
            return act(*args, **kwargs)
        except Exception:  # noqa: BLE001 - the worker is dead already
            text = "worker {pid}, job {job}: {doing} failed"
            log.failure(text, pid=self._pid, job=self._job_id, doing=doing)
            return None
