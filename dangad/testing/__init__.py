"""For tests of your own job types: run them in the test's process, or by a real server.

:func:`perform` runs one job at once, without another process and without a reactor. Arguments and
response are serialised as in production, so errors in them also show in the test::

    answer = dangad.testing.perform(count_words, document=b"to be or not to be", top=1)

:func:`serve` starts the whole server with worker processes, on a private socket::

    async with dangad.testing.serve("wordcount.jobs") as server:
        client = await server.connect()
        answer = await client.run(CountWords, document=b"to be or not to be", top=1)

Use :func:`perform` to test what a job does, and :func:`serve` to test how your program uses the
server. Both work with trial and with pytest. A :class:`JobRunner` collects progress and partial
results.

- :mod:`.jobrunner`: one job in the test's process.
- :mod:`.realserver`: the whole server.
- :mod:`.serveroptions`: the options of the whole server.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from dangad.testing.jobrunner import JobRunner, Report, perform, perform_async
from dangad.testing.realserver import RunningServer, serve, server_fixture

if TYPE_CHECKING:
    Rehearsal = JobRunner

__all__ = [
    "JobRunner",
    "Report",
    "RunningServer",
    "perform",
    "perform_async",
    "serve",
    "server_fixture",
]


def __getattr__(name: str) -> Any:
    """:class:`JobRunner` under its old name, with a warning the first time."""
    if name != "Rehearsal":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        "dangad.testing.Rehearsal is now called JobRunner", DeprecationWarning, stacklevel=2
    )
    globals()[name] = JobRunner
    return JobRunner
