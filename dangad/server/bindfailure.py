"""Explains why an endpoint cannot be opened, and what an operator can change.

Used by :mod:`dangad.server.listening`. The system's text ("Permission denied") says neither which
directory nor what to do.
"""

from __future__ import annotations

import errno
import os

from twisted.internet import error

from dangad.server.unixport import InUse


def explain(problem: BaseException | None, path: str | None, option: str) -> str:
    """The errno text of a failed listen, without the address, and what to do about it.

    :param problem: the exception of the failed listen.
    :param path: the path of the UNIX socket; None for other endpoints.
    :param option: the option that names the endpoint.
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
    """What to do if a UNIX socket cannot be made."""
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
    """What to do if a port cannot be opened; empty if nothing is known."""
    if number == errno.EADDRINUSE:
        # One --listen takes the place of both defaults.
        beside = "--listen unix:dangad.sock " if option == "--listen" else ""
        return f"choose another port, as in {beside}{option} tcp:7004:interface=127.0.0.1"
    if number in (errno.EACCES, errno.EPERM):
        return f"choose a port from 1024 on by {option}; those below are for root"
    if number == errno.EADDRNOTAVAIL:
        return f"choose an address of this machine by {option}, as in interface=127.0.0.1"
    return ""
