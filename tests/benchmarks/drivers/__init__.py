"""The clients: processes that do jobs, take the times, and check every answer.

A contender starts one, and :class:`tests.benchmarks.processes.Driver` talks to it: each line on
its stdin asks for one call of a function, and the line on stdout that follows has what it
returned. Times are taken here, so that neither Python's start nor the conversation counts.

All drivers have ``serial`` and ``windowed``, with the same arguments; see :func:`check` and
:mod:`tests.benchmarks.drivers.raw`.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class WrongAnswer(Exception):
    """A job was answered with something else than it should have been."""


def check(answer: object, expected: object) -> None:
    """See that an answer is right.

    :raises WrongAnswer: it is not, which ends the driver.
    """
    if answer != expected:
        raise WrongAnswer(f"{answer!r:.200} instead of {expected!r:.200}")


def payload(number: int, size: int) -> bytes:
    """The data of a job, which no other job of the run has."""
    return b"%0*d" % (size, number)


def serve(functions: dict[str, Callable[..., Any]]) -> None:
    """Say that the driver is ready, and call the functions as asked, until stdin ends."""
    say("ready")
    for line in sys.stdin:
        request = json.loads(line)
        say(functions[request.pop("run")](**request))


def say(answer: object) -> None:
    """Write one answer."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
