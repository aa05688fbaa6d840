"""What the server's process inherits: open files.

Used by :mod:`dangad.tap`, before anything else is opened.
"""

from __future__ import annotations

import contextlib
import os
import sys


def open_standard_streams() -> None:
    """Open those of descriptors 0 to 2 that are closed, and their Python streams, on /dev/null.

    The program that started this one may have closed them. Then Twisted's own files would get these
    numbers, and a daemon would replace them by /dev/null.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "r+")  # noqa: SIM115 - for as long as the program runs
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def keep_from_children() -> None:
    """Keep inherited files, other than standard streams, from the processes that this one starts.

    Twisted closes descriptors one by one in each new process. It misses a descriptor beyond the
    limit of open files, if the limit was lowered after the descriptor was opened.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the descriptor of the listing itself
                if int(name) > 2:
                    os.set_inheritable(int(name), False)
