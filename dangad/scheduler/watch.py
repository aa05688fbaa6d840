"""The watch over workers that serve: how large and how old they are, and whether they still react.

Kept by :mod:`dangad.scheduler.supervisor`, which checks each worker every second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.text import show_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from dangad.scheduler.workerrecord import RecycleLimits, WorkerRecord

HEARTBEAT = 10.0
"""Seconds between two questions to an idle worker whether it reacts."""
HEARTBEAT_PATIENCE = 5.0
"""Seconds in which a worker must give a sign of life, or read the bytes that it was sent."""


class Watch:
    """Decides whether a worker is recycled or killed."""

    def __init__(self, limits: RecycleLimits, kill: Callable[[WorkerRecord, str], object]) -> None:
        """Watch by these limits.

        :param kill: called with the record of a worker that is to be killed, and the reason.
        """
        self._limits = limits
        self._kill = kill

    def weigh(self, record: WorkerRecord, now: float) -> None:
        """See whether the worker is too large, or so large or old that it is to be replaced."""
        limits = self._limits
        memory = record.process.memory()
        if limits.max_memory and memory > limits.max_memory:
            self._kill(
                record,
                f"had {show_bytes(memory)} of memory, where --max-memory is "
                f"{show_bytes(limits.max_memory)}, and was killed",
            )
        elif limits.memory and memory > limits.memory:
            record.recycle(f"it has {show_bytes(memory)} of memory")
        elif limits.age and record.booted_at is not None and now - record.booted_at >= limits.age:
            record.recycle(f"it is {now - record.booted_at:.0f} s old")

    def listen(self, record: WorkerRecord, idle: bool, now: float) -> None:
        """See whether the worker gives signs of life; ask for one if the worker is `idle`."""
        if record.process.has_read():
            record.unread_since = None
        elif record.unread_since is None:
            record.unread_since = now
        elif now - record.unread_since >= HEARTBEAT_PATIENCE:
            self._kill(
                record, f"did not read what it was sent for {HEARTBEAT_PATIENCE:g} s and was killed"
            )
            return
        if not idle:
            record.process.verify()
        if record.silent and now - record.asked_at >= HEARTBEAT_PATIENCE:
            self._kill(record, f"gave no sign of life for {HEARTBEAT_PATIENCE:g} s and was killed")
        elif idle and not record.silent and now - record.asked_at >= HEARTBEAT:
            record.asked_at = now
            record.silent = True
            record.process.ping()
