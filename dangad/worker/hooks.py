"""Functions of job modules that each worker calls when it begins and when it ends.

Authors of jobs decorate them with :func:`worker_start` and :func:`worker_stop`.
:mod:`dangad.worker.child` calls them.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Generator
from typing import TYPE_CHECKING, TypeVar

from dangad.worker.jobtypes import BadJobType, import_modules, mark_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    _F = TypeVar("_F", bound=Callable[[], object])

_log = logging.getLogger(__name__)
_MARK = "__dangad_hook__"
_START, _STOP = "start", "stop"
_DOES_NOTHING = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)
"""Tell functions of which a call runs no line."""


def worker_start(function: _F) -> _F:
    """Declare that each worker calls the decorated function before its first job.

    This is the place to make things that forks cannot share: connections, threads, random
    generators that must differ. The functions of a module are called in the order of their
    definition. If one raises an exception, the worker has failed to start.

    :raises BadJobType: the function is not a plain function without arguments.
    """
    return _marked(function, _START)


def worker_stop(function: _F) -> _F:
    """Declare that each worker calls the decorated function after its last job.

    All these functions together have five seconds. A worker that is killed, or that ends with a job
    that was stopped, does not call them. An exception is logged.

    :raises BadJobType: the function is not a plain function without arguments.
    """
    return _marked(function, _STOP)


class Hooks:
    """The decorated functions of some modules."""

    def __init__(self, modules: Iterable[str]) -> None:
        """Import the modules, and find the decorated functions among their attributes."""
        found: dict[int, Callable[[], object]] = {
            id(value): value
            for name in modules
            for module in import_modules(name)
            for value in list(vars(module).values())
            if mark_of(value, _MARK)
        }
        self._functions = list(found.values())
        #: What is being called for the start, in words; empty if nothing is.
        self.starting = ""

    def start(self) -> None:
        """Call the functions for the start. If one of them raises an exception, so does this.

        :raises BadJobType: one of them has returned something that still would have to be run.
        """
        for function in self._of(_START):
            self.starting = f"the worker_start function {_name(function)}"
            _call(function)
        self.starting = ""

    def stop(self) -> None:
        """Call the functions for the end, the last one first."""
        for function in reversed(self._of(_STOP)):
            try:
                _call(function)
            except BaseException:  # noqa: BLE001 - the others are to be called, too
                _log.exception("the worker_stop function %s failed", _name(function))

    def _of(self, kind: str) -> list[Callable[[], object]]:
        return [each for each in self._functions if mark_of(each, _MARK) == kind]


def _call(function: Callable[[], object]) -> None:
    result = function()
    if isinstance(result, (Awaitable, Generator, AsyncGenerator)):
        raise BadJobType(
            f"{_name(function)} has returned a {type(result).__name__}, which nobody runs"
        )


def _name(function: Callable[[], object]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _marked(function: _F, kind: str) -> _F:
    name = getattr(function, "__qualname__", repr(function))
    if not inspect.isfunction(function) or any(does(function) for does in _DOES_NOTHING):
        raise BadJobType(f"{name} cannot be a @worker_{kind} function: it is not a plain function")
    try:
        inspect.signature(function).bind()
    except TypeError:
        raise BadJobType(f"{name} cannot be a @worker_{kind} function: it has arguments") from None
    setattr(function, _MARK, kind)
    return function
