"""Processes that a benchmark starts, and the conversation with those that are drivers.

Used by the contenders. Whatever is started on a :class:`Stage` is ended with it, and by the kernel
if the benchmark itself is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Self

ROOT = Path(__file__).parent.parent.parent
"""The source checkout."""

PATIENCE = 60.0
"""Seconds after which what should have happened is taken for hung."""

ENDING = 10.0
"""Seconds that a process has for ending by itself."""

TAIL = 2000
"""Characters of a process's output that are shown when it fails."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Broken(Exception):
    """A contender did not start, gave a wrong answer, or none in time; the text says which."""


class TooSlow(Broken):
    """A contender gave no answer in time."""


class Stage:
    """An empty folder and the processes of one contender.

    All mutable state: the processes, in the order of their start.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bench-"))
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def path(self, name: str) -> str:
        """The path of a file in the folder."""
        return str(self.folder / name)

    def start(self, *command: str, name: str = "server", **environment: str) -> int:
        """Start a process in the folder, and return its id.

        :param name: under which its output is kept, for when it fails.
        :param environment: variables besides those of this process.
        """
        return self._start(command, name, environment).pid

    def start_python(self, *arguments: str, name: str = "server", **environment: str) -> int:
        """Start this very Python, which can import what is in the checkout."""
        return self.start(sys.executable, *arguments, name=name, **environment)

    def drive(self, *command: str) -> Driver:
        """Start a driver, and wait until it is ready.

        :raises Broken: it does not start.
        """
        process = self._start(command, "driver", {}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        driver = Driver(process, lambda: self.output("driver"))
        driver.wait_until_ready()
        return driver

    def drive_python(self, module: str, *arguments: str) -> Driver:
        """Start a driver that is a module of :mod:`tests.benchmarks.drivers`."""
        return self.drive(sys.executable, "-m", f"tests.benchmarks.drivers.{module}", *arguments)

    def output(self, name: str) -> str:
        """The end of what a process has printed."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / f"{name}.log").read_text(errors="replace")[-TAIL:]
        return ""

    def wait_for(self, condition: Callable[[], bool], what: str, name: str = "server") -> None:
        """Wait until something is so, while the processes live.

        :raises Broken: it did not become so, or a process has ended.
        """
        deadline = time.monotonic() + PATIENCE
        while not condition():
            ended = any(process.poll() is not None for process in self._processes)
            if ended or time.monotonic() > deadline:
                raise Broken(f"{what} is not there: {self.output(name)}")
            time.sleep(0.01)

    def close(self) -> None:
        """End the processes, the latest first, and remove the folder."""
        try:
            while self._processes:
                _end(self._processes[-1])
                self._processes.pop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _start(
        self,
        command: tuple[str, ...],
        name: str,
        environment: dict[str, str],
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
    ) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": path, **environment},
                stdin=stdin,
                stdout=log if stdout is None else stdout,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the benchmark, which ends the others
                preexec_fn=_die_with_parent,
            )
        self._processes.append(process)
        return process


class Driver:
    """A process that does jobs when it is asked to: lines of JSON go in, lines of JSON come out.

    All mutable state: what was read of its output and is not a whole line yet.
    """

    def __init__(self, process: subprocess.Popen[bytes], output: Callable[[], str]) -> None:
        """Talk to a process.

        :param output: the end of what it has printed on stderr.
        """
        assert process.stdin is not None
        assert process.stdout is not None
        self.pid = process.pid
        self._stdin = process.stdin
        self._stdout = process.stdout.fileno()
        self._output = output
        self._buffer = b""

    def wait_until_ready(self) -> None:
        """Wait for its first line.

        :raises Broken: none comes.
        """
        self._line(PATIENCE)

    def ask(self, run: str, *, patience: float = PATIENCE, **options: object) -> Any:
        """Have it do something, and return what it answers.

        :param run: the name of the driver's function.
        :param patience: seconds after which it is taken for hung.
        :param options: the function's arguments.
        :raises Broken: a job's answer was wrong, or there was none in time.
        """
        request = {"run": run, **options}
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._stdin.write(json.dumps(request).encode() + b"\n")
            self._stdin.flush()
        return json.loads(self._line(patience))

    def _line(self, patience: float) -> bytes:
        deadline = time.monotonic() + patience
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TooSlow(f"no answer within {patience:.0f} seconds: {self._output()}")
                data = os.read(self._stdout, 2**20)
                if not data:
                    raise Broken(f"the driver has ended: {self._output()}")
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody listens on that port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process: by asking, by force, and then what is left of its group."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(ENDING)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
