"""Describes exceptions and other objects of jobs, whatever their classes do.

Used by :mod:`dangad.worker.perform`. A job may raise or return anything: an exception whose message
raises or is not plain text, whose class has no readable name, or that claims to be of another
class. Describing it must not end the worker, and must not cost the job its answer. So nothing here
asks an object for anything that Python itself knows about the object.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from dangad.text import printable

if TYPE_CHECKING:
    from types import TracebackType

MAX_MESSAGE = 2000
"""The most characters of an undeclared exception's message that a client gets."""
MAX_LINE = 500
"""The most characters of the line that is printed when a job ends with a known error."""
MAX_TRACEBACK = 100_000
"""The most characters of a traceback that are printed; half of them are from its end."""

_traceback_of = vars(BaseException)["__traceback__"].__get__
_name_of = vars(type)["__name__"].__get__


def is_a(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether ``except kind`` would catch the exception."""
    return type.__subclasscheck__(kind, type(error))


def type_name(value: object) -> str:
    """The name of the class of `value`."""
    return str.__str__(_name_of(type(value)))


def message_of(error: BaseException) -> str:
    """The exception's message."""
    try:
        return str.__str__(str(error))
    except BaseException:  # noqa: BLE001 - the exception's class is foreign code
        return "(its message cannot be shown)"


def summary_of(error: BaseException) -> str:
    """The exception's type and message, bounded."""
    message = message_of(error)
    if len(message) > MAX_MESSAGE:
        message = message[:MAX_MESSAGE] + "..."
    return f"{type_name(error)}: {message}" if message else type_name(error)


def traceback_of(error: BaseException) -> str:
    """The traceback as Python prints it, from the frame below the outermost one on, bounded."""
    trace: TracebackType | None = _traceback_of(error)
    trace = trace and trace.tb_next
    text = f"{summary_of(error)}\n"
    with contextlib.suppress(BaseException):  # as above
        text = "".join(traceback.format_tb(trace)) + text
        text = "".join(traceback.format_exception(type(error), error, trace))
    if len(text) > MAX_TRACEBACK:
        text = f"{text[: MAX_TRACEBACK // 2]}\n...\n{text[-MAX_TRACEBACK // 2 :]}"
    return text


def say(text: str) -> None:
    """Print a text on stderr, if possible; cut, and as one line."""
    line = text[:MAX_LINE] + "..." if len(text) > MAX_LINE else text
    write(f"{printable(line)}\n")


def write(text: str) -> None:
    """Print a text on stderr, if possible."""
    with contextlib.suppress(BaseException):  # a job may have put anything there
        sys.stderr.write(text)


def leave_fork(error: BaseException | None) -> NoReturn:
    """End a fork that has returned from the job function, as a program ends.

    Its exit status is the argument of ``sys.exit``, 0 if the function has returned, or 1 after a
    traceback. The buffers are not flushed: they also hold output that the original process has not
    printed yet.
    """
    status = 0
    try:
        if error is not None:
            status = 1
            code = getattr(error, "code", None) if is_a(error, SystemExit) else error
            if code is None or isinstance(code, int):
                status = (code or 0) & 0xFF
            else:
                text = f"{code}\n" if is_a(error, SystemExit) else traceback_of(error)
                os.write(2, text.encode("utf-8", "backslashreplace"))
    finally:
        os._exit(status)
