"""The server that :mod:`tests.historyload` loads: a process of its own, and what it holds.

It changes its workers all the time: after some jobs or seconds each is replaced, one is kept
idle beyond those that are busy, and operators may connect. What it holds when it has nothing
to do is its footprint, which may not grow. :mod:`tests.soak_latency` has it in peace.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dangad.host.memory import memory_of
from tests.starting import START

ROOT = Path(__file__).parent.parent
MIN_WORKERS = 2
RECYCLE_JOBS = 50
RECYCLE_AGE = 10.0
"""Seconds: more than a server needs to settle, so that it is at rest for a while then."""
RESTLESS = (
    *("--spare-workers", "1", "--max-queued", "150"),
    *("--recycle-jobs", str(RECYCLE_JOBS), "--recycle-age", str(RECYCLE_AGE)),
)
"""The options of a server that changes its workers all the time."""


@dataclass(frozen=True)
class Footprint:
    """What the server holds.

    Its memory may differ by a little when it does the same again; the rest may not.
    """

    descriptors: dict[str, int]
    """How many it has open, by kind."""
    threads: int
    children: dict[str, int]
    """How many processes it has: workers, guardians, templates, zombies, others."""
    objects: dict[str, int]
    """How many instances of dangad's classes."""
    memory: int
    """How many bytes in RAM."""

    def grown_since(self, before: "Footprint", room: int) -> str:
        """What it has that it had not before, in words; `room` is what its memory may grow by."""
        kinds = ("descriptors", "children", "objects")
        found = [
            f"{name}: {count}, before {getattr(before, kind).get(name, 0)}"
            for kind in kinds
            for name, count in getattr(self, kind).items()
            if count > getattr(before, kind).get(name, 0)
        ]
        if self.threads > before.threads:
            found.append(f"threads: {self.threads}, before {before.threads}")
        if self.memory > before.memory + room:
            found.append(f"memory: {self.memory}, before {before.memory}")
        return "; ".join(found)

    def __str__(self) -> str:
        """The numbers in one line."""
        kinds = {**self.descriptors, "threads": self.threads, **self.children}
        return ", ".join(
            [
                *(f"{count} {kind}" for kind, count in kinds.items()),
                f"{sum(self.objects.values())} objects",
                f"{self.memory / 2**20:.1f} MiB",
            ]
        )


class LoadedServer:
    """``twistd dangad`` in a folder, with the jobs of tests.historyjobs and tests.hostilejobs."""

    def __init__(
        self,
        folder: str,
        max_workers: int,
        options: Sequence[str] = RESTLESS,
        start: str = START,
    ) -> None:
        """Start it; it is there when it listens at `socket`, and at `port` of 127.0.0.1."""
        self.socket = f"{folder}/socket"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.control = f"{folder}/control"
        self.log = Path(folder, "log")
        self._folder = folder
        self.environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        self._census = Path(folder, "census")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.countedserver", str(self._census)),
                    *("--nodaemon", "--pidfile=", "dangad"),
                    *("--jobs", "tests.historyjobs", "--jobs", "tests.hostilejobs"),
                    *("--listen", f"tcp:{self.port}:interface=127.0.0.1"),
                    *("--listen", f"unix:{self.socket}", "--control", f"unix:{self.control}"),
                    *("--min-workers", str(MIN_WORKERS), "--max-workers", str(max_workers)),
                    *("--worker-env", f"DANGAD_HISTORY={folder}", *options),
                    *("--start", start),
                ],
                cwd=folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self.process.pid

    def kill(self) -> None:
        """End it, if it has not ended, and reap it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def workers(self) -> list[int]:
        """The pids of its workers, of which none is a zombie."""
        return [pid for pid in self._children() if _kind_of(pid) == "workers"]

    def booted(self, workers: Sequence[int]) -> list[int]:
        """Those of the workers that have begun to import their jobs."""
        pids = {name.partition("-")[0] for name in os.listdir(self._folder)}
        return [pid for pid in workers if str(pid) in pids]

    def has_booted(self) -> bool:
        """Whether as many workers as live always have begun to import their jobs."""
        return len(self.booted(self.workers())) == MIN_WORKERS

    def begin_census(self) -> None:
        """Have it count its objects."""
        self._census.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR2)

    def has_counted(self) -> bool:
        """Whether the census is done."""
        return self._census.exists()

    def footprint(self) -> Footprint:
        """What it holds now; of its objects, what it held at the last census."""
        descriptors: Counter[str] = Counter()
        folder = f"/proc/{self.pid}/fd"
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                kind, colon, _ = os.readlink(f"{folder}/{name}").partition(":")
                descriptors[f"{kind}s" if colon else "files"] += 1
        return Footprint(
            dict(sorted(descriptors.items())),
            len(os.listdir(f"/proc/{self.pid}/task")),
            dict(sorted(Counter(map(_kind_of, self._children())).items())),
            json.loads(self._census.read_text()) if self.has_counted() else {},
            memory_of(self.pid).resident,
        )

    def _children(self) -> list[int]:
        with open(f"/proc/{self.pid}/task/{self.pid}/children") as file:
            return list(map(int, file.read().split()))


def _kind_of(pid: int) -> str:
    """What a child of the server is."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return "zombies"
    for kind in ("worker", "guardian", "template"):
        if command.endswith(f"\0dangad-{kind}".encode()):
            return f"{kind}s"
    return "others" if command else "zombies"
