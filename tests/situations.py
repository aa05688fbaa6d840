"""Situations that others met with job servers and process pools: what a job does, and what then.

Each row is a job that does something odd, and how it ends; and after it an innocent job, which
runs in the same worker, or in the one that has taken its place, and must notice nothing. Whoever
finds a situation that is not here adds a row, with the public report where there is one.
:mod:`tests.test_situations` goes through them, on real workers.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Situation:
    """A job that does something, and what is to be seen of it and after it."""

    name: str
    """What happens, in a few words."""
    code: str
    """What the job runs; `out` in it is the answer. See :mod:`tests.textjobs`."""
    code_says: str = "ok"
    """The code of the error with which it ends, or "ok"."""
    says: str = ""
    """A pattern, somewhere in the error's text, or all of the answer's ``repr``."""
    command: bytes = b"Python"
    """Its command, of :mod:`tests.textjobs`."""
    options: tuple[tuple[str, bytes], ...] = ()
    """Reserved keys of its request and their values, as in ``(("_progress", b"1"),)``."""
    then: str = "out = 6 * 7"
    """What the job after it runs, for a client of its own, which must be told no news."""
    then_says: str = "42"
    """A pattern: all of the ``repr`` of its answer."""
    logs: str = ""
    """A pattern, somewhere in the log from the job's start on."""
    reports: str = ""
    """Where others met it, as in "gunicorn 1709"."""


SITUATIONS = (
    Situation("an ordinary job", "out = 'fine'", says="'fine'"),
    Situation("raises", "raise ValueError('no')", "JOB_FAILED", "ValueError: no"),
    Situation("raises what is declared", "raise Declared('no')", "DECLARED", "no"),
    Situation(
        "calls sys.exit(0)",
        "import sys; sys.exit(0)",
        "JOB_FAILED",
        "SystemExit: 0",
        reports="ampoule: a worker that exits 0 takes the queue with it",
    ),
    Situation("ends its process", "import os; os._exit(0)", "WORKER_LOST", r"exited \(status 0\)"),
    Situation(
        "kills itself",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "WORKER_LOST",
        "was killed by SIGKILL",
        reports="concurrent.futures: BrokenProcessPool for all jobs",
    ),
    Situation(
        "exits from a fork that it has made",
        "import os\npid = os.fork()\nif not pid: os._exit(7)\nout = os.waitpid(pid, 0)[1] >> 8",
        says="7",
    ),
    Situation(
        "leaves a thread",
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
    ),
    Situation("closes its outputs", "import os; os.close(1); os.close(2)"),
    Situation(
        "runs past its limit", "import time; time.sleep(60)", "TIMED_OUT", command=b"Limited"
    ),
)
