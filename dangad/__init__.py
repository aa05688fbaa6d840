"""A job server for blocking and CPU-heavy work, on Twisted: what users import is here.

To write jobs: :func:`job`, :class:`Blob`, :class:`Large`, :func:`current_job`. To call them:
:func:`connect`, and the errors in :data:`ERRORS`. To test them: :mod:`dangad.testing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dangad.errors import (
    ERRORS,
    BadArguments,
    BadResponse,
    Cancelled,
    DangadError,
    DeadlinePassed,
    JobFailed,
    NoWorkers,
    QueueFull,
    ShuttingDown,
    TimedOut,
    TooLarge,
    UnhandledCommand,
    WorkerLost,
)
from dangad.wire import Blob, Large

if TYPE_CHECKING:
    from dangad.client import Client, Disconnected, NotSent, connect
    from dangad.worker.context import (
        JobCancelled,
        JobStopped,
        TimeLimitExceeded,
        current_job,
    )
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
]

_LAZY = {
    "BadJobType": "dangad.worker.jobtypes",
    "Client": "dangad.client",
    "Disconnected": "dangad.client",
    "NotSent": "dangad.client",
    "JobCancelled": "dangad.worker.context",
    "JobStopped": "dangad.worker.context",
    "TimeLimitExceeded": "dangad.worker.context",
    "connect": "dangad.client",
    "current_job": "dangad.worker.context",
    "job": "dangad.worker.jobtypes",
}
"""Names fetched when first asked for: workers need no client, clients and servers no worker."""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
