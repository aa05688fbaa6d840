"""The template: a process that has imported the modules that workers need, and forks workers.

:mod:`dangad.pool.template` starts it like a worker, through the bootstrap of
:mod:`dangad.pool.launch`, and orders the forks. An order comes over a socket, with the descriptors
for the new worker. The fork goes on as :mod:`dangad.worker.child` does in an interpreter of its
own. It is the server's child and not the template's: see :mod:`dangad.worker.siblings`.

An order is a packet: its number, in decimal digits. The fork reports itself by a packet with this
number and its process id. The template sends the same report, because the fork may be dead before
it can. If the fork has failed, the id is 0, and the reason follows.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

from dangad.host.descent import count_threads
from dangad.host.processcontrol import keep_out_debuggers
from dangad.wire.commands import TEMPLATE_NEVER, TEMPLATE_ORDERS, TEMPLATE_READY
from dangad.worker.siblings import SiblingForks

if TYPE_CHECKING:
    from collections.abc import Callable

GIVEN = 5
"""How many descriptors come with an order: the new worker's descriptors 0, 1, 2, and so on."""
_ORDER_SIZE = 100
_REPORT_SIZE = 1500
_NAMES = b"dangad-template\0", b"dangad-worker\0\0\0"
"""The last argument of the template's program, and of a worker's."""


def wait_for_orders(
    held_back: tuple[signal.Signals, ...],
    prepare: Callable[[], tuple[bytes, str] | None] | None = None,
) -> None:
    """Fork a worker for each order. Returns in each of the forks, and never in the template.

    :param held_back: the signals to which the template does not react.
    :param prepare: called before the first order. If it returns a report and a reason, the template
        sends them and exits.
    """
    orders = socket.socket(fileno=TEMPLATE_ORDERS)
    try:
        siblings = SiblingForks()
    except OSError as error:
        orders.send(b"%b %b" % (TEMPLATE_NEVER, str(error).encode()))
        os._exit(1)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, held_back)
    problem = prepare() if prepare is not None else None
    if problem is not None:
        report, reason = problem
        orders.send(b"%b %b" % (report, reason.encode(errors="backslashreplace")[:_REPORT_SIZE]))
        os._exit(1)
    _check_threads(orders)
    keep_out_debuggers(out=True)  # otherwise jobs could get at the socket
    gc.collect()
    gc.freeze()  # a collection in a fork would write to, and so copy, all pages with objects
    orders.send(TEMPLATE_READY)
    while True:
        order, given, _, _ = socket.recv_fds(orders, _ORDER_SIZE, GIVEN)
        if not order:
            os._exit(0)  # the server is gone, or does not need this template any more
        _check_threads(orders)
        if _fork(siblings, orders, order, given):
            break
    keep_out_debuggers(out=False)
    orders.close()
    _take_over(given)
    # As Python does from 3.13 on. Otherwise a job that changes its priority changes the template's.
    threading.main_thread()._set_native_id()  # type: ignore[attr-defined] # noqa: SLF001
    _show_as_worker()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _check_threads(orders: socket.socket) -> None:
    """Exit if this process has a second thread: in a fork, the locks of this thread stay locked."""
    if count_threads() > 1:
        reason = b"something starts threads in each Python process, a .pth file or sitecustomize?"
        orders.send(b"%b %b" % (TEMPLATE_NEVER, reason))
        os._exit(1)


def _fork(siblings: SiblingForks, orders: socket.socket, order: bytes, given: list[int]) -> bool:
    """Fork once, and report it; whether this is the fork."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid, reason = 0, "no descriptor is left"
    if len(given) == GIVEN:
        try:
            pid = siblings.fork()
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            if pid == 0:
                orders.send(b"%b %d" % (order, os.getpid()))
                return True
    for fd in given:
        os.close(fd)
    orders.send(b"%b %d" % (order, pid) if pid else b"%b 0 %b" % (order, reason.encode()))
    return False


def _take_over(given: list[int]) -> None:
    """Move the descriptors that came with the order to the numbers 0, 1, 2, and so on."""
    above = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, GIVEN) for fd in given]
    for number, fd in enumerate(above):
        os.dup2(fd, number)
    for fd in {*above, *(fd for fd in given if fd >= GIVEN)}:
        with contextlib.suppress(OSError):
            os.close(fd)


def _show_as_worker() -> None:
    """Make the command line end with the name of a worker, as ps(1) shows it.

    A fork has the template's command line: it has not begun another program. See
    proc_pid_cmdline(5).
    """
    template, worker = _NAMES
    with contextlib.suppress(OSError, ValueError), open("/proc/self/stat") as file:
        end = int(file.read().rpartition(")")[2].split()[46])  # arg_end
        if end and ctypes.string_at(end - len(template), len(template)) == template:
            ctypes.memmove(end - len(worker), worker, len(worker))
