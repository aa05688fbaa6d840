"""What is counted of each command's jobs: how many, how they ended, how long they waited and ran.

Kept by :mod:`dangad.scheduler.counters`, since the server started. Times are counted in buckets
whose edges grow by a constant factor, as in HdrHistogram: a count costs the same whatever the time,
and a percentile that is read from the counts is right to within the factor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.scheduler.record import END_STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dangad.scheduler.record import JobState

MOST_COMMANDS = 1000
"""How many commands are counted one by one; the jobs of all others are counted together."""
MOST_CODES = 50
"""How many codes of errors are counted one by one, for each command; others count as `OTHER`."""
OTHER = "other"
"""The name that stands for commands, and for codes, that are not counted one by one."""
SHORTEST = 50e-6
"""Seconds of the first bucket's upper edge."""
FACTOR = 2**0.25
"""The upper edge of a bucket is so many times the edge of the one before."""
EDGES = tuple(SHORTEST * FACTOR**step for step in range(120))
"""The upper edges of the buckets in seconds, up to half a day. Longer times are in one more."""


class Histogram:
    """How many times fell into each bucket."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        #: How many times were in each bucket: above the edge before it, and up to its own.
        self.counts = [0] * (len(EDGES) + 1)
        #: The seconds of all of them.
        self.sum = 0.0


class CommandMetrics:
    """What is counted of one command."""

    __slots__ = ("codes", "ended", "refused", "runtimes", "waits")

    def __init__(self) -> None:
        #: How many of its jobs have ended, by state.
        self.ended: dict[JobState, int] = dict.fromkeys(END_STATES, 0)
        #: How many of its jobs have failed, by the error's code.
        self.codes: dict[str, int] = {}
        #: How many of its requests were refused.
        self.refused = 0
        #: How long its jobs waited, up to the start of their last attempt.
        self.waits = Histogram()
        #: How long the last attempts ran.
        self.runtimes = Histogram()


class Metrics:
    """What is counted of all commands."""

    __slots__ = ("by_command", "codes", "latencies", "others", "present", "refusals")

    def __init__(self) -> None:
        #: The metrics of commands that can be performed, or could be once.
        self.by_command: dict[bytes, CommandMetrics] = {}
        #: The metrics of all other commands together.
        self.others = CommandMetrics()
        #: How many accepted jobs of each command have not ended. Has no command without any.
        self.present: dict[bytes, int] = {}
        #: How many jobs have failed, by the error's code.
        self.codes: dict[str, int] = {}
        #: How many requests were refused, by the error's code.
        self.refusals: dict[str, int] = {}
        #: How long jobs that ran took, from acceptance to their end; without cancelled ones.
        self.latencies = Histogram()

    def know(self, commands: Iterable[bytes]) -> None:
        """Count these commands one by one from now on, as far as there is room."""
        for command in commands:
            if command not in self.by_command and len(self.by_command) < MOST_COMMANDS:
                self.by_command[command] = CommandMetrics()

    def of(self, command: bytes) -> CommandMetrics:
        """The metrics in which jobs of `command` are counted."""
        return self.by_command.get(command, self.others)

    def note_code(self, command: bytes, code: str) -> None:
        """A job of `command` has failed with an error of this code."""
        for codes in (self.codes, self.of(command).codes):
            count(codes, code)

    def note_refusal(self, command: bytes, code: str) -> None:
        """A request for `command` was refused with an error of this code."""
        self.of(command).refused += 1
        count(self.refusals, code)


def count(codes: dict[str, int], code: str) -> None:
    """Count one error of this code."""
    if code not in codes and len(codes) >= MOST_CODES:
        code = OTHER
    codes[code] = codes.get(code, 0) + 1


def percentiles(counts: Sequence[int], fractions: Sequence[float]) -> list[float | None]:
    """The times below which these fractions of the counted times lie; None if there are no times.

    They are interpolated within their buckets.

    :param fractions: in ascending order, above 0.
    """
    total = sum(counts)
    if not total:
        return [None] * len(fractions)
    found: list[float | None] = []
    below = 0
    for bucket, number in enumerate(counts):
        if not number:
            continue
        while below + number >= total * fractions[len(found)]:
            if bucket == len(EDGES):
                found.append(EDGES[-1])
            else:
                floor = EDGES[bucket - 1] if bucket else 0.0
                share = (total * fractions[len(found)] - below) / number
                found.append(floor + (EDGES[bucket] - floor) * share)
            if len(found) == len(fractions):
                return found
        below += number
    return found
