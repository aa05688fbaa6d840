"""Everything that can be measured: how it is started, and how it is installed.

Used by the questions; each function gives one :class:`~tests.benchmarks.harness.Contender`. All
have two workers, and whoever talks to them is a process of its own, except where the pool is part
of its caller.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tests.benchmarks import boxes
from tests.benchmarks.drivers import payload
from tests.benchmarks.harness import DANGAD, Contender, Running
from tests.benchmarks.processes import ROOT, Driver, Stage, free_port, listens

if TYPE_CHECKING:
    from collections.abc import Callable

WORKERS = 2

SOCKET = "sock"
"""The name of the UNIX socket on which a contender's server listens, in its folder."""

TWISTD = ("-c", "from twisted.scripts.twistd import run; run()")

PERL_GEARMAN = "/usr/bin/gearmand"
"""Gearman::Server, of Debian's gearman-server."""

C_GEARMAN = "/usr/sbin/gearmand"
"""Of Debian's gearman-job-server."""


def start_dangad(
    stage: Stage, *options: str, workers: int = WORKERS, reactor: str | None = None
) -> int:
    """Start ``twistd dangad`` on the stage's socket: its id, when its workers are ready."""
    pid = start_without_waiting(stage, *options, workers=workers, reactor=reactor)
    stage.wait_for(lambda: stage.output("server").count(" is ready") >= workers, "dangad")
    return pid


def start_without_waiting(
    stage: Stage, *options: str, workers: int = WORKERS, reactor: str | None = None
) -> int:
    """Start ``twistd dangad`` on the stage's socket, and return its id at once."""
    count = str(workers)
    return stage.start_python(
        *TWISTD,
        *(() if reactor is None else ("--reactor", reactor)),
        *("--nodaemon", "--pidfile=", "dangad"),
        *("--listen", f"unix:{stage.path(SOCKET)}:mode=600"),
        *("--jobs", "dangad.examples", "--jobs", "tests.benchmarks.jobs"),
        *("--min-workers", count, "--max-workers", count, *options),
    )


def drive_socket(stage: Stage) -> Driver:
    """The lean client of whatever listens on the stage's socket."""
    wait_for_socket(stage)
    return stage.drive_python("raw", stage.path(SOCKET))


def wait_for_socket(stage: Stage) -> None:
    """Wait until somebody listens on the stage's socket."""
    stage.wait_for(lambda: _accepts(stage.path(SOCKET)), "the server")


def dangad(
    *options: str, name: str = DANGAD, missing: str | None = None, reactor: str | None = None
) -> Contender:
    """Dangad as it is used: its options are those of ``twistd dangad``.

    :param reactor: its reactor, if not Twisted's choice.
    """

    def boot(stage: Stage) -> Running:
        pid = start_dangad(stage, *options, reactor=reactor)
        return Running(drive_socket(stage), pid, stage)

    return Contender(name, boot, lambda: missing)


def blocking_relay() -> Contender:
    """A blocking client, parent and worker: nothing with three processes can be quicker."""

    def boot(stage: Stage) -> Running:
        pid = stage.start_python(
            "-m", "tests.benchmarks.servers.blocking_relay", stage.path(SOCKET)
        )
        return Running(drive_socket(stage), pid, stage, concurrent=False)

    return Contender("blocking relay", boot)


def bare_relay(*, cut: bool = True) -> Contender:
    """Twisted moving the bytes of the same boxes between the same sockets and pipes.

    :param cut: whether to give each of two workers one small request at a time; else one worker is
        given the bytes as they come.
    """
    size = len(boxes.request(0, b"Echo", payload(0, 32), {})) if cut else 0
    workers = WORKERS if cut else 1

    def boot(stage: Stage) -> Running:
        module = "tests.benchmarks.servers.bare_relay"
        pid = stage.start_python("-m", module, stage.path(SOCKET), str(workers), str(size))
        return Running(drive_socket(stage), pid, stage)

    return Contender("bare Twisted relay", boot)


def ampoule_alone() -> Contender:
    """Ampoule in the client's process."""

    def boot(stage: Stage) -> Running:
        driver = stage.drive_python("ampoule_alone")
        return Running(driver, driver.pid, stage, in_client=True)

    return Contender("ampoule", boot)


def process_pool() -> Contender:
    """The standard library's pool, in the client's process."""
    return _pool_in_client("ProcessPoolExecutor", "process")


def loky() -> Contender:
    """Joblib's pool, in the client's process."""
    return _pool_in_client("loky", "loky", lambda: _python_package("loky"))


def celery() -> Contender:
    """Celery with Redis on a UNIX socket, its workers with the pool that it has by default."""

    def missing() -> str | None:
        if shutil.which("redis-server") is None:
            return "apt-get install redis-server"
        return _python_package("celery") or _python_package("redis")

    def boot(stage: Stage) -> Running:
        redis_socket = stage.path("redis.sock")
        redis = f"redis+socket://{redis_socket}"
        stage.start(
            *("redis-server", "--port", "0", "--unixsocket", redis_socket),
            *("--save", "", "--appendonly", "no"),
            name="redis",
        )
        stage.wait_for(lambda: _accepts(redis_socket), "Redis", "redis")
        pid = stage.start_python(
            *("-m", "celery", "--app", "tests.benchmarks.servers.celery_app", "worker"),
            *("--concurrency", str(WORKERS), "--loglevel", "INFO"),
            BENCH_REDIS=redis,
        )
        stage.wait_for(lambda: " ready." in stage.output("server"), "Celery")
        return Running(stage.drive_python("futures", "celery", redis), pid, stage)

    return Contender("Celery + Redis", boot, missing)


def dask() -> Contender:
    """Dask distributed: a scheduler, two worker processes, and a client."""

    def boot(stage: Stage) -> Running:
        port = free_port()
        address = f"tcp://127.0.0.1:{port}"
        pid = stage.start_python(
            *("-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"),
            *("--port", str(port), "--no-dashboard"),
        )
        stage.wait_for(lambda: listens(port), "the scheduler")
        stage.start_python(
            *("-m", "distributed.cli.dask_worker", address, "--host", "127.0.0.1"),
            *("--nworkers", str(WORKERS), "--nthreads", "1", "--no-dashboard"),
            name="workers",
        )
        return Running(stage.drive_python("futures", "dask", address), pid, stage)

    return Contender("Dask distributed", boot, lambda: _python_package("distributed"))


def perl_gearman() -> Contender:
    """Perl's Gearman::Server on Danga::Socket, which dangad is named after."""
    return _gearman("Gearman::Server (Perl)", PERL_GEARMAN, "gearman-server")


def c_gearman() -> Contender:
    """Gearmand in C, with the same client and workers as Perl's."""
    return _gearman("gearmand (C)", C_GEARMAN, "gearman-job-server")


def _gearman(name: str, program: str, package: str) -> Contender:
    def missing() -> str | None:
        packages = [] if os.access(program, os.X_OK) else [package]
        if not _has_perl_module("Gearman::Client"):
            packages.append("libgearman-client-perl")
        return f"apt-get install {' '.join(packages)}" if packages else None

    def boot(stage: Stage) -> Running:
        port = free_port()
        address = f"127.0.0.1:{port}"
        logless = () if program == PERL_GEARMAN else ("--log-file", "none")
        pid = stage.start(program, "--listen", "127.0.0.1", "--port", str(port), *logless)
        stage.wait_for(lambda: listens(port), name)
        for _ in range(WORKERS):
            stage.start(
                "perl", str(ROOT / "tests/benchmarks/perl/worker.pl"), address, name="workers"
            )
        driver = stage.drive("perl", str(ROOT / "tests/benchmarks/perl/client.pl"), address)
        return Running(driver, pid, stage)

    return Contender(name, boot, missing)


def _pool_in_client(
    name: str, pool: str, missing: Callable[[], str | None] = lambda: None
) -> Contender:
    def boot(stage: Stage) -> Running:
        driver = stage.drive_python("futures", pool)
        return Running(driver, driver.pid, stage, in_client=True)

    return Contender(name, boot, missing)


def _python_package(name: str) -> str | None:
    """How to install a package that cannot be imported."""
    if find_spec(name) is not None:
        return None
    return "make .venv/.bench, or pip install --group bench"


def _has_perl_module(name: str) -> bool:
    if shutil.which("perl") is None:
        return False
    tried = subprocess.run(["perl", f"-M{name}", "-e1"], capture_output=True, check=False)
    return tried.returncode == 0


def _accepts(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0
