"""A job server for blocking and CPU-heavy work, on Twisted: what users import is here.

To write jobs: :func:`job`, :class:`Blob`, :class:`Large`, :func:`current_job`,
:func:`worker_start`, :func:`worker_stop`. To call them:
:func:`connect`, and the errors in :data:`ERRORS`. To test them: :mod:`dangad.testing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dangad.client.connection import Client
    from dangad.client.factory import connect
    from dangad.client.requests import Disconnected, NotSent
    from dangad.errors import (
        ERRORS,
        BadArguments,
        BadResponse,
        Cancelled,
        DangadError,
        DeadlinePassed,
        Forbidden,
        JobFailed,
        NoWorkers,
        QueueFull,
        ShuttingDown,
        TimedOut,
        TooLarge,
        UnhandledCommand,
        WorkerLost,
    )
    from dangad.wire.values import Blob, Large
    from dangad.worker.context import (
        JobCancelled,
        JobStopped,
        TimeLimitExceeded,
        current_job,
    )
    from dangad.worker.hooks import worker_start, worker_stop
    from dangad.worker.jobtypes import BadJobType, job

__all__ = [
    "ERRORS",
    "BadArguments",
    "BadJobType",
    "BadResponse",
    "Blob",
    "Cancelled",
    "Client",
    "DangadError",
    "DeadlinePassed",
    "Disconnected",
    "Forbidden",
    "JobCancelled",
    "JobFailed",
    "JobStopped",
    "Large",
    "NoWorkers",
    "NotSent",
    "QueueFull",
    "ShuttingDown",
    "TimeLimitExceeded",
    "TimedOut",
    "TooLarge",
    "UnhandledCommand",
    "WorkerLost",
    "connect",
    "current_job",
    "job",
    "worker_start",
    "worker_stop",
]

_HOMES = {
    "dangad.client.connection": ("Client",),
    "dangad.client.factory": ("connect",),
    "dangad.client.requests": ("Disconnected", "NotSent"),
    "dangad.errors": (
        "ERRORS",
        "BadArguments",
        "BadResponse",
        "Cancelled",
        "DangadError",
        "DeadlinePassed",
        "Forbidden",
        "JobFailed",
        "NoWorkers",
        "QueueFull",
        "ShuttingDown",
        "TimedOut",
        "TooLarge",
        "UnhandledCommand",
        "WorkerLost",
    ),
    "dangad.wire.values": ("Blob", "Large"),
    "dangad.worker.context": ("JobCancelled", "JobStopped", "TimeLimitExceeded", "current_job"),
    "dangad.worker.hooks": ("worker_start", "worker_stop"),
    "dangad.worker.jobtypes": ("BadJobType", "job"),
}
_LAZY = {name: module for module, names in _HOMES.items() for name in names}
"""The module of each name that is imported at its first use. So workers do not import the client,
clients and servers do not import the worker, and the server starts sooner."""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    if name == "commands":  # where it was before it had a room
        from dangad.wire import commands

        return commands
    if name == "__version__":
        from importlib.metadata import version

        return version("dangad")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
