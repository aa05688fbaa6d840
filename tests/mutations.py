"""Do the tests catch faults? ``python -m tests.mutations`` puts in one at a time, and runs them.

Each fault is one line of the scheduler's or of the worker's link: a state change that is dropped, a
comparison that is turned round, an alarm that is forgotten. They are put into a copy of the
project, in a folder of its own. The tests of memory alone are run on each; those must fail. What
they do not notice is printed, and the exit status is then 1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PATIENCE = 600.0
"""Seconds after which the tests are taken for hung, which counts as noticed."""
COPIED = ("dangad", "tests", "twisted", "pyproject.toml", "docs", "README.md")


@dataclass(frozen=True)
class Fault:
    """One line that is wrong."""

    module: str
    """Below ``dangad``, without its suffix."""
    right: str
    """What stands there, once in the module."""
    wrong: str
    """What is put in its place."""


FAULTS = (
    Fault("scheduler/answers", "if not reusable:", "if reusable:"),
    Fault("scheduler/answers", " or worker in assignments.doomed:", ":"),
    Fault("scheduler/answers", "client, job.client = job.client, None", "client = job.client"),
    Fault("scheduler/answers", "self._matching.ended(job)\n            state", "state"),
    Fault("scheduler/matching", "job.attempt += 1", "job.attempt += 0"),
    Fault("scheduler/matching", "if limit is not None and job", "if limit is None and job"),
    Fault("scheduler/matching", "job.attempt -= 1", "job.attempt -= 0"),
    Fault("scheduler/matching", "or row[-1].stopped_for is not None", "or False"),
    Fault("scheduler/endings", "if assignments.last(worker) is not job:", "if False:"),
    Fault("scheduler/endings", "client is not None and client not in state.gone", "client"),
    Fault(
        "scheduler/endings", "job.grace_alarm = self.set_alarm(job, GRACE, ", "_ = (job, GRACE, "
    ),
    Fault(
        "scheduler/retries", "job.attempt > job.policy.retries", "job.attempt >= job.policy.retries"
    ),
    Fault("scheduler/retries", "job.attempt - 1, 30", "job.attempt, 30"),
    Fault("scheduler/prefetch", "for job in reversed(back):", "for job in back:"),
    Fault("scheduler/prefetch", "waiting // busy", "waiting"),
    Fault(
        "scheduler/assignments",
        "return worker if since <= before",
        "return worker if since >= before",
    ),
    Fault(
        "scheduler/admission",
        "state.assignments.prefetched >= self.max_queued:",
        "state.assignments.prefetched > self.max_queued:",
    ),
    Fault("scheduler/fairqueue", "self._on_hold.add(client)", "pass"),
    Fault("scheduler/watch", "record.silent = True", "record.silent = False"),
    Fault("pool/jobprobe", "self.pings -= 1", "self.pings -= 0"),
    Fault(
        "pool/link",
        "if self._paused:\n            self.resume()",
        "if False:\n            self.resume()",
    ),
)


def put_in(fault: Fault, folder: Path) -> str:
    """Make the fault in the copy; returns the module's right text."""
    path = folder / "dangad" / f"{fault.module}.py"
    text = path.read_text()
    if text.count(fault.right) != 1:
        raise SystemExit(
            f"{fault.module}: {fault.right!r} is there {text.count(fault.right)} times"
        )
    path.write_text(text.replace(fault.right, fault.wrong))
    return text


def is_noticed(folder: Path) -> bool:
    """Whether the tests of memory fail on the copy."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "2", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [*command, "tests/unit/scheduler", "tests/unit/pool", "tests/unit/server"],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return True
    return done.returncode == 1


def main() -> int:
    """Try all faults, and the right code first."""
    unnoticed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in COPIED:
            source = ROOT / part
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, folder / part)
        if is_noticed(folder):
            raise SystemExit("the tests fail on the right code")
        for fault in FAULTS:
            right = put_in(fault, folder)
            noticed = is_noticed(folder)
            (folder / "dangad" / f"{fault.module}.py").write_text(right)
            unnoticed += not noticed
            shown = fault.wrong.split("\n")[0]
            print(f"{'noticed  ' if noticed else 'UNNOTICED'} {fault.module}: {shown}", flush=True)
    print(f"{len(FAULTS) - unnoticed} of {len(FAULTS)} faults are noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
