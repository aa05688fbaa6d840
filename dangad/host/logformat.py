"""An event of the log as a line: text for people, or a JSON object for programs.

Used by :mod:`dangad.host.logobserver`. Each line is bounded, and has no control characters: what
peers and jobs send may be in any event. Formatting never raises, whatever an event holds.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterable, Mapping
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any

from twisted.logger import LogLevel, eventAsText, formatEvent
from twisted.python.reflect import safe_repr

from dangad.text import printable

if TYPE_CHECKING:
    from twisted.logger import LogEvent
    from twisted.python.failure import Failure

TEXT = "text"
JSON = "json"
FORMATS = (TEXT, JSON)
"""The forms of the log."""
LEVELS = tuple(level.name for level in LogLevel.iterconstants())
"""The names of the levels, the least important first."""
MOST_TEXT = 2**14
"""The most characters of an event's text, and of a traceback."""
MOST_VALUE = 1000
"""The most characters of one field of a JSON object."""
MOST_FIELDS = 40
"""The most fields of an event in a JSON object."""
MOST_ITEMS = 100
"""The most items of a list in a JSON object."""
MOST_DEPTH = 3
"""How deep lists may be in lists."""
LARGEST = 2**63
"""The number from which on a whole number is only described."""

_IMPORTANCE = {level: number for number, level in enumerate(LogLevel.iterconstants())}
_OWN = frozenset({"level", "namespace", "system", "text", "time", "traceback"})
"""The keys that each JSON object may have; an event's field of such a name gets a ``_`` behind."""
_OF_LEGACY = frozenset({"failure", "isError", "message", "system", "time", "why"})
"""Keys that :mod:`twisted.python.log` adds to its events; Twisted's new keys say the same."""


class Format:
    """Makes lines of the events from one level on."""

    def __init__(self, level: str, *, stamped: bool = True) -> None:
        """Leave out less important events.

        :param level: the name of the least important level that is logged.
        :param stamped: whether a line of text begins with the time.
        """
        self._least = LEVELS.index(level)
        self._stamped = stamped

    def passes(self, event: LogEvent) -> bool:
        """Whether `event` is important enough."""
        return _IMPORTANCE[level_of(event)] >= self._least

    def text(self, event: LogEvent) -> str | None:
        """The event as Twisted writes it: ``<time> [<system>] <text>``; None to leave it out.

        A text of several lines goes on in lines that begin with a tab.
        """
        if not self.passes(event):
            return None
        try:
            text = eventAsText(event, includeTimestamp=self._stamped)
        except Exception as error:  # noqa: BLE001 - a log call never raises
            text = f"(an event could not be logged: {safe_repr(error)})"
        if not text:
            return None
        return _bounded(text, MOST_TEXT, "\n\t").replace("\n", "\n\t") + "\n"

    def json(self, event: LogEvent) -> str | None:
        """The event as one JSON object in one line; None to leave it out.

        Fields whose names begin with ``_`` are only parts of the text.
        """
        if not self.passes(event):
            return None
        try:
            return json_line(_document(event))
        except Exception as error:  # noqa: BLE001 - a log call never raises
            lost = f"an event could not be logged: {safe_repr(error)}"
            return json_line({"level": "critical", "text": _bounded(lost, MOST_VALUE)})


def json_line(document: Mapping[str, Any]) -> str:
    """The document as a line of a log in JSON; it gets the time of now if it has none."""
    stamped = document if "time" in document else {"time": _time(None), **document}
    return json.dumps(stamped, ensure_ascii=False, allow_nan=False) + "\n"


def level_of(event: LogEvent) -> Any:
    """The level of `event`. One without a level, or with something else in its place, informs."""
    level = event.get("log_level")
    # Only what can be a level is looked up: anything may be in an event, and not all of it hashes.
    is_one = isinstance(level, type(LogLevel.info)) and level in _IMPORTANCE
    return level if is_one else LogLevel.info


def _document(event: LogEvent) -> dict[str, Any]:
    failure: Failure | None = event.get("log_failure")
    document: dict[str, Any] = {
        "time": _time(event.get("log_time")),
        "level": level_of(event).name,
        "namespace": _namespace(event),
    }
    system = event.get("log_system")
    if system not in (None, "-"):
        document["system"] = _bounded(str(system), MOST_VALUE)
    document["text"] = _bounded(formatEvent(event), MOST_TEXT, "\n\t")
    legacy = "isError" in event
    names = (
        name
        for name in list(event)
        if not name.startswith(("_", "log_")) and not (legacy and name in _OF_LEGACY)
    )
    for name in islice(names, MOST_FIELDS):
        key = f"{name}_" if name in _OWN else _bounded(name, MOST_VALUE)
        document[key] = _value(event[name])
    if failure is not None:
        document["traceback"] = _traceback(failure)
    return document


def _namespace(event: LogEvent) -> str:
    """The part of the server that speaks."""
    name = str(event.get("log_namespace") or "-")
    return "twisted" if name == "log_legacy" else _bounded(name, MOST_VALUE)


def _time(seconds: Any) -> str:
    """Seconds since 1970 as ISO 8601 in UTC: ``2026-11-28T00:13:55.123456Z``."""
    try:
        when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (OSError, OverflowError, TypeError, ValueError):
        when = datetime.datetime.now(datetime.UTC)
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _value(value: Any, depth: int = 1) -> Any:
    """The value of a field as JSON has it, bounded."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _value(value.value, depth)
    if isinstance(value, int):
        return value if -LARGEST < value < LARGEST else f"a number of {value.bit_length()} bits"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (str, bytes)):
        text = value if isinstance(value, str) else value[: MOST_VALUE + 1].decode("latin-1")
        return _bounded(text, MOST_VALUE, "\n\t")
    if depth <= MOST_DEPTH and isinstance(value, Mapping):
        pairs = islice(value.items(), MOST_ITEMS)
        return {_bounded(str(key), MOST_VALUE): _value(each, depth + 1) for key, each in pairs}
    if depth <= MOST_DEPTH and isinstance(value, Iterable) and hasattr(value, "__len__"):
        return [_value(each, depth + 1) for each in islice(value, MOST_ITEMS)]
    return _bounded(safe_repr(value), MOST_VALUE)


def _traceback(failure: Failure) -> str:
    """The end of the failure's traceback: the last calls tell the most."""
    try:
        text = failure.getTraceback()
    except Exception as error:  # noqa: BLE001 - it formats objects of all kinds
        text = f"(no traceback: {safe_repr(error)})"
    return printable(text[-MOST_TEXT:], "\n\t")


def _bounded(text: str, most: int, keep: str = "") -> str:
    """At most so many characters of the text, printable but for those to `keep`."""
    return printable(text if len(text) <= most else f"{text[: most - 3]}...", keep)
