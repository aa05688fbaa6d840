"""The standard streams of ``dangad``: what is written where, and for whom.

On the standard output stands the answer and nothing else, on the standard error what is said to the
user. Whatever comes from elsewhere is escaped by :func:`~dangad.text.printable` before it is said.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys

from dangad.cli.outcome import FAILED, SIGNALLED, Failed
from dangad.text import printable

_writing: list[None] = []
"""Not empty while the standard output is written to, which may take as long as its reader likes."""


def is_writing() -> bool:
    """Whether the standard output is being written to, and a signal has to end that."""
    return bool(_writing)


def on_terminal() -> bool:
    """Whether the standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def columns() -> int | None:
    """The width of the terminal that the standard output is; None if it is none."""
    return shutil.get_terminal_size().columns if on_terminal() else None


def encode(text: str) -> bytes:
    """The text as the standard output takes it, escaped where it has no such character."""
    return text.encode(getattr(sys.stdout, "encoding", None) or "utf-8", "backslashreplace")


def write(output: bytes) -> None:
    """Write to the standard output.

    Past Python's buffer, which would be written at the exit, even if nobody reads any more.

    :raises Failed: it cannot be written to, or nobody reads it any more.
    """
    if sys.stdout is None:
        raise Failed(FAILED, "cannot write the answer: the standard output is closed")
    left = memoryview(output)
    _writing.append(None)
    try:
        while left:
            left = left[os.write(sys.stdout.fileno(), left) :]
    except BrokenPipeError:
        raise Failed(SIGNALLED + signal.SIGPIPE) from None
    except OSError as error:
        raise Failed(FAILED, f"cannot write the answer: {error.strerror}") from None
    finally:
        _writing.clear()


def read_input() -> bytes:
    """All of the standard input.

    :raises OSError: it cannot be read.
    """
    if sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed")
    return sys.stdin.buffer.read()


def say(text: str) -> None:
    """Tell the user something on the standard error, in one line."""
    if sys.stderr is not None:
        sys.stderr.write(f"dangad: {printable(text)}\n")
