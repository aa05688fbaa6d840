"""Makes everything that a job starts belong to it: threads, tasks of thread pools, delayed calls.

Used by :mod:`dangad.worker.perform` before each job. Coroutines and asyncio's tasks take along the
context, and with it the job. Threads, tasks for a thread pool and delayed calls of Twisted do not:
here they are made to. A pool and the reactor live across jobs: tasks and calls that an earlier job
has left there do not belong to the present job. Code that cannot be followed, such as a thread that
was started in C, belongs to no job.
"""

from __future__ import annotations

import sys
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from dangad.worker.context import MARK, inherited_job, run_for

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

_INTERPRETERS = "InterpreterPoolExecutor"
"""A thread pool whose tasks are sent to other interpreters, where there are no jobs."""


_seen = 0
"""How many modules had been imported at the last call of `follow`."""


def follow() -> None:
    """Make sure that threads, tasks and calls that are started from now on know their job.

    Takes nearly no time if no module was imported since the last call. Modules that are not
    imported yet are left to a later call.
    """
    global _seen
    if _seen == (_seen := len(sys.modules)):
        return
    for place in [place for place in _unfollowed if place[0] in sys.modules]:
        module, name, method, following = place
        kind = getattr(sys.modules[module], name, None)
        if kind is not None:  # the module may be in the middle of its import
            setattr(kind, method, following(getattr(kind, method)))
            _unfollowed.remove(place)


def _start(start: Callable[..., None]) -> Callable[..., None]:
    @wraps(start)
    def following(thread: threading.Thread) -> None:
        if thread.ident is None:
            vars(thread).setdefault(MARK, inherited_job())
        start(thread)

    return following


def _submit(submit: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(submit)
    def following(pool: Any, task: Any, /, *arguments: Any, **keywords: Any) -> Any:
        job = inherited_job()
        if job is None or type(pool).__name__ == _INTERPRETERS:
            return submit(pool, task, *arguments, **keywords)
        return submit(pool, run_for, job, task, *arguments, **keywords)

    return following


def _call_in_thread(call: Callable[..., None]) -> Callable[..., None]:
    @wraps(call)
    def following(
        pool: Any, on_result: Any, task: Any, /, *arguments: Any, **keywords: Any
    ) -> None:
        job = inherited_job()
        if job is not None:
            arguments, task = (job, task, *arguments), run_for
        call(pool, on_result, task, *arguments, **keywords)

    return following


def _delay(init: Callable[..., None]) -> Callable[..., None]:
    @wraps(init)
    def following(delayed: Any, time: float, task: Any, /, *rest: Any, **keywords: Any) -> None:
        job = inherited_job()
        init(delayed, time, task if job is None else partial(run_for, job, task), *rest, **keywords)

    return following


_unfollowed: list[tuple[str, str, str, Callable[[Callable[..., Any]], Callable[..., Any]]]] = [
    ("threading", "Thread", "start", _start),
    ("concurrent.futures.thread", "ThreadPoolExecutor", "submit", _submit),
    ("twisted.python.threadpool", "ThreadPool", "callInThreadWithCallback", _call_in_thread),
    ("twisted.internet.base", "DelayedCall", "__init__", _delay),
]
"""The methods to replace: module, class, method, and the function that makes the replacement."""
