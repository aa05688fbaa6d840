"""What operators do to jobs: they pause, resume and cancel them, and pardon commands.

Kept by :mod:`dangad.scheduler.dispatcher`, whose events these are. A paused job waits, whatever
else it waits for, until an operator resumes it. Its deadline goes on, and it can be cancelled.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dangad.scheduler import reasons
from dangad.scheduler.concurrency import NOTHING
from dangad.scheduler.state import log
from dangad.text import counted, printable

if TYPE_CHECKING:
    from collections.abc import Collection

    from dangad.scheduler.concurrency import Paused
    from dangad.scheduler.endings import Endings
    from dangad.scheduler.matching import Matching
    from dangad.scheduler.record import Job
    from dangad.scheduler.state import State

MOST_PAUSED = 1000
"""The most commands that can be paused one by one."""
MOST_NAMED = 10
"""The most paused commands that the log names; it counts the others."""
MOST_BYTES = 100
"""The most bytes of a paused command's name in the log."""


class Interventions:
    """Carries out what operators want."""

    def __init__(self, state: State, matching: Matching, endings: Endings) -> None:
        self._state = state
        self._matching = matching
        self._endings = endings

    @property
    def paused(self) -> Paused:
        """What is paused."""
        return self._state.lanes.paused or NOTHING

    def pause(self, commands: Collection[bytes] | None) -> Paused:
        """Start no job of these commands until they are resumed; None for all jobs.

        New jobs are accepted within the bounds. What runs goes on. Returns what is paused now.

        :raises ShuttingDown: the server drains, and must finish its jobs.
        :raises ValueError: too many commands would be paused; the text says so, in one line.
        """
        if self._state.draining:
            raise reasons.pauses_nothing()
        if commands is None:
            return self._change(self.paused._replace(all=True))
        together = self.paused.commands | frozenset(commands)
        if len(together) > MOST_PAUSED:
            raise ValueError(
                f"{len(together)} commands would be paused; at most {MOST_PAUSED} can be"
            )
        return self._change(self.paused._replace(commands=together))

    def resume(self, commands: Collection[bytes] | None) -> Paused:
        """Let jobs of these commands start again; with None, end every pause.

        The jobs of a command stay paused while all jobs are. Returns what is still paused.
        """
        if commands is None:
            return self._change(NOTHING)
        return self._change(self.paused._replace(commands=self.paused.commands - {*commands}))

    def _change(self, after: Paused) -> Paused:
        """Pause this, and nothing else, from now on."""
        state, before = self._state, self.paused
        if after == before:
            return after
        self._endings.prefetch.reclaim_all()  # before it is reviewed, whatever waits is queued
        state.lanes.paused = None if after == NOTHING else after
        everything = after.all != before.all
        self._matching.review_waiting(None if everything else after.commands ^ before.commands)
        state.outbox.put(
            partial(log.info, "paused by operators: {paused}", paused=_in_words(after))
        )
        state.tell()
        return after

    def cancel(self, job: Job) -> None:
        """End `job` if it has not ended: at once if it waits, by stopping it if it runs."""
        self._endings.cancel(job, reasons.withdrawn_waiting, reasons.withdrawn_running)

    def pardon(self, command: bytes) -> bool:
        """End the quarantine of `command`; whether there was any."""
        pardoned = self._state.quarantine.pardon(command)
        self._matching.match(self._state.clock.seconds())
        self._state.tell()
        return pardoned


def _in_words(paused: Paused) -> str:
    """What is paused, for the log."""
    if paused.all:
        return "all jobs"
    commands = sorted(paused.commands)
    names = [printable(name[:MOST_BYTES].decode("latin-1")) for name in commands[:MOST_NAMED]]
    if len(commands) > MOST_NAMED:
        names.append(f"and {counted(len(commands) - MOST_NAMED, 'other')}")
    return ", ".join(names) or "nothing"
