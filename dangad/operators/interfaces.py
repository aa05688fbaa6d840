"""What operators may see and do: the interface between the server and all that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zope.interface import Interface

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from twisted.internet.defer import Deferred


class IOperations(Interface):
    """What operators may see and do, as :mod:`dangad.operators.control` asks for it.

    All documents can be written as JSON; ``docs/reference/control.md`` gives their shapes. Any
    method may be called at any time while the server runs, even while the Deferred of another call
    has not fired. Callers do not cancel a Deferred, and may no longer be there when it fires.

    A filter is a dict that says which jobs are meant; an empty filter, or None, means all jobs. If
    a filter, an order or a number is not valid, ValueError says in one line what is allowed.
    """

    def turn() -> Deferred[str]:
        """Fires, with nothing, when it is the caller's turn for a part of a long piece of work.

        Whoever shows much asks for a turn before each few milliseconds of work.
        """

    def status() -> dict[str, Any]:
        """The status of the server: its state, settings, and numbers of workers and jobs."""

    def workers() -> list[dict[str, Any]]:
        """The worker processes that live, each with the job that it runs."""

    def jobs(
        filter: Mapping[str, Any] | None = None,
        sort: str = "state",
        limit: int = 100,
        offset: int = 0,
    ) -> Deferred[dict[str, Any]]:
        """The jobs that wait and run and that `filter` means, and how many there are.

        :param sort: the order, with "-" before if the largest comes first.
        :param limit: how many jobs to tell, a thousand at most, after passing over `offset` jobs.
        """

    def recent(
        filter: Mapping[str, Any] | None = None, sort: str | None = None, limit: int = 1000
    ) -> list[dict[str, Any]]:
        """The jobs that ended last and that `filter` means; of the last thousand.

        :param sort: the order; None for the order of their ends, the latest last.
        :param limit: how many jobs to tell: the latest ones, or, if `sort` is given, the first.
        """

    def job(job_id: int) -> Deferred[dict[str, Any]]:
        """Everything about one job; fails with NotFound if no such job is known any more."""

    def deaths() -> list[dict[str, Any]]:
        """The workers that died last, the latest last; two hundred at most."""

    def commands() -> Deferred[list[dict[str, Any]]]:
        """The commands, each with the numbers of its jobs; a thousand and one at most."""

    def clients(sort: str = "-since", limit: int = 100) -> Deferred[dict[str, Any]]:
        """The connected clients, and how many there are; `sort` and `limit` as of `jobs`."""

    def watch(
        after: int | None = None,
        filter: Mapping[str, Any] | None = None,
        kinds: Collection[str] | None = None,
    ) -> Deferred[dict[str, Any]]:
        """The events after the one of this number, or from now on if it is None.

        Fires at once if there are any, else as soon as there is one, or after some seconds. At the
        end of the server it fires with what is left, and with the "state" "stopped".

        :param filter: which jobs' events are wanted: their `command` and `client`.
        :param kinds: the wanted kinds of events; None for all.
        """

    def histograms() -> dict[str, Any]:
        """How long jobs waited and ran since the start, in buckets: "edges" has their upper edges.

        "commands" has, for each command, the "counts" and the "sum" of each of "wait" and
        "runtime". There is one more count than edges, for longer times. "stalls" has the long turns
        of the server's own loop in the same way, with edges of its own.
        """

    def config() -> dict[str, Any]:
        """The options of the server as they are now, and the text of its configuration file."""

    def signature(command: str) -> dict[str, Any] | None:
        """A command's entry in the catalogue, with its types; None if it is not known.

        :mod:`dangad.wire.catalogue` has its form.
        """

    def call(
        command: str,
        words: Mapping[str, Sequence[str]],
        *,
        priority: str = "normal",
        deadline: float | None = None,
        chunks: bool = False,
    ) -> Deferred[int]:
        """Call a command by hand: see :meth:`dangad.operators.handcalls.HandCalls.call`."""

    def calls() -> list[dict[str, Any]]:
        """The last jobs that were called by hand, the latest first, with what came of them."""

    def run_again(job_id: int) -> Deferred[int]:
        """Call by hand what the job of this id was asked to do; fires with the new job's id.

        Fails with NotFound if the job's request is not held any more: see `can_run_again` of `job`.
        """

    def cancel(
        which: Collection[int] | Mapping[str, Any], most: int = 1000
    ) -> Deferred[dict[str, Any]]:
        """Cancel the jobs of these ids, or the `most` oldest ones that this filter means.

        Fires, when each was dealt with, with a result for each.
        """

    def pause(commands: Collection[str] | None) -> dict[str, Any]:
        """Start no more jobs of these commands, or of all if it is None; what is paused now.

        Raises ShuttingDown if the server is stopping.
        """

    def resume(commands: Collection[str] | None) -> dict[str, Any]:
        """Start jobs of these commands again, or of all if it is None; what is paused still."""

    def pardon(command: str) -> bool:
        """End the quarantine of a command at once; whether there was any."""

    def scale(min_workers: int, max_workers: int, force: bool = False) -> None:
        """Keep at least and at most so many workers from now on.

        Returns at once; the workers come and go later. Raises ValueError if the numbers are not
        valid, or the machine has no room for so many and `force` is not set; the text says why, in
        one line. Raises ShuttingDown if the server is stopping.
        """

    def stack(job_id: int) -> Deferred[str]:
        """The Python stack of the job's worker, which is written to the log, too.

        Fires with text of many lines. Fails with NotRunning if no job of this id runs, and with
        NoAnswer if the worker does not react.
        """

    def reload() -> Deferred[None]:
        """Replace the workers, one by one, by workers that have imported the job modules anew.

        Fires when no older worker is left. Fails with ReloadFailed if the new code does not
        start; its text is the reason. Fails with ShuttingDown if the server is stopping already.
        """

    def drain() -> Deferred[dict[str, int]]:
        """Take no new jobs, finish the accepted ones, and then stop the server.

        Fires when all accepted jobs have ended, with the number of jobs by how they ended. The
        server stops only after the operator could be told. If called twice, both Deferreds fire.
        """

    def shutdown(now: bool = False) -> None:
        """Begin to stop the server as SIGTERM does, or, if `now`, as a second SIGTERM does."""
