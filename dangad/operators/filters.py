"""Which jobs an operator means: filters, sort orders and numbers, checked before anything is done.

Used by :mod:`.jobviews` and :mod:`.clientviews`. Whatever is not valid raises ValueError, whose
text is one line that says what is allowed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dangad.scheduler.record import JobState
from dangad.text import meant
from dangad.wire.controlwords import ENDED_STATES, EVENTS, FARTHEST, LIVE_STATES, MOST

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from dangad.operators.events import Event
    from dangad.scheduler.concurrency import Paused
    from dangad.scheduler.record import Job

LONGEST = 200
"""The most characters of a text in a filter."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What a job must be like. None stands for anything."""

    state: str | None = None
    """Its state, as operators know it."""
    command: str | None = None
    """The name of its command."""
    client: str | None = None
    """A part of the name of its client."""
    older_than: float | None = None
    """The least seconds since it was accepted, or, if it has ended, since its end."""
    outcome: str | None = None
    """The state in which it ended, or the code of the error with which it ended."""

    def takes_live(self, job: Job, now: float, paused: Paused) -> bool:
        """Whether `job`, which has not ended, is meant.

        :param paused: which jobs are paused now.
        """
        return (
            (self.older_than is None or now - job.accepted_at >= self.older_than)
            and (self.command is None or job.name == self.command)
            and (self.state is None or self.state in _live_states(job, paused))
            and (self.client is None or self.client in client_of(job))
        )

    def takes_ended(self, job: Job, now: float) -> bool:
        """Whether `job`, which has ended, is meant."""
        return (
            (self.older_than is None or now - job.ended_at >= self.older_than)
            and (self.command is None or job.name == self.command)
            and (self.state is None or job.state.value == self.state)
            and (self.client is None or self.client in job.asker)
            and (self.outcome is None or self.outcome in _outcomes(job))
        )


EVERY_KIND = frozenset(EVENTS)
"""All kinds of events."""
LIVE_KEYS = ("state", "command", "client", "older_than")
"""The keys of a filter for jobs that wait or run."""
ENDED_KEYS = (*LIVE_KEYS, "outcome")
"""The keys of a filter for jobs that have ended."""


def read_live(given: Mapping[str, Any] | None) -> Filter:
    """A filter for jobs that wait or run.

    :raises ValueError: a key or a value is not valid.
    """
    return _read(given or {}, LIVE_KEYS, LIVE_STATES)


def read_ended(given: Mapping[str, Any] | None) -> Filter:
    """A filter for jobs that have ended.

    :raises ValueError: a key or a value is not valid.
    """
    return _read(given or {}, ENDED_KEYS, ENDED_STATES)


def read_watched(
    given: Mapping[str, Any] | None, kinds: Collection[str] | None
) -> Callable[[Event], bool]:
    """Which events are wanted, by the `command` and `client` of their jobs, and by their kinds.

    :raises ValueError: a key, a value or a kind is not valid.
    """
    meant = _read(given or {}, ("command", "client"), ())
    if len(kinds or ()) > len(EVENTS):
        raise ValueError(f"at most {len(EVENTS)} kinds of events can be named")
    wanted = EVERY_KIND if kinds is None else frozenset(kinds)
    for kind in sorted(wanted - EVERY_KIND):
        if kind not in EVENTS:
            raise ValueError(f"no kind of event {kind!r:.60}: {_either(EVENTS)}")

    def matches(event: Event) -> bool:
        return (
            event.kind in wanted
            and (meant.command is None or event.command == meant.command)
            and (meant.client is None or meant.client in (event.client or ""))
        )

    return matches


def _read(given: Mapping[str, Any], keys: Collection[str], states: Collection[str]) -> Filter:
    for key, value in given.items():
        if key not in keys:
            raise ValueError(f"no filter {key!r}: {_either(keys)}{meant(key, keys)}")
        if key == "older_than":
            _check_seconds(value)
        elif not isinstance(value, str) or len(value) > LONGEST:
            raise ValueError(f"the filter {key} takes a text of at most {LONGEST} characters")
    state = given.get("state")
    if state is not None and state not in states:
        raise ValueError(f"no state {state!r}: {_either(states)}{meant(state, states)}")
    return Filter(**given)


def _check_seconds(value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and 0 <= value < math.inf):  # type: ignore[operator]  # it is a number
        raise ValueError(f"the filter older_than takes seconds, 0 or more, not {value!r:.40}")


def read_sort(sort: str, keys: Collection[str]) -> tuple[str, bool]:
    """The key of a sort order, and whether the largest comes first, for which it begins with "-".

    :raises ValueError: there is no such key.
    """
    key = sort.removeprefix("-")
    if key not in keys:
        hint = meant(key, keys)
        raise ValueError(f"no sort order {sort!r:.60}: {_either(keys)}, or with - before{hint}")
    return key, sort.startswith("-")


def check_page(limit: int, offset: int = 0) -> None:
    """Check how many entries are wanted, and how many are passed over.

    :raises ValueError: a number is out of its bounds.
    """
    if not 1 <= limit <= MOST:
        raise ValueError(f"the limit must be from 1 to {MOST}, not {limit}")
    if not 0 <= offset <= FARTHEST:
        raise ValueError(f"the offset must be from 0 to {FARTHEST}, not {offset}; use a filter")


def live_state(job: Job) -> str:
    """The state of a job that has not ended: operators know nothing of prefetched jobs."""
    return "running" if job.state is JobState.RUNNING else "queued"


def _live_states(job: Job, paused: Paused) -> tuple[str, ...]:
    """The states by which a job that has not ended can be chosen."""
    state = live_state(job)
    return (state, "paused") if state == "queued" and paused.holds(job.command) else (state,)


def is_live(job: Job) -> bool:
    """Whether `job` waits or runs."""
    return job.state in _LIVE


def client_of(job: Job) -> str:
    """Who submitted `job`, in words."""
    return job.client.name if job.client is not None else job.asker


_LIVE = frozenset({JobState.QUEUED, JobState.PREFETCHED, JobState.RUNNING})


def _outcomes(job: Job) -> tuple[str, ...]:
    """The words for the end of `job`: its state, and the code of its error if there is one."""
    return (job.state.value,) if job.ended_for is None else (job.state.value, job.ended_for[0])


def _either(words: Collection[str]) -> str:
    """What is allowed: ``it must be queued or running``."""
    *others, last = words
    return f"it must be {', '.join(others)} or {last}" if others else f"it must be {last}"
