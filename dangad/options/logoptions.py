"""The options of ``twistd dangad`` about its log and its traces.

Part of :mod:`.commandline`. They are also the seam to twistd, which opens the log.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from dangad.host.logformat import FORMATS, JSON, LEVELS, TEXT, json_line
from dangad.host.reactorwatch import LONG
from dangad.limits import LOG_FAILED, LOG_JOBS
from dangad.options.values import one_of, seconds

if TYPE_CHECKING:
    from collections.abc import Callable

PARAMETERS: list[list[Any]] = [
    [
        "log-format",
        None,
        TEXT,
        "The form of the log: text, or json for an object in each line",
        one_of("log-format", FORMATS),
    ],
    [
        "log-level",
        None,
        "info",
        "The least important lines that are logged: debug, info, warn, error or critical",
        one_of("log-level", LEVELS),
    ],
    [
        "log-jobs",
        None,
        LOG_FAILED,
        "Whose end the log tells: that of none, of jobs failed by the server, or of all",
        one_of("log-jobs", LOG_JOBS),
    ],
    [
        "log-stalls",
        None,
        0.0,
        "Seconds in one turn of the reactor after which the log tells what blocks, 0 for never",
        seconds("log-stalls", least=LONG),
    ],
]
"""The options with values, as entries of `usage.Options.optParameters`."""
FLAGS: list[list[Any]] = [
    ["traces", None, "Send spans of jobs to OpenTelemetry, as the variables OTEL_* say"],
]
"""The flags, as entries of `usage.Options.optFlags`."""


class Log:
    """The log of this process, until twistd opens it."""

    def __init__(self) -> None:
        #: Opens the log; None until the command line was read.
        self.opens: Callable[[], Any] | None = None

    def open(self) -> Any:
        """Open the log; returns its observer. twistd calls this."""
        assert self.opens is not None
        return self.opens()


LOG = Log()
"""The one log of the process. twistd finds it by its name."""


def begin_log(options: Any) -> None:
    """Let twistd log as `options` say, unless its own option ``--logger`` was given.

    The value of ``--logger`` is the name of a function, which twistd looks up and calls later.
    """
    twistd = options.parent
    if twistd is not None and not twistd.get("logger"):
        from dangad.host.logobserver import make_observer

        form, level = options["log-format"], options["log-level"]
        LOG.opens = partial(make_observer, twistd, form, level)
        twistd["logger"] = f"{__name__}.LOG.open"


def note_of_dropped(options: Any) -> Callable[[int], str] | None:
    """What makes the line about dropped events; None for the usual one."""
    return _note_in_json if options["log-format"] == JSON else None


def _note_in_json(number: int) -> str:
    text = f"{number} log events were dropped: nobody read the log"
    namespace = "dangad.host.logstream"
    document = {"level": "warn", "namespace": namespace, "text": text, "dropped": number}
    return json_line(document)
