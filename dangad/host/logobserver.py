"""Where the server's log goes, as twistd's options say, and in which form.

:mod:`dangad.options.logoptions` gives :func:`make_observer` to twistd, as if its option
``--logger`` named it. So one object writes the log in the foreground, in a daemon and to syslog.
The destinations are twistd's own, with its rotation of files.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

from twisted.logger import FileLogObserver, ILogObserver, LogLevel
from twisted.python.logfile import LogFile
from zope.interface import implementer

from dangad.host.logformat import JSON, Format, level_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.logger import LogEvent

DEFAULT_FILE = "twistd.log"
"""The log file of a daemon that was given none, as of twistd itself."""


def make_observer(twistd: Mapping[str, Any], form: str, level: str) -> Any:
    """The observer that writes the log.

    :param twistd: the options of twistd.
    :param form: one of :data:`.logformat.FORMATS`.
    :param level: the name of the least important level that is logged.
    :raises SystemExit: twistd's options contradict each other.
    """
    syslog = bool(twistd.get("syslog"))
    format = Format(level, stamped=not syslog)
    line = format.json if form == JSON else format.text
    if syslog:
        return SyslogObserver(str(twistd.get("prefix") or ""), line)
    path = twistd.get("logfile")
    if path == "-" and not twistd.get("nodaemon"):
        raise SystemExit("twistd dangad: a daemon cannot log to its stdout; see --nodaemon")
    if path == "-" or (twistd.get("nodaemon") and not path):
        return FileLogObserver(sys.stdout, line)
    file = LogFile.fromFullPath(path or DEFAULT_FILE)
    if signal.getsignal(signal.SIGUSR1) in (None, signal.SIG_DFL):
        signal.signal(signal.SIGUSR1, lambda *_: _rotate(file))
    return FileLogObserver(file, line)


def _rotate(file: LogFile) -> None:
    """Begin a new file in the next turn of the reactor; this is a signal's handler."""
    from twisted.internet import reactor

    reactor.callFromThread(file.rotate)  # type: ignore[attr-defined]


@implementer(ILogObserver)
class SyslogObserver:
    """Sends lines to syslog, each with its level. A log without a reader may make it wait."""

    def __init__(self, prefix: str, line: Callable[[LogEvent], str | None]) -> None:
        """Send what `line` makes of an event, under the name `prefix`."""
        import syslog  # only where it is used

        syslog.openlog(prefix, 0, syslog.LOG_USER)
        self._send = syslog.syslog
        self._line = line
        self._priorities = {
            LogLevel.debug: syslog.LOG_DEBUG,
            LogLevel.info: syslog.LOG_INFO,
            LogLevel.warn: syslog.LOG_WARNING,
            LogLevel.error: syslog.LOG_ERR,
            LogLevel.critical: syslog.LOG_ALERT,
        }

    def __call__(self, event: LogEvent) -> None:
        """Send the event; a text of several lines as so many messages."""
        text = self._line(event)
        if text is not None:
            priority = self._priorities[level_of(event)]
            for line in text.splitlines():
                self._send(priority, line)
