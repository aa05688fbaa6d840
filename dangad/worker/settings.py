"""The process as its settings want it: directory, environment, limits, how nice it is.

Read by :mod:`dangad.worker.child`, before job modules are imported. :mod:`dangad.pool.launch` makes
the settings.
"""

from __future__ import annotations

import contextlib
import os
import resource
from typing import Any

from dangad.host.descent import WORKER_OOM_SCORE


class CannotStart(Exception):
    """The process cannot be as its settings want it; the text names what to change."""


def take_on(settings: dict[str, Any]) -> None:
    """Become as the settings describe it, for jobs and for what they start.

    :raises CannotStart: one of them cannot be had.
    """
    directory = settings["directory"]
    try:
        os.chdir(directory)
    except OSError as error:
        raise CannotStart(
            f"the working directory {directory} cannot be used: {error.strerror}"
        ) from None
    if settings["pythonpath"] is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = settings["pythonpath"]
    apply_limits(settings)


def apply_limits(settings: dict[str, Any]) -> None:
    """Take on what the settings say of the process as the system sees it.

    The memory limit is RLIMIT_DATA, see getrlimit(2): on Linux it counts all private writable
    memory, so that a request for more fails, in this process and in those that a job starts.
    And should the machine itself run out of memory, the kernel is to choose a worker, and not
    the parent: see proc_pid_oom_score_adj(5).
    """
    if settings["nice"]:
        os.nice(settings["nice"])
    if settings["umask"] is not None:
        os.umask(settings["umask"])
    if settings["open_files"]:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (settings["open_files"], hard))
    if settings["max_memory"]:
        resource.setrlimit(resource.RLIMIT_DATA, (settings["max_memory"],) * 2)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(WORKER_OOM_SCORE))
