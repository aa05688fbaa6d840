"""The options of a request, which are in its reserved keys.

Read by :mod:`dangad.server.connection` when it makes a job of a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dangad.errors import BadArguments
from dangad.text import quote
from dangad.wire import boxes, values
from dangad.wire.values import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PRIORITIES = {priority.name.lower().encode(): priority for priority in Priority}
_FLAGS = {b"0": False, b"1": True}
_OPTIONS: dict[bytes, tuple[Callable[[bytes], Any], str]] = {
    boxes.PRIORITY: (_PRIORITIES.__getitem__, "high, normal or low"),
    boxes.DEADLINE: (values.read_seconds, "a number of seconds, 0 or more"),
    boxes.PROGRESS: (_FLAGS.__getitem__, "0 or 1"),
    boxes.CHUNKS: (_FLAGS.__getitem__, "0 or 1"),
    boxes.TRACEPARENT: (values.read_traceparent, "a traceparent"),  # ignored if not valid
}
"""For each key, how its value is read, and a description of valid values."""


def read_options(keys: Mapping[bytes, bytes]) -> dict[bytes, Any]:
    """The options among the reserved keys, read: priority, seconds, two flags, and a trace.

    :raises BadArguments: a value is not valid.
    """
    options = {}
    for key, value in keys.items():
        if key in _OPTIONS:
            read, expected = _OPTIONS[key]
            try:
                options[key] = read(value)
            except (KeyError, ValueError):
                shown = quote(value)
                raise BadArguments(f"{key.decode()} is {shown}, not {expected}") from None
    return options
