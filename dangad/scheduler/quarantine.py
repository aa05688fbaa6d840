"""A circuit breaker: job types that keep killing their workers are kept away from them for a while.

The dispatcher's parts ask it about each job, and report each death and each success.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Suspect:
    """A command that lost workers since it last succeeded.

    :ivar losses: how many workers, in a row.
    :ivar since: when the first of these workers was lost.
    :ivar until: when the quarantine of the command ends; 0 if it has none.
    """

    losses: int
    since: float
    until: float = 0.0


class Quarantine:
    """Counts the workers that each command lost in a row, and says which are kept away.

    A command that loses `threshold` workers with no success between them, and within
    `seconds` of one another on average, is kept away for `seconds`. After that it is tried
    again, and one more loss sends it back.
    """

    def __init__(self, threshold: int, seconds: float) -> None:
        """Suspect no command.

        :param threshold: how many losses in a row cause a quarantine; 0 for no quarantine at all.
        :param seconds: how long a quarantine lasts.
        """
        self._threshold = threshold
        self._seconds = seconds
        #: The commands that lost a worker since they last succeeded.
        self.suspects: dict[bytes, _Suspect] = {}

    def worker_lost(self, command: bytes, now: float) -> bool:
        """Note that `command` lost a worker; whether its quarantine begins now."""
        suspect = self.suspects.get(command)
        if suspect is None or now - suspect.since > self._seconds * self._threshold:
            suspect = self.suspects[command] = _Suspect(0, now)
        suspect.losses += 1
        if not self._threshold or suspect.losses < self._threshold:
            return False
        suspect.until = now + self._seconds
        suspect.losses = self._threshold - 1
        suspect.since = now
        return True

    def succeeded(self, command: bytes) -> None:
        """Note that a worker survived `command`."""
        self.suspects.pop(command, None)

    def pardon(self, command: bytes) -> bool:
        """Clear `command` of all suspicion; whether it was kept away."""
        suspect = self.suspects.pop(command, None)
        return suspect is not None and suspect.until > 0

    def kept_away(self, now: float) -> dict[bytes, float]:
        """The commands in quarantine, each with the seconds that are left of it."""
        return {
            command: suspect.until - now
            for command, suspect in self.suspects.items()
            if suspect.until > now
        }

    def seconds_left(self, command: bytes, now: float) -> float:
        """How long `command` is still kept away; 0 if it is not."""
        suspect = self.suspects.get(command)
        return 0.0 if suspect is None else max(0.0, suspect.until - now)
