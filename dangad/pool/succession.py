"""How one template follows another: the next template, and the templates that leave.

Kept by :mod:`dangad.pool.template`. A reload asks for a template with the present code, while the
present template still forks. If the code changes again before the new template is ready, another
one takes its place.
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
        #: The template before the present one, until a worker of the present one has booted.
        self.before: TemplateProcess | None = None
        #: The call at the end of the time in which the next template must be ready.
        self._alarm: IDelayedCall | None = None
        #: The function to call when the next template is ready, or cannot get ready.
        self._done: Callable[[str | None], object] | None = None

    def begin(self, done: Callable[[str | None], object]) -> None:
        """Call `done` in the end, in place of an earlier function."""
        self._done = done

    def expect(
        self, process: TemplateProcess, seconds: float, late: Callable[[str], object]
    ) -> None:
        """Expect `process` to be ready within so many seconds.

        :param late: called with the reason if `process` is not ready in time.
        """
        self.process = process
        why = f"the new template was not ready within {seconds:g} s"
        self._alarm = self._clock.callLater(seconds, late, why)

    def take(self) -> TemplateProcess | None:
        """Return the next template, and expect none any more."""
        cancel(self._alarm)
        process, self.process = self.process, None
        return process

    def end(self, why: str | None = None) -> None:
        """Tell the caller that the present code can be forked, or the reason why it cannot."""
        done, self._done = self._done, None
        if done is not None:
            done(why)


class Leaving:
    """The templates that were told to end, until they are gone."""

    def __init__(self, clock: IReactorTime, patience: float) -> None:
        """:param patience: seconds for a template to end, and for its forks to report."""
        self._clock = clock
        self._patience = patience
        #: Each template with the call that kills it; None if a kill had no effect.
        self._processes: dict[TemplateProcess, IDelayedCall | None] = {}

    def __iter__(self) -> Iterator[TemplateProcess]:
        return iter(self._processes)

    def dismiss(self, process: TemplateProcess) -> None:
        """Send `process` no more orders: it ends when it has carried out the ones that it has."""
        process.finish()
        cancel(self._processes.get(process))
        self._processes[process] = self._clock.callLater(self._patience, self._cut_off, process)

    def end(self, process: TemplateProcess) -> None:
        """Have `process` end at once."""
        self.dismiss(process)
        process.kill()

    def abandon(self, process: TemplateProcess) -> None:
        """Expect nothing more of `process`, although it is not dead."""
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
