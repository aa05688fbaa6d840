"""How much the machine has for this process and its workers: cores, memory, open files.

:mod:`dangad.tap` and :mod:`dangad.operators.view` ask it when a person wants a number of workers.
:mod:`dangad.service` asks it, because it starts no more workers at a time than there are cores. If
a control group allows less than the machine has, the group's limit counts: see cgroups(7).
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
from typing import TYPE_CHECKING

from dangad.text import show_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKERS_PER_CORE = 32
"""The most workers for each core: jobs that wait for a disk or a network hardly use a core."""
WORKER_MEMORY = 32 * 2**20
"""The fewest bytes that a worker takes: Python, Twisted, dangad, and a small job module."""
WORKER_FILES = 6
"""Open files of the server for each worker: two for the pipe of jobs, one for answers, one for
orders to stop, and two for output."""
STARTING_FILES = 5
"""Further open files of the server while a worker is being forked: the worker's ends of its pipes,
until the worker has them."""
OWN_FILES = 100
"""Open files of the server itself, including those that it opens for a moment."""

_MEMBERSHIP = "/proc/self/cgroup"
_GROUPS = "/sys/fs/cgroup"


class TooManyWorkers(ValueError):
    """The machine has no room for so many workers; the text says how many are possible, and why."""


def cores() -> int:
    """How many cores this process may use, at least 1."""
    count: float = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    for line in _control_group("cpu.max"):
        quota, _, period = line.partition(" ")
        with contextlib.suppress(ValueError, ZeroDivisionError):  # "max 100000"
            count = min(count, int(quota) / int(period))
    return max(1, math.ceil(count))


def memory() -> int:
    """How many bytes of memory this process and its workers may have together."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _control_group("memory.max"):
        with contextlib.suppress(ValueError):  # "max"
            most = min(most, int(line))
    return most


def check_workers(count: int, memory_each: int = WORKER_MEMORY, force: bool = False) -> None:
    """Check that the machine has room for `count` workers. One for each core is always accepted.

    :param memory_each: the bytes that one worker takes.
    :param force: whether to ignore cores and memory; open files always count.
    :raises TooManyWorkers: there is no room for so many workers.
    """
    if count <= (os.cpu_count() or 1):
        return
    each = max(memory_each, WORKER_MEMORY)
    own_cores, own_memory = cores(), memory()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    bounds = []
    if not force:
        bounds += [
            (own_cores * WORKERS_PER_CORE, f"{own_cores} cores"),
            (
                own_memory // each,
                f"{show_bytes(own_memory)} of memory and {show_bytes(each)} for each",
            ),
        ]
    if files != resource.RLIM_INFINITY:
        most = (files - OWN_FILES) // WORKER_FILES
        bounds.append((most, f"a hard limit of {files} open files (ulimit -Hn, LimitNOFILE=)"))
    most, why = min(bounds, default=(count, ""))
    if count > most:
        advice = "" if force else "; use --force to have them anyway"
        raise TooManyWorkers(
            f"{count} workers are too many for this machine: there is room for {max(0, most)}, "
            f"with {why}{advice}"
        )


def _control_group(name: str) -> Iterator[str]:
    """The content of the file `name` in this process's control group, and in the groups around."""
    with contextlib.suppress(OSError), open(_MEMBERSHIP) as file:
        for line in file:
            if line.startswith("0::/"):
                folder = line.rstrip("\n").removeprefix("0::")
                while True:
                    with contextlib.suppress(OSError), open(f"{_GROUPS}{folder}/{name}") as it:
                        yield it.read().strip()
                    if folder in ("/", ""):
                        return
                    folder = os.path.dirname(folder)
