"""Confines a failure of the server's own code to the one worker that the code dealt with.

Used by :mod:`dangad.pool.link` and its parts. Their callers' work concerns other workers and
clients, too. No exception may interrupt it.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

log = Logger()


class Faulty(Protocol):
    """An object that knows how to end its worker after a failure of the server."""

    def fault(self, doing: str, /) -> None:
        """Kill the worker: an exception was raised while `doing` something with it."""


_L = TypeVar("_L", bound=Faulty)
_P = ParamSpec("_P")
_T = TypeVar("_T")


def contained(
    instead: _T,
) -> Callable[[Callable[Concatenate[_L, _P], _T]], Callable[Concatenate[_L, _P], _T]]:
    """A decorator: the method never raises; instead of an exception its worker is killed.

    :param instead: what the method returns in place of an exception.
    """

    def decorate(
        method: Callable[Concatenate[_L, _P], _T],
    ) -> Callable[Concatenate[_L, _P], _T]:
        @wraps(method)
        def call(self: _L, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
            try:
                return method(self, *args, **kwargs)
            except Exception:  # noqa: BLE001 - any failure concerns this worker alone
                self.fault(method.__name__.strip("_").replace("_", " "))
                return instead

        return call

    return decorate


class LastSteps:
    """The steps at a worker's death: each is taken, even if others fail."""

    def __init__(self, pid: int, job_id: int | None) -> None:
        """:param job_id: the job that the worker ran; None if it ran none."""
        self._pid = pid
        self._job_id = job_id

    def take(
        self, doing: str, act: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _T | None:
        """Call `act` and return its result; None if it raises, which is logged.

        :param doing: what this step does, in words that "failed" can follow.
        """
        try:
            return act(*args, **kwargs)
        except Exception:  # noqa: BLE001 - the worker is dead already
            text = "worker {worker}, job {job}: {doing} failed"
            log.failure(text, worker=self._pid, job=self._job_id, doing=doing)
            return None
