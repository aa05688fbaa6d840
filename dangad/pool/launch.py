"""How a worker process begins: its settings, its environment and its first lines of Python.

Used by :mod:`dangad.pool.processes`, which starts workers on a reactor, and by
:mod:`dangad.pool.preflight`, which tries the job modules before the server starts. The other side
is :mod:`dangad.worker.child`. Its name appears here only as text: the parent never imports it.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field

from dangad.host.descent import MARK_VARIABLE
from dangad.limits import DEFAULTS, LEAN

BOOTSTRAP = """\
import json, sys
with open(0, "rb", closefd=False) as stdin:
    settings = json.loads(stdin.readline())
sys.path[:] = settings["path"]
from dangad.host.lean import import_amp
import_amp()
from dangad.worker.child import main
main(settings)
"""
"""The program of a worker process, run with ``python -c``. The settings come as the first line on
stdin, because Linux limits an argument or environment variable to 128 KiB. After the worker's
Hello, orders to stop follow on stdin; :mod:`dangad.worker.pipe` reads them."""

NOT_FOR_WORKERS = frozenset({"PYTHONINSPECT"})
"""Environment variables that workers must not get: with this one Python would not exit."""


class BrokenJobs(Exception):
    """The job modules cannot be served; the text says why in one line.

    :ivar traceback: the traceback within the modules, and the modules' output; may be empty.
    """

    def __init__(self, reason: str, traceback: str) -> None:
        super().__init__(reason)
        self.traceback = traceback


class NoDirectory(Exception):
    """The working directory, in which jobs would run, does not exist any more."""


def working_directory() -> str:
    """The path of the working directory.

    :raises NoDirectory: the working directory was removed.
    """
    try:
        return os.getcwd()
    except OSError as error:
        raise NoDirectory(
            f"the working directory cannot be used: {error.strerror}; start from one that exists"
        ) from None


def default_path() -> tuple[str, ...]:
    """The parent's import path and, at its end, the working directory, where job modules may be.

    All entries are absolute, because a worker may have another working directory.

    :raises NoDirectory: the working directory was removed.
    """
    cwd = working_directory()
    path = tuple(os.path.join(cwd, entry) if entry else cwd for entry in sys.path)
    return path if cwd in path else (*path, cwd)


@dataclass(frozen=True)
class WorkerSettings:
    """The settings with which a worker process starts."""

    jobs: tuple[str, ...]
    """Names of the modules whose job types it performs."""
    max_payload: int = DEFAULTS.max_payload
    """The bytes of its largest answer."""
    path: tuple[str, ...] = field(default_factory=default_path)
    """Its ``sys.path``."""
    directory: str | None = None
    """Its working directory; None for the parent's."""
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    """Its environment variables, all of them."""
    max_memory: int = 0
    """Bytes of private memory that it may have; 0 for no limit."""
    recycle_memory: int = 0
    """Bytes of memory beyond which it is replaced; 0 for any number."""
    nice: int = 0
    """The number that is added to its nice value, see nice(2)."""
    umask: int | None = None
    """Its file mode creation mask; None for the parent's."""
    uid: int | None = None
    """The user id with which it runs; None for the parent's. Only root may choose one."""
    gid: int | None = None
    """The group id with which it runs; None for the parent's. Only root may choose one."""
    mark: str = field(default_factory=lambda: os.urandom(8).hex())
    """A random text by which this server's workers and their descendants are recognised."""
    open_files: int = 0
    """Its soft limit of open files; 0 for the parent's."""

    start: str = LEAN
    """How its process begins, one of :data:`dangad.limits.STARTS`."""
    start_timeout: float = DEFAULTS.start_timeout
    """Seconds in which it, or the template that preloads, must have imported the job modules."""

    def process_environment(self) -> dict[str, str]:
        """The environment with which :data:`BOOTSTRAP` is started, with the mark."""
        environment = {**self.environment, MARK_VARIABLE: self.mark}
        return {name: value for name, value in environment.items() if name not in NOT_FOR_WORKERS}

    def process_input(
        self, check: int | None = None, *, template: bool = False, preloads: bool = False
    ) -> bytes:
        """The line of settings for the stdin of a process that this process starts now.

        :param check: the descriptor on which the process reports whether the job modules can be
            served, before it exits; None for a worker.
        :param template: whether the process is a template, which forks workers.
        :param preloads: whether the template imports the job modules. With `check`, this is about
            the template of the workers to come.
        """
        settings = {
            "check": check,
            "directory": self.directory or working_directory(),
            "jobs": self.jobs,
            "max_memory": self.max_memory,
            "max_payload": self.max_payload,
            "nice": self.nice,
            "open_files": self.open_files,
            "parent": os.getpid(),
            "path": self.path,
            "preloads": preloads,
            "pythonpath": self.environment.get("PYTHONPATH"),
            "recycle_memory": self.recycle_memory,
            "template": template,
            "umask": self.umask,
        }
        return json.dumps(settings).encode() + b"\n"
