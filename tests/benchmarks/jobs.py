"""The work as job types of dangad, beside :class:`dangad.examples.Echo` and ``ListDirectory``."""

from __future__ import annotations

import fcntl

from twisted.protocols import amp

from dangad import Blob, job
from tests.benchmarks import work


class Spin(amp.Command):
    """Answer the data after so many microseconds of CPU time."""

    arguments = [(b"data", Blob()), (b"microseconds", amp.Integer())]
    response = [(b"data", Blob())]


class Nap(amp.Command):
    """Answer the data after so many microseconds."""

    arguments = [(b"data", Blob()), (b"microseconds", amp.Integer())]
    response = [(b"data", Blob())]


class Hold(amp.Command):
    """Answer the data once nobody else has the file locked any more."""

    arguments = [(b"data", Blob()), (b"path", amp.Unicode())]
    response = [(b"data", Blob())]


class Shout(amp.Command):
    """Answer the data when so many lines are printed, all at once."""

    arguments = [(b"data", Blob()), (b"lines", amp.Integer())]
    response = [(b"data", Blob())]


@job(Spin)
def spin(data: bytes, microseconds: int) -> dict[str, object]:
    """See :func:`tests.benchmarks.work.spin`."""
    return {"data": work.spin(data, microseconds)}


@job(Nap)
def nap(data: bytes, microseconds: int) -> dict[str, object]:
    """See :func:`tests.benchmarks.work.nap`."""
    return {"data": work.nap(data, microseconds)}


@job(Shout)
def shout(data: bytes, lines: int) -> dict[str, object]:
    """The data, after the lines."""
    print("\n".join(["a line that a job prints"] * lines), flush=True)
    return {"data": data}


@job(Hold)
def hold(data: bytes, path: str) -> dict[str, object]:
    """The data, when the lock can be shared."""
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    return {"data": data}
