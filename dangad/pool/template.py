"""The parent's end of the template, which forks the workers: :mod:`dangad.worker.template`.

Kept by :mod:`dangad.pool.processes`. An order for a worker goes over a socket, with the worker's
ends of its pipes. The fork exists a few milliseconds later. If the template dies, a new one takes
its place and gets the open orders: nobody else notices. A template that does not fork in time is
killed. If templates fail again and again, workers are started without one.

A reload starts another template, which imports the new code (:mod:`dangad.pool.succession`). The
old template forks until the new one can. A template may preload the job modules. If they leave
something that forks cannot share, templates do not preload them until the next reload.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dangad.pool.forkorders import ForkOrders
from dangad.pool.succession import Leaving, Renewal
from dangad.pool.templateprocess import TemplateProcess
from dangad.scheduler.clockcalls import cancel
from dangad.wire.commands import (
    TEMPLATE_BROKEN,
    TEMPLATE_NEVER,
    TEMPLATE_READY,
    TEMPLATE_UNSHAREABLE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from dangad.pool.forkedprocess import ForkedProcess
    from dangad.pool.guardian import Guardian
    from dangad.pool.templateprocess import Start
    from dangad.pool.witness import Witness

log = Logger()

READY_TIME = 30.0
"""Seconds in which a template that imports no job modules must be ready."""
FORK_TIME = 5.0
"""Seconds in which a ready template must fork when ordered, and be gone when dismissed."""
MOST_FAILURES = 3
"""Templates that fork nothing, in a row, after which no further template is started."""
RESTART_DELAY = 1.0
"""Seconds before a dead template without open orders is replaced."""


class Template:
    """The present template, and its open orders."""

    def __init__(
        self,
        clock: IReactorTime,
        reactor: Any,
        guardian: Guardian,
        start: Start,
        witness: Witness,
        *,
        preload_time: float | None = None,
    ) -> None:
        """Begin without a template: the first order starts one.

        :param clock: the source of time.
        :param reactor: reads what the templates report.
        :param guardian: kills the template if the parent dies.
        :param start: starts a template's process.
        :param witness: knows which reports are true.
        :param preload_time: seconds in which a template must have imported the job modules; None
            if templates do not import them.
        """
        self._clock = clock
        self._reactor = reactor
        self._guardian = guardian
        self._start = start
        self._witness = witness
        self._preload_time = preload_time
        #: Whether the next template imports the job modules.
        self._preloads = preload_time is not None
        #: Why workers are started without a template; None while they are forked.
        self.given_up: str | None = None
        #: The template that gets the orders; None while there is none.
        self._process: TemplateProcess | None = None
        #: The template that is to take the place of the present one.
        self._next = Renewal(clock)
        #: The open orders.
        self._orders = ForkOrders()
        #: How many templates in a row have forked nothing.
        self._failures = 0
        #: The call that kills the present template if it does nothing before.
        self._alarm: IDelayedCall | None = None
        #: The call that starts the next template.
        self._restart: IDelayedCall | None = None
        #: The templates that were told to end.
        self._leaving = Leaving(clock, FORK_TIME)
        #: Fires when all templates are gone; None before `stop`.
        self._stopped: Deferred[None] | None = None

    @property
    def pid(self) -> int | None:
        """The id of the template's process; None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def pids(self) -> set[int]:
        """The ids of all templates that are not gone."""
        return {process.pid for process in self._processes() if not process.dead}

    @property
    def is_forking(self) -> bool:
        """Whether there may be forks that were not reported yet."""
        return bool(self._orders)

    # Told by `ForkedProcess`.

    def fork(self, process: ForkedProcess, descriptors: Sequence[int]) -> None:
        """See :meth:`dangad.pool.forkedprocess.Forks.fork`.

        :raises OSError: no template can be started, or the order cannot be sent.
        """
        if self._process is None:
            self._begin()
        elif self._process.ready and not self._orders.are_open:
            self._expect(FORK_TIME)
        assert self._process is not None
        self._orders.send(self._process, process, descriptors)

    def forget(self, process: ForkedProcess) -> None:
        """See :meth:`dangad.pool.forkedprocess.Forks.forget`."""
        self._orders.forget(process)

    # Told by the pool.

    def renew(self, done: Callable[[str | None], object]) -> None:
        """See :meth:`dangad.scheduler.interfaces.ISpawner.renew`."""
        if self.given_up is not None:
            self.given_up, self._failures = None, 0  # maybe a template works now
        self._drop_next()  # if there is one, the code has changed again
        self._preloads = self._preload_time is not None
        self._next.begin(done)
        if self._process is None or self._stopped is not None:
            self._next.end()  # the template that is started later has the present code
        else:
            self._prepare()

    def end_renewal(self, proven: bool) -> None:
        """See :meth:`dangad.scheduler.interfaces.ISpawner.end_renewal`."""
        before, self._next.before = self._next.before, None
        if before is not None and proven:
            self._leaving.dismiss(before)
        elif before is not None:
            unproven, self._process = self._process, before
            if unproven is not None:
                self._leaving.end(unproven)
            self._expect_forks()

    def stop(self) -> Deferred[None]:
        """End the templates; fires when they are gone."""
        self._stopped = Deferred()
        cancel(self._restart)
        self._orders.fail("the server is stopping")
        self._expect(None)
        for process in self._processes():
            self._leaving.end(process)
        self._process = self._next.before = None
        self._next.take()
        self._see_if_stopped()
        return self._stopped

    # A template's life.

    def _begin(self) -> None:
        """Start the present template.

        :raises OSError: there is no room for another process.
        """
        cancel(self._restart)
        self._process = self._started()
        self._expect(self._time_to_be_ready)

    def _prepare(self) -> None:
        """Start the next template."""
        try:
            process = self._started()
        except OSError as error:
            self._next.end(f"no template can be started: {error.strerror or error}")
        else:
            self._next.expect(process, self._time_to_be_ready, self._next_fails)

    @property
    def _time_to_be_ready(self) -> float:
        """Seconds in which a template that is started now must be ready."""
        return self._preload_time if self._preloads and self._preload_time else READY_TIME

    def _started(self) -> TemplateProcess:
        """A new template.

        :raises OSError: there is no room for another process.
        """
        process = TemplateProcess(self._reactor, self._reported, self._gone, self._reaped)
        try:
            self._start(process, process.theirs.fileno(), preloads=self._preloads)
        except BaseException:
            process.close()
            raise
        finally:
            process.theirs.close()
        self._guardian.watch(process.pid)
        return process

    def _drop_next(self) -> None:
        """Give up the next template, if there is one."""
        if (process := self._next.take()) is not None:
            self._leaving.end(process)

    def _next_fails(self, why: str) -> None:
        """Give up the next template, which cannot get ready: the present one goes on."""
        self._drop_next()
        self._next.end(why)

    def _expect(self, seconds: float | None) -> None:
        """Kill the present template unless it does something within this time; None for ever."""
        cancel(self._alarm)
        self._alarm = None
        if seconds is not None:
            self._alarm = self._clock.callLater(seconds, self._is_late, seconds)

    def _expect_forks(self) -> None:
        """Expect of the present template what it has been ordered, if it is ready."""
        process = self._process
        is_due = process is not None and process.ready and self._orders.has(process)
        self._expect(FORK_TIME if is_due else None)

    def _is_late(self, seconds: float) -> None:
        self._alarm = None
        process = self._process
        if process is None:
            return
        if process.dead:  # a frozen fork has not reported itself
            self._orders.fail(f"was not ready within {seconds:g} s of its fork", process)
            process.close()
            return
        log.warn(
            "the template {pid} has done nothing for {seconds:g} s, and is killed",
            pid=process.pid,
            seconds=seconds,
        )
        self._expect(FORK_TIME)
        if process.late:
            process.close()
        process.late = True
        process.kill()

    def _reported(self, process: TemplateProcess, report: bytes, sender: int) -> None:
        """Take a report: that the template is ready, or has forked, or failed."""
        if not self._witness.is_genuine(process.pid, report, sender):
            process.strange += 1
            if process.strange == 1:
                text = "process {sender} writes to the socket of template {pid}, and is ignored"
                log.warn(text, sender=sender, pid=process.pid)
            return
        number, _, outcome = report.partition(b" ")
        if number == TEMPLATE_NEVER:
            self._give_up(outcome.decode(errors="replace"))
        elif number in (TEMPLATE_BROKEN, TEMPLATE_UNSHAREABLE):
            self._cannot_preload(process, number, outcome.decode(errors="replace"))
        elif number == TEMPLATE_READY:
            process.ready = True
            if self._preloads:
                log.info("the template {pid} has imported the job modules", pid=process.pid)
            if process is self._next.process:
                self._take_over()
        else:
            pid, _, reason = outcome.partition(b" ")
            self._forked(int(number), int(pid), reason.decode(errors="replace"))
        if process is self._process:
            self._expect_forks()

    def _take_over(self) -> None:
        """Make the next template, which can fork now, the present one."""
        if self._next.before is None:
            self._next.before = self._process
        elif self._process is not None:
            self._leaving.dismiss(self._process)
        cancel(self._restart)
        self._process = self._next.take()
        self._next.end()

    def _cannot_preload(self, process: TemplateProcess, report: bytes, why: str) -> None:
        """Do without a template that has imported the job modules in vain, and exits."""
        is_current, is_next = process is self._process, process is self._next.process
        if is_current:
            self._leaving.dismiss(process)
            self._expect(None)
            self._process = None
        if report == TEMPLATE_BROKEN:
            if is_next:
                self._next_fails(why)
            self._orders.fail(why, process)
        elif is_current or is_next:
            self._preloads = False
            text = "each worker imports the job modules, which cannot be preloaded: {why}"
            log.warn(text, why=why, pid=process.pid)
            if is_next:
                self._drop_next()
                self._prepare()
            self._order_again(process)

    def _forked(self, number: int, pid: int, reason: str) -> None:
        if pid and not self._witness.is_fork(pid):
            return  # reported twice, by the template and by the fork, or not true
        order = self._orders.forked(number, pid)
        if order is None:
            return
        process, template = order.process, order.template
        if pid:
            self._failures = template.vain = 0
            process.forked(pid)
            return
        process.not_forked(f"could not be forked: {reason}")
        template.vain += 1
        if template is self._process and template.vain >= MOST_FAILURES:
            self._leaving.dismiss(template)
            self._process = None
            self._lost(template, f"could not fork {MOST_FAILURES} times in a row")

    def _gone(self, process: TemplateProcess, how: str) -> None:
        """The template is dead, and all its forks have reported themselves."""
        if not process.dead:
            self._leaving.abandon(process)
        self._leaving.settle(process)
        self._orders.gone(process)
        if process is self._process:
            self._expect(None)
            self._process = None
            self._lost(process, how)
        else:
            if process is self._next.before:
                self._next.before = None
            if process is self._next.process:
                self._next.take()
                self._next.end(f"the new template {how}")
            self._order_again(process)
        self._see_if_stopped()

    def _reaped(self, process: TemplateProcess) -> None:
        self._guardian.forget(process.pid)
        self._leaving.settle(process)
        self._see_if_stopped()

    def _lost(self, process: TemplateProcess, how: str) -> None:
        """The present template is gone: replace it, if this is possible."""
        if self._stopped is not None:
            return
        if self._orders.are_open or not process.ready or process.vain:
            self._failures += 1
        if self._failures >= MOST_FAILURES:
            self._give_up(f"{MOST_FAILURES} templates have forked nothing; the last {how}")
        if self.given_up is not None:
            return
        log.warn("the template {how}, and is replaced", how=how)
        if self._orders.are_open:
            self._order_again(process)
        else:
            self._restart = self._clock.callLater(RESTART_DELAY, self._begin_again)

    def _order_again(self, gone: TemplateProcess) -> None:
        """Give the open orders of a template that is gone to another one."""
        try:
            if self._process is None and self._orders.has(gone):
                self._begin()
            if self._process is not None:
                self._orders.send_again(gone, self._process)
        except OSError as error:
            self._orders.fail(f"could not be forked: {error.strerror or error}", gone)

    def _begin_again(self) -> None:
        with contextlib.suppress(OSError):  # the next order tries again
            self._begin()

    def _give_up(self, why: str) -> None:
        self.given_up = why
        log.warn("workers are started without a template from now on: {why}", why=why)
        self._drop_next()
        self._orders.fail(f"was not forked: {why}")
        self._next.end()  # workers without a template have the present code

    def _processes(self) -> list[TemplateProcess]:
        present = (self._process, self._next.process, self._next.before, *self._leaving)
        return [process for process in present if process is not None]

    def _see_if_stopped(self) -> None:
        if self._stopped is not None and not self._stopped.called and not self._processes():
            self._stopped.callback(None)
