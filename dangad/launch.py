"""How a worker process begins: its settings, its environment and its first lines of Python.

Used by :mod:`dangad.pool`, which starts workers on a reactor, and by :mod:`dangad.tap`, which
tries the job modules out before the server starts. The other side is
:mod:`dangad.worker.child`, named here only as text: the parent never imports it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field

SETTINGS_VARIABLE = "DANGAD_WORKER_SETTINGS"

BOOTSTRAP = f"""\
import json, os, sys
settings = json.loads(os.environ.pop({SETTINGS_VARIABLE!r}))
sys.path[:] = settings["path"]
from dangad.worker.lean import import_amp
import_amp()
from dangad.worker.child import main
main(settings)
"""
"""The program of a worker process, run with ``python -c``."""


class BrokenJobs(Exception):
    """The job modules cannot be served; the text says why in one line.

    :ivar traceback: where in them it was raised, and what they printed; may be empty.
    """

    def __init__(self, reason: str, traceback: str) -> None:
        super().__init__(reason)
        self.traceback = traceback


def default_path() -> tuple[str, ...]:
    """The parent's import path, then its working directory, so that jobs beside it are found."""
    cwd = os.getcwd()
    path = tuple(entry or cwd for entry in sys.path)
    return path if cwd in path else (*path, cwd)


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker process is given at its birth."""

    jobs: tuple[str, ...]
    """Names of the modules whose job types it performs."""
    max_payload: int = 64 * 2**20
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
    open_files: int = 0
    """Its soft limit of open files; 0 for the parent's."""

    def process_environment(self, check: bool = False) -> dict[str, str]:
        """The environment with which this process may now start :data:`BOOTSTRAP`.

        :param check: whether the worker should only import the job modules, and exit.
        """
        settings = {
            "check": check,
            "directory": self.directory or os.getcwd(),
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
        return {**self.environment, SETTINGS_VARIABLE: json.dumps(settings)}


class JobsCheck:
    """A process that only imports the job modules, started at once and waited for later."""

    def __init__(
        self, settings: WorkerSettings, uid: int | None = None, gid: int | None = None
    ) -> None:
        """Start the process.

        :param uid: the user as whom the server will run, if not this process's.
        :param gid: the group likewise.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-c", BOOTSTRAP],
            env=settings.process_environment(check=True),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            user=settings.uid if settings.uid is not None else uid,
            group=settings.gid if settings.gid is not None else gid,
        )

    def wait(self) -> None:
        """Wait for the outcome; this blocks, so it is for before the reactor runs.

        :raises BrokenJobs: the modules cannot be imported, or have no job types, or wrong ones.
        """
        output = self._process.communicate()[1].decode("utf-8", "replace").rstrip()
        status = self._process.returncode
        if status:
            lines = output.splitlines() or [f"the check of the job modules ended with {status}"]
            raise BrokenJobs(lines[-1], "\n".join(lines[:-1]))
