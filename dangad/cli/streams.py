"""The standard streams of ``dangad``.

Standard output gets the answer and nothing else; standard error gets messages to the user. Foreign
text in messages is escaped by :func:`~dangad.text.printable`.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys

from dangad.cli.outcome import FAILED, Failed, Signalled
from dangad.text import printable

_waiting: list[None] = []
"""Not empty while the process waits for the reader of its output, or for an answer of the user."""


def is_waiting() -> bool:
    """Whether a write, or a question to the user, is under way. Then a signal has to end it."""
    return bool(_waiting)


def on_terminal() -> bool:
    """Whether the standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def columns() -> int | None:
    """The width of the terminal on the standard output; None if it is not a terminal."""
    return shutil.get_terminal_size().columns if on_terminal() else None


def encode(text: str) -> bytes:
    """The text in the encoding of the standard output; characters outside of it are escaped."""
    return text.encode(getattr(sys.stdout, "encoding", None) or "utf-8", "backslashreplace")


def write(output: bytes) -> None:
    """Write to the standard output.

    This bypasses Python's buffer, which Python would flush at the exit even without a reader.

    :raises Failed: the write fails.
    :raises Signalled: nobody reads the output any more.
    """
    if sys.stdout is None:
        raise Failed(FAILED, "cannot write the answer: the standard output is closed")
    left = memoryview(output)
    _waiting.append(None)
    try:
        while left:
            left = left[os.write(sys.stdout.fileno(), left) :]
    except BrokenPipeError:
        raise Signalled(signal.SIGPIPE) from None
    except OSError as error:
        raise Failed(FAILED, f"cannot write the answer: {error.strerror}") from None
    finally:
        _waiting.clear()


def read_input() -> bytes:
    """All of the standard input.

    :raises OSError: the standard input cannot be read.
    """
    if sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed")
    return sys.stdin.buffer.read()


def can_ask() -> bool:
    """Whether the user can be asked: there is a terminal for the question and for the answer."""
    streams = (sys.stdin, sys.stderr)
    return all(stream is not None and stream.isatty() for stream in streams)


def ask(question: str) -> bool:
    """Ask the user at the terminal; whether the answer is yes."""
    _waiting.append(None)
    try:
        sys.stderr.write(f"dangad: {printable(question)} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    finally:
        _waiting.clear()


def say(text: str) -> None:
    """Write one line for the user to the standard error."""
    if sys.stderr is not None:
        sys.stderr.write(f"dangad: {printable(text)}\n")
