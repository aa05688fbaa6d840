"""The watch over workers that serve: how large and how old they are, and whether they still react.

Kept by :mod:`dangad.scheduler.supervisor`, which checks each worker every second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.text import show_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dangad.scheduler.dismissal import Dismissal
    from dangad.scheduler.interfaces import IProcess
    from dangad.scheduler.workerrecord import RecycleLimits, WorkerRecord

HEARTBEAT = 10.0
"""Seconds between two questions to an idle worker whether it reacts."""
HEARTBEAT_PATIENCE = 5.0
"""Seconds in which a worker must give a sign of life, or read the bytes that it was sent."""


class Watch:
    """Decides whether a worker is recycled or killed."""

    def __init__(self, limits: RecycleLimits, dismissal: Dismissal) -> None:
        """Watch by these limits.

        :param dismissal: kills workers.
        """
        self._limits = limits
        self._dismissal = dismissal
        self._kill = dismissal.kill

    def look_at(
        self, records: Iterable[WorkerRecord], is_idle: Callable[[IProcess], bool], now: float
    ) -> None:
        """Look at each worker that serves: its memory, its age, and whether it reacts."""
        for record in records:
            if record.serves:
                try:
                    self._weigh(record, now)
                    self._listen(record, is_idle(record.process), now)
                except Exception:  # noqa: BLE001 - whatever it was, it concerns one worker
                    self._dismissal.failed(record)

    def _weigh(self, record: WorkerRecord, now: float) -> None:
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

    def _listen(self, record: WorkerRecord, idle: bool, now: float) -> None:
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
