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
from dangad.host.memory import memory_of
from dangad.text import show_bytes


class CannotStart(Exception):
    """The settings cannot be applied; the text says which one, and why."""


def take_on(settings: dict[str, Any]) -> None:
    """Apply the settings except `max_memory`, for jobs and for the programs that jobs start.

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
    """Apply the settings that the kernel enforces, except `max_memory`.

    If the machine itself runs out of memory, the kernel should kill a worker and not the parent:
    see proc_pid_oom_score_adj(5).
    """
    if settings["nice"]:
        os.nice(settings["nice"])
    if settings["umask"] is not None:
        os.umask(settings["umask"])
    if settings["open_files"]:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (settings["open_files"], hard))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(WORKER_OOM_SCORE))


def limit_memory(max_memory: int, shared: int = 0) -> None:
    """Bound the memory of this process by RLIMIT_DATA, see getrlimit(2).

    On Linux the limit counts all private writable memory. A request for more memory fails, in this
    process and in the programs that a job starts.

    :param max_memory: in bytes; 0 for no bound.
    :param shared: the bytes that the process shares with other workers; they do not count.
    """
    if max_memory:
        resource.setrlimit(resource.RLIMIT_DATA, (max_memory + shared,) * 2)


def check_size(settings: dict[str, Any], shared: int = 0) -> None:
    """Check that a worker without a job so far is within the bounds of its memory.

    Otherwise each worker would be killed, or replaced, as soon as it was ready.

    :param shared: the bytes that the worker shares with other workers.
    :raises CannotStart: the worker is too large; the text names the option to raise.
    """
    if not (settings["max_memory"] or settings["recycle_memory"]):
        return
    memory = memory_of(os.getpid()).resident - shared
    for option in ("max_memory", "recycle_memory"):
        if 0 < settings[option] < memory:
            raise CannotStart(
                f"a worker has {show_bytes(memory)} of memory before its first job, where "
                f"--{option.replace('_', '-')} is {show_bytes(settings[option])}: raise it"
            )
