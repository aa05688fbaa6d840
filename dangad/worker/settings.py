"""Applies a worker's settings to its process: directory, environment, limits, nice value.

Called by :mod:`dangad.worker.child` before the job modules are imported. :mod:`dangad.pool.launch`
makes the settings.
"""

from __future__ import annotations

import contextlib
import os
import resource
from typing import Any

from dangad.host.descent import WORKER_OOM_SCORE


class CannotStart(Exception):
    """The settings cannot be applied; the text says which one, and why."""


def take_on(settings: dict[str, Any]) -> None:
    """Apply the settings, for jobs and for the programs that jobs start.

    :raises CannotStart: a setting cannot be applied.
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
    """Apply the settings that concern the process as the kernel sees it.

    The memory limit is RLIMIT_DATA, see getrlimit(2). On Linux it counts all private writable
    memory. A request for more fails, in this process and in the programs that a job starts. If the
    machine itself runs out of memory, the kernel should kill a worker and not the parent: see
    proc_pid_oom_score_adj(5).
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
