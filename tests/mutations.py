"""Do the tests catch faults? ``python -m tests.mutations`` puts in one at a time, and runs them.

Each fault is one line of the scheduler's or of the worker's link: a state change that is dropped, a
comparison that is turned round, an alarm that is forgotten. The tests of memory alone that are
about that part must fail; each takes its patience at most. All this is done in a copy of the
project, in a folder of its own, of which nothing is left. What the tests do not catch is printed,
and the exit status is then 1. Words after the command choose the faults of modules whose names
contain one of them; ``--list`` only sees that each fault can still be put in.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PATIENCE = 300.0
"""Seconds after which the tests are taken for hung, which counts as caught."""
COPIED = ("dangad", "tests", "twisted", "pyproject.toml", "docs", "README.md")
SCHEDULER = "tests/unit/scheduler"
POOL = "tests/unit/pool"


@dataclass(frozen=True)
class Fault:
    """One line that is wrong."""

    module: str
    """Below ``dangad``, without its suffix."""
    right: str
    """What stands there, once in the module."""
    wrong: str
    """What is put in its place."""

    @property
    def path(self) -> Path:
        """The module's file, below the project's folder."""
        return Path("dangad", f"{self.module}.py")

    @property
    def tests(self) -> tuple[str, ...]:
        """The folders with the tests that are about the module, the likeliest first."""
        return (POOL,) if self.module.startswith("pool/") else (SCHEDULER, POOL)

    def put_into(self, text: str) -> str:
        """The module's text with the fault in it."""
        count = text.count(self.right)
        if count != 1:
            raise SystemExit(f"{self.module}: {self.right!r} is there {count} times")
        return text.replace(self.right, self.wrong)


FAULTS = (
    Fault("scheduler/absences", "self._state.gone.add(client)", "pass"),
    Fault(
        "scheduler/absences",
        "wants_chunks:\n                self._endings.resume(job.worker, job)",
        "wants_chunks:\n                pass",
    ),
    Fault("scheduler/absences", "and job.wants_chunks and job.stopped_for", "and job.stopped_for"),
    Fault(
        "scheduler/dispatcher", "if may_start and not (state.queue.count", "if may_start and (True"
    ),
    Fault("scheduler/answers", "if not reusable:", "if reusable:"),
    Fault("scheduler/answers", " or worker in assignments.doomed:", ":"),
    Fault("scheduler/answers", "client, job.client = job.client, None", "client = job.client"),
    Fault("scheduler/answers", "self._matching.ended(job)\n            state", "state"),
    Fault("scheduler/answers", "running=number == 0)", "running=True)"),
    Fault("scheduler/matching", "job.attempt += 1", "job.attempt += 0"),
    Fault("scheduler/matching", "if limit is not None and job", "if limit is None and job"),
    Fault("scheduler/matching", "job.attempt -= 1", "job.attempt -= 0"),
    Fault("scheduler/matching", "or row[-1].stopped_for is not None", "or False"),
    Fault("scheduler/matching", "job.lane is None\n            and not", "not"),
    Fault("scheduler/endings", "if assignments.last(worker) is not job:", "if False:"),
    Fault(
        "scheduler/endings", "job.forget_request()  # it has answered", "pass  # it has answered"
    ),
    Fault(
        "scheduler/endings",
        "        if client in self._state.gone:\n            return",
        "        pass",
    ),
    Fault(
        "scheduler/endings", "job.grace_alarm = self.set_alarm(job, GRACE, ", "_ = (job, GRACE, "
    ),
    Fault("scheduler/endings", "self.prefetch.reclaim(job.worker)\n        return", "return"),
    Fault("scheduler/retries", "job.attempt > job.policy", "job.attempt >= job.policy"),
    Fault("scheduler/retries", "job.attempt - 1, 30", "job.attempt, 30"),
    Fault("scheduler/prefetch", "for job in reversed(back):", "for job in back:"),
    Fault("scheduler/prefetch", "waiting // busy", "waiting"),
    Fault("scheduler/prefetch", "self._assignments.size += job.size", "pass"),
    Fault("scheduler/assignments", "return worker if since <=", "return worker if since >="),
    Fault("scheduler/assignments", "self.jobs[worker] = row  # as", "pass  # as"),
    Fault("scheduler/admission", "state.assignments.prefetched >= self", "0 >= self"),
    Fault("scheduler/admission", "if left <= 0:", "if False:"),
    Fault("scheduler/concurrency", "self._running.get(lane, 0) >= limit", "False"),
    Fault("scheduler/concurrency", "self._running.setdefault(lane, 0)", "pass"),
    Fault("scheduler/concurrency", "job.lane = self.running_lane_of", "job.lane = self.lane_of"),
    Fault("scheduler/interventions", "self._endings.prefetch.reclaim_all()", "pass"),
    Fault("scheduler/interventions", "self._matching.review_waiting(", "("),
    Fault("scheduler/matching", "running_lane_of(job)  # its", "lane_of(job)  # its"),
    Fault("scheduler/matching", 'jobs.sort(key=attrgetter("id"))', "pass"),
    Fault("scheduler/ranks", "kind.last_start < chosen[0].last_start", "False"),
    Fault("scheduler/supervisor", "dispatcher.seeking", "dispatcher.waiting"),
    Fault("scheduler/assignments", "command not in registry.isolated or", "True or"),
    Fault("scheduler/assignments", "reversed(used or able)", "reversed(able)"),
    Fault("scheduler/answers", "self._matching.wariness.forgive(worker)", "pass"),
    Fault("scheduler/fairqueue", "self._on_hold.add(client)", "pass"),
    Fault("scheduler/rounds", "owner.due = max(owner.due, self._round) + 1", "owner.due += 0"),
    Fault("scheduler/lines", "if first:\n", "if not first:\n"),
    Fault("scheduler/registry", "offer.workers.discard(worker)", "pass"),
    Fault("scheduler/quarantine", "suspect.losses < self._threshold", "suspect.losses <= 0"),
    Fault(
        "scheduler/drain",
        "            self._cancel_alarm()\n            self._w",
        "            self._w",
    ),
    Fault("scheduler/pauses", "account.seconds += LOOK_INTERVAL", "pass"),
    Fault("scheduler/wariness", "self._owing[who] += 1", "pass"),
    Fault("scheduler/wariness", "self._other_ended + KEEP - now", "0"),
    Fault("scheduler/wariness", "            self._other_ended = now", "            pass"),
    Fault("scheduler/wariness", "if now >= self._until and not (", "if False and not ("),
    Fault(
        "scheduler/wariness",
        "not self.stands_back(job, now):\n                if",
        "True:\n                if",
    ),
    Fault("scheduler/aside", "            self._lines.move_to_end(client)\n\n", "\n"),
    Fault("scheduler/aside", "jobs.move_to_end(job.id, last=False)", "pass"),
    Fault("scheduler/aside", "            if not passed_over(client):", "            if True:"),
    Fault("scheduler/aside", "if not any(line.values()):", "if any(line.values()):"),
    Fault("scheduler/counters", "self.ended[state] += 1", "pass"),
    Fault("scheduler/alarms", "at < self._wake_at", "at > self._wake_at"),
    Fault("scheduler/chores", "self._chores.append(chore)", "pass"),
    Fault("scheduler/outbox", "        if self._sending:\n            return\n", ""),
    Fault("scheduler/pacing", "self._starting.discard(worker)", "pass"),
    Fault("scheduler/relief", "self._starts != self._dispatcher.starts", "False"),
    Fault("scheduler/reload", "self.generation += 1", "self.generation += 0"),
    Fault("scheduler/failingstarts", "self._count += 1", "self._count = 1"),
    Fault("scheduler/watch", "record.silent = True", "record.silent = False"),
    Fault("scheduler/supervisor", "self.failing.forget()", "pass"),
    Fault(
        "scheduler/workerrecord",
        "return WorkerState.STOPPING if self.released",
        "return WorkerState.IDLE if self.released",
    ),
    Fault(
        "scheduler/record",
        "(JobState.RUNNING, Event.RETURN): JobState.QUEUED",
        "(JobState.RUNNING, Event.RETURN): JobState.LOST",
    ),
    Fault("scheduler/reasons", "ShuttingDown: Event.CANCEL", "ShuttingDown: Event.LOSE"),
    Fault("pool/givenjobs", "del self.packets[job.id]", "pass"),
    Fault("pool/jobprobe", "self.pings -= 1", "self.pings -= 0"),
    Fault("pool/interruption", "self._next = self._clock", "_ = self._clock"),
    Fault(
        "pool/link",
        "if self._paused:\n            self.resume()",
        "if False:\n            self.resume()",
    ),
    Fault(
        "pool/link",
        "            self.performed += 1\n            self.output.begin_job(jobs",
        "            self.output.begin_job(jobs",
    ),
    Fault("pool/link", "reusable = not (marks & workerboxes.NOT_REUSABLE or ", "reusable = not ("),
    Fault("pool/link", 'self._silenced = True\n            self.kill(f"wrote', 'self.kill(f"wrote'),
    Fault(
        "pool/link",
        "self.state is not WorkerState.DEAD:\n            self._put_back",
        "False:\n            self._put_back",
    ),
    Fault("pool/link", 'job_id != b"%d" % jobs[0].id', "False"),
)


def copy_project(folder: Path) -> None:
    """Copy what the tests of memory need."""
    for part in COPIED:
        source = ROOT / part
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "_build", ".hypothesis")
            shutil.copytree(source, folder / part, ignore=ignored)
        else:
            shutil.copy(source, folder / part)


@contextmanager
def fault_in(fault: Fault, folder: Path) -> Iterator[None]:
    """Have the fault in the copy, and the right text again at the end, whatever happens."""
    path = folder / fault.path
    right = path.read_text()
    path.write_text(fault.put_into(right))
    try:
        yield
    finally:
        path.write_text(right)


def run_tests(folder: Path, tests: tuple[str, ...]) -> str:
    """Run these tests of the copy up to the first that fails: "pass", "fail" or "hang"."""
    options = ["-q", "-x", "-n0", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    running = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = running.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return "hang"
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
    if running.returncode not in (0, 1):
        raise SystemExit(f"pytest ended with status {running.returncode}:\n{said[-2000:]}")
    return "fail" if running.returncode else "pass"


def main(arguments: list[str]) -> int:
    """Try the faults that are asked for, and the right code first."""
    for fault in FAULTS:
        fault.put_into((ROOT / fault.path).read_text())
    if arguments == ["--list"]:
        print(f"{len(FAULTS)} faults can be put in")
        return 0
    chosen = [
        fault
        for fault in FAULTS
        if not arguments or any(word in fault.module for word in arguments)
    ]
    uncaught = 0
    with tempfile.TemporaryDirectory(prefix="dangad-mutations-") as name:
        folder = Path(name)
        copy_project(folder)
        if run_tests(folder, (SCHEDULER, POOL)) != "pass":
            raise SystemExit("the tests fail on the right code")
        for fault in chosen:
            began = time.monotonic()
            with fault_in(fault, folder):
                outcome = run_tests(folder, fault.tests)
            uncaught += outcome == "pass"
            word = {"pass": "NOT CAUGHT", "fail": "caught", "hang": "caught: hangs"}[outcome]
            took = time.monotonic() - began
            shown = " ".join(fault.wrong.split()) or "a line is missing"
            print(f"{word:13} {took:4.0f} s  {fault.module}: {shown}", flush=True)
    print(f"{len(chosen) - uncaught} of {len(chosen)} faults are caught")
    return 1 if uncaught else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
