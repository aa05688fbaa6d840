"""Makes a process that a job forks an ordinary one, without the special features of a worker.

Used by :mod:`dangad.worker.child` at its start. A worker leaves some signals to the parent, handles
others, and holds the pipe. A fork of the worker belongs to the job, and must end when
:meth:`multiprocessing.Process.terminate` says so.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import signal
import threading
from typing import TYPE_CHECKING

from dangad.wire.commands import STACK_SIGNAL, STOP_SIGNAL
from dangad.worker.offspring import end_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dangad.worker.pipe import WorkerPipe

LEFT_TO_PARENT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that a terminal or a service manager sends to all processes; a worker ignores them."""


def ordinary_handlers() -> Mapping[signal.Signals, object]:
    """Python's own handlers of the signals that a worker takes over later."""
    return {number: signal.getsignal(number) for number in (*LEFT_TO_PARENT, STOP_SIGNAL)}


def free_forks(pipe: WorkerPipe, ordinary: Mapping[signal.Signals, object], stacks: int) -> None:
    """From now on make each fork of this process an ordinary one, however it is made.

    A handler that a job or its module has set stays, as it would in any fork. A signal that comes
    too early waits until the fork is an ordinary process.

    :param ordinary: what `ordinary_handlers` returned.
    :param stacks: the descriptor on which stacks are shown.
    """
    own = {number: signal.getsignal(number) for number in ordinary}
    mask = threading.local()

    def hold_signals() -> None:
        mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, own)

    def release_signals() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask.before)

    def free() -> None:
        if own:  # otherwise this is a fork of a fork
            signal.set_wakeup_fd(-1)  # a reactor that runs in the worker shares it
            for number, handler in own.items():
                if signal.getsignal(number) == handler:
                    signal.signal(number, ordinary[number])  # type: ignore[arg-type]
            own.clear()
            atexit.unregister(end_all)
            faulthandler.unregister(STACK_SIGNAL)
            faulthandler.enable(2)
            pipe.close_in_fork()
            with contextlib.suppress(OSError):
                os.close(stacks)
        release_signals()

    os.register_at_fork(before=hold_signals, after_in_parent=release_signals, after_in_child=free)
