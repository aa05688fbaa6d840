"""The lines that ``dangad dev`` shows: of jobs, of their output, and of the server's log.

Used by :mod:`dangad.cli.devsession`. Events come from :mod:`dangad.operators.events`, as documents.
A line is made of pieces of text, each with a style for a terminal.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from dangad.cli.outcome import Failed, Signalled
from dangad.cli.streams import encode, on_terminal, write
from dangad.text import printable, show_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    Piece = str | tuple[str, str]

HOLD = 0.3
"""Seconds for which a job's output waits for the line that says that the job has started."""
MOST_HELD = 1000
"""The most lines of output that wait."""
WORTH_TELLING = 0.1
"""Seconds of waiting from which on they are told."""

_COLOURS: dict[str, dict[str, Any]] = {
    "dim": {"dim": True},
    "good": {"fg": "green"},
    "bad": {"fg": "red"},
    "odd": {"fg": "yellow"},
    "own": {"bold": True},
}
_ENDS = {"done": "good", "cancelled": "odd"}
"""The styles of jobs' ends; the others are bad."""
OUTPUT = "dangad.pool.output"
"""The name by which the log has the output of jobs."""


class LogLine(NamedTuple):
    """A line of the server's log."""

    who: str
    """The part of the server."""
    level: str
    """How serious it is, as :mod:`twisted.logger` names it."""
    text: str
    """What it says, with its traceback."""
    output: tuple[int, int, str] | None
    """The worker, the job (0 for none) and the line, if it is what a job has printed."""


def read_log_line(line: str) -> LogLine | None:
    """A line of the log, which is in JSON; None for any other line."""
    try:
        fields = json.loads(line)
        who, level = str(fields["namespace"]), str(fields["level"])
        text = "\n".join(filter(None, (fields["text"], fields.get("traceback"))))
        printed = who == OUTPUT and "line" in fields
        output = (fields["worker"], fields.get("job") or 0, fields["line"]) if printed else None
    except (KeyError, TypeError, ValueError):
        return None
    return LogLine(who, level, text, output)


def event_pieces(event: dict[str, Any]) -> list[Piece]:
    """What a line says of an event in a job's life."""
    kind = event["kind"]
    what = f"job {event['job']} {event.get('command', '')} " if event.get("job") else ""
    if not what:
        what = f"{event.get('command', 'a job')} "
    error = ": ".join(event[key] for key in ("code", "text") if event.get(key))
    if kind == "started":
        waited = event.get("wait") or 0.0
        after = f" after {show_seconds(waited)} of waiting" if waited >= WORTH_TELLING else ""
        return [what, (f"started{after}", "dim")]
    if kind == "accepted":
        return [what, ("waits", "dim")]
    if kind == "retried":
        return [what, ("is tried again: ", "odd"), error]
    if kind == "refused":
        return [what, ("refused: ", "bad"), error]
    state = event.get("state", "ended")
    ran = f" in {show_seconds(event['runtime'])}" if event.get("runtime") is not None else ""
    colon = ": " if error else ""
    return [what, (state, _ENDS.get(state, "bad")), f"{ran}{colon}{error}"]


class Screen:
    """Writes lines to the standard output, with colours if it is a terminal that has them."""

    def __init__(self, broken: Callable[[BaseException], object]) -> None:
        """:param broken: called with the reason when lines cannot be written any more."""
        self._broken = broken
        self._colours = (
            on_terminal()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM", "dumb") != "dumb"
        )

    def say(self, *pieces: Piece) -> None:
        """Write a line that begins with the time."""
        self.write((time.strftime("%H:%M:%S"), "dim"), "  ", *pieces)

    def write(self, *pieces: Piece) -> None:
        """Write a line; all texts become printable."""
        try:
            write(encode("".join(map(self._shown, pieces)) + "\n"))
        except (Failed, Signalled) as error:
            self._broken(error)

    def _shown(self, piece: Piece) -> str:
        text, style = (piece, "") if isinstance(piece, str) else piece
        text = printable(text)
        return click.style(text, **_COLOURS[style]) if style and self._colours else text


class JobLines:
    """Shows what happens to jobs, and what they print, in this order.

    Events and output come on different ways. So output waits a moment for the line that says that
    its job has started.
    """

    def __init__(self, clock: Any, screen: Screen) -> None:
        """Begin with no jobs."""
        self._clock = clock
        self._screen = screen
        #: The jobs that run, as far as the lines tell.
        self._started: set[int] = set()
        #: The output that waits: for each job its lines.
        self._held: dict[int, list[str]] = {}

    def show_events(self, events: list[dict[str, Any]]) -> None:
        """Show events; that a job was accepted is left out if it has started meanwhile."""
        begun = {event["job"] for event in events if event["kind"] in {"started", "ended"}}
        for event in events:
            kind, job = event["kind"], event.get("job") or 0
            if kind == "accepted" and job in begun:
                continue
            if kind == "ended":
                self._flush(job)
                self._started.discard(job)
            self._screen.say(*event_pieces(event))
            if kind == "started":
                self._started.add(job)
                self._flush(job)

    def show_output(self, worker: int, job: int, text: str) -> None:
        """Show a line of output, now or soon."""
        if not job:
            self._screen.say((f"worker {worker} | ", "dim"), text)
        elif job in self._started or sum(map(len, self._held.values())) >= MOST_HELD:
            self._flush(job)
            self._show(job, text)
        else:
            if job not in self._held:
                self._held[job] = []
                self._clock.callLater(HOLD, self._flush, job)
            self._held[job].append(text)

    def flush(self) -> None:
        """Show all output that waits."""
        for job in list(self._held):
            self._flush(job)

    def _flush(self, job: Any) -> None:
        for text in self._held.pop(job, ()):
            self._show(job, text)

    def _show(self, job: int, text: str) -> None:
        self._screen.say((f"job {job} | ", "dim"), text)
