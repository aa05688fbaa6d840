"""How a worker process begins: its settings, its environment and its first lines of Python.

Used by :mod:`dangad.pool.processes`, which starts workers on a reactor, and by
:mod:`dangad.pool.preflight`, which tries the job modules out before the server starts. The other
side is
:mod:`dangad.worker.child`, named here only as text: the parent never imports it.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field

from dangad.limits import DEFAULTS

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
"""The program of a worker process, run with ``python -c``. It gets its settings on stdin, as the
first line: a variable of the environment, or an argument, can have 128 KiB at most on Linux. What
follows there comes when it has said Hello, and is :mod:`dangad.worker.pipe`'s to read."""

NOT_FOR_WORKERS = frozenset({"PYTHONINSPECT"})
"""Variables with which a worker would do otherwise than it must: not end when it has ended."""


class BrokenJobs(Exception):
    """The job modules cannot be served; the text says why in one line.

    :ivar traceback: where in them it was raised, and what they printed; may be empty.
    """

    def __init__(self, reason: str, traceback: str) -> None:
        super().__init__(reason)
        self.traceback = traceback


class NoDirectory(Exception):
    """The working directory is gone, and with it the place where jobs would run; says so."""


def working_directory() -> str:
    """The path of the working directory.

    :raises NoDirectory: it was removed.
    """
    try:
        return os.getcwd()
    except OSError as error:
        raise NoDirectory(
            f"the working directory cannot be used: {error.strerror}; start from one that exists"
        ) from None


def default_path() -> tuple[str, ...]:
    """The parent's import path, then its working directory, so that jobs beside it are found.

    All are absolute: a worker's working directory may be another.

    :raises NoDirectory: the working directory was removed.
    """
    cwd = working_directory()
    path = tuple(os.path.join(cwd, entry) if entry else cwd for entry in sys.path)
    return path if cwd in path else (*path, cwd)


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker process is given at its birth."""

    jobs: tuple[str, ...]
    """Names of the modules whose job types it performs."""
    max_payload: int = DEFAULTS.max_payload
    """Bytes of the largest box that it may answer."""
    path: tuple[str, ...] = field(default_factory=default_path)
    """Its ``sys.path``."""
    directory: str | None = None
    """Its working directory, None for the parent's."""
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    """Its environment variables, all of them."""
    max_memory: int = 0
    """Bytes of private memory that it may have; 0 for any number."""
    nice: int = 0
    """By how much its priority for the system is lower than the parent's."""
    umask: int | None = None
    """Its file mode creation mask, None for the parent's."""
    uid: int | None = None
    """The user as whom it runs, None for the parent's; only root may choose."""
    gid: int | None = None
    """The group likewise."""
    mark: str = field(default_factory=lambda: os.urandom(8).hex())
    """What tells this server's workers, and what descends from them, from other processes."""
    open_files: int = 0
    """Its soft limit of open files; 0 for the parent's."""

    def process_environment(self) -> dict[str, str]:
        """The environment with which :data:`BOOTSTRAP` is started."""
        return {
            name: value for name, value in self.environment.items() if name not in NOT_FOR_WORKERS
        }

    def process_input(self, check: int | None = None) -> bytes:
        """What a process of this one's that is started now is to read from its stdin.

        :param check: the descriptor on which the process should say whether the job modules can
            be served, and then exit; None for a worker.
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
            "pythonpath": self.environment.get("PYTHONPATH"),
            "umask": self.umask,
        }
        return json.dumps(settings).encode() + b"\n"
