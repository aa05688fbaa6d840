"""How one template follows another: the one that is to take over, and those that leave.

Kept by :mod:`dangad.pool.template`. A reload asks for a template with the present code, while the
template of now still forks. If the code changes again meanwhile, another takes its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.scheduler.clockcalls import cancel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from dangad.pool.templateprocess import TemplateProcess


class Renewal:
    """The next template, and the caller that waits for it."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        #: The next template; None while no reload is under way.
        self.process: TemplateProcess | None = None
        #: The template before the one of now, until a worker of the latter has booted.
        self.before: TemplateProcess | None = None
        #: The call that ends the time in which it must be ready.
        self._alarm: IDelayedCall | None = None
        #: The function to call when it is ready, or cannot be.
        self._done: Callable[[str | None], object] | None = None

    def begin(self, done: Callable[[str | None], object]) -> None:
        """Have `done` called in the end; an earlier one is not called any more."""
        self._done = done

    def expect(
        self, process: TemplateProcess, seconds: float, late: Callable[[str], object]
    ) -> None:
        """Expect `process` to be ready within so many seconds.

        :param late: called with the reason if it is not.
        """
        self.process = process
        why = f"the new template was not ready within {seconds:g} s"
        self._alarm = self._clock.callLater(seconds, late, why)

    def take(self) -> TemplateProcess | None:
        """The next template, which is expected no longer."""
        cancel(self._alarm)
        process, self.process = self.process, None
        return process

    def end(self, why: str | None = None) -> None:
        """Tell the caller: the present code can be forked, or the reason why it cannot be."""
        done, self._done = self._done, None
        if done is not None:
            done(why)


class Leaving:
    """The templates that were told to end, until they are gone."""

    def __init__(self, clock: IReactorTime, patience: float) -> None:
        """:param patience: seconds for a template to end, and for its forks to report."""
        self._clock = clock
        self._patience = patience
        #: The call that kills each template; None for one that does not die.
        self._processes: dict[TemplateProcess, IDelayedCall | None] = {}

    def __iter__(self) -> Iterator[TemplateProcess]:
        return iter(self._processes)

    def dismiss(self, process: TemplateProcess) -> None:
        """Have `process` end, which gets no more orders, once it has done what it was told."""
        process.finish()
        cancel(self._processes.get(process))
        self._processes[process] = self._clock.callLater(self._patience, self._cut_off, process)

    def abandon(self, process: TemplateProcess) -> None:
        """Note that nothing more comes of `process`, although it is not dead."""
        self._processes[process] = None

    def settle(self, process: TemplateProcess) -> None:
        """Forget `process` if it is dead, and all its forks have reported."""
        if process.dead and process.closed:
            cancel(self._processes.pop(process, None))

    def _cut_off(self, process: TemplateProcess) -> None:
        """End the wait for `process` to die, or for its frozen forks to report."""
        if process.dead:
            process.close()
        else:
            again = self._clock.callLater(self._patience, self._cut_off, process)
            self._processes[process] = again
            process.kill()
