"""Why an endpoint cannot be listened on, with what an operator may change.

Used by :mod:`dangad.server.listening`. The system's word for it ("Permission denied") tells neither
of which directory nor what to do.
"""

from __future__ import annotations

import errno
import os

from twisted.internet import error

from dangad.server.unixport import InUse


def explain(problem: BaseException | None, path: str | None, option: str) -> str:
    """What the system said, without what the reader knows, and what to do about it.

    :param problem: what listening failed with.
    :param path: that of the UNIX socket, if it is one.
    :param option: the one that says where to listen.
    """
    cause = problem.socketError if isinstance(problem, error.CannotListenError) else problem
    said = str(getattr(cause, "strerror", None) or cause)
    if isinstance(cause, InUse):
        return f"{said}; choose another path by {option}"
    if path is not None:
        return f"{said}; {_advise_path(getattr(cause, 'errno', None), path, option)}"
    advice = _advise_port(getattr(cause, "errno", None), option)
    return f"{said}; {advice}" if advice else said


def _advise_path(number: int | None, path: str, option: str) -> str:
    """What to do about a UNIX socket that cannot be made."""
    directory = os.path.dirname(path) or "."
    if number == errno.ENOENT:
        return f"make the directory {directory}, or choose another path by {option}"
    if number in (errno.EACCES, errno.EPERM):
        return (
            f"let the server's user write in the directory {directory}, "
            f"or choose another path by {option}"
        )
    if number is None:  # Python's own: the path is too long
        return f"choose a shorter path by {option}, of at most 107 bytes"
    return f"choose another path by {option}"


def _advise_port(number: int | None, option: str) -> str:
    """What to do about a port that cannot be listened on; empty if nothing is known."""
    if number == errno.EADDRINUSE:
        # One --listen takes the place of both defaults.
        beside = "--listen unix:dangad.sock " if option == "--listen" else ""
        return f"choose another port, as in {beside}{option} tcp:7004:interface=127.0.0.1"
    if number in (errno.EACCES, errno.EPERM):
        return f"choose a port from 1024 on by {option}; those below are for root"
    if number == errno.EADDRNOTAVAIL:
        return f"choose an address of this machine by {option}, as in interface=127.0.0.1"
    return ""
