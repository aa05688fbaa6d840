"""What the log says about single jobs, and the fields of these lines.

:mod:`.counters` makes the :class:`JobLog` that logs all jobs; otherwise :mod:`.endings` and
:mod:`.retries` log the requests that are refused and the jobs that end with an error of the
server's. Every line about a job has the fields of :func:`fields_of`, so that a log in JSON can be
searched by them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from zope.interface import implementer

from dangad.scheduler.interfaces import IJournal
from dangad.text import counted

if TYPE_CHECKING:
    from dangad.errors import DangadError
    from dangad.scheduler.counters import Counters
    from dangad.scheduler.dispatcher import Dispatcher
    from dangad.scheduler.record import Job

log = Logger()


def fields_of(job: Job) -> dict[str, Any]:
    """The job's id, its command, its client, and the process id of its worker, if it had one."""
    return {
        "job": job.id,
        "command": job.name,
        "client": job.asker or (job.client.name if job.client is not None else ""),
        "worker": job.pid or None,
    }


def fields_of_end(job: Job) -> dict[str, Any]:
    """The fields of a job that has ended: also how, after what times, and with which error."""
    code, reason = job.ended_for or (None, None)
    return {
        **fields_of(job),
        "state": job.state.value,
        "attempt": job.attempt,
        "wait": job.wait,
        "runtime": job.runtime,
        "code": code,
        "reason": reason,
    }


def log_stopping(dispatcher: Dispatcher, seconds: float, by_signals: bool) -> None:
    """Log for which jobs the stop waits, for how long at most, and whether signals cut it short."""
    log.info(
        "stopping: {_running} running, {waiting} waiting, for at most {drain:g} s{_hint}",
        _running=counted(dispatcher.running, "job"),
        waiting=dispatcher.waiting,
        drain=seconds,
        _hint="; Ctrl-C or SIGTERM now stops at once" if by_signals else "",
    )


def log_totals(counters: Counters) -> None:
    """Log how many jobs there were, when the server has stopped."""
    log.info(
        "stopped: {_accepted} accepted: {done} done, {failed} failed, {lost} lost, "
        "{cancelled} cancelled, {timed_out} timed out; {refused} refused",
        _accepted=counted(counters.accepted, "job"),
        refused=counters.refused,
        **{state.name.lower(): number for state, number in counters.ended.items()},
    )


@implementer(IJournal)
class JobLog:
    """Logs the life of each job, for ``--log-jobs all``."""

    def job_accepted(self, job: Job) -> None:
        """See :meth:`IJournal.job_accepted`."""
        log.info(
            "job {job} {command} accepted client={client} priority={priority}",
            **fields_of(job),
            priority=job.priority.name.lower(),
        )

    def job_started(self, job: Job) -> None:
        """See :meth:`IJournal.job_started`."""
        log.info(
            "job {job} {command} started worker={worker} attempt={attempt} wait={wait:.6f}",
            **fields_of(job),
            attempt=job.attempt,
            wait=job.wait,
        )

    def job_retried(self, job: Job, error: DangadError) -> None:
        """See :meth:`IJournal.job_retried`."""
        log.info(
            "job {job} {command} is tried again: attempt {attempt}: {reason}",
            **fields_of(job),
            attempt=job.attempt,
            code=error.code.decode("ascii", "replace"),
            reason=str(error),
        )

    def job_ended(self, job: Job) -> None:
        """See :meth:`IJournal.job_ended`. The line has what the job used, if this is known."""
        took = job.took
        log.info(
            "".join(
                (
                    "job {job} {command} {state}",
                    " worker={worker}" if job.pid else "",
                    " wait={wait:.6f} runtime={runtime:.6f}",
                    " cpu={cpu:.6f}" if took else "",
                    " peak_memory={peak_memory}" if took and took.peak_memory else "",
                    " {code}: {reason}" if job.ended_for else "",
                )
            ),
            **fields_of_end(job),
            cpu=took.cpu if took else None,
            peak_memory=took.peak_memory or None if took else None,
        )

    def job_refused(self, job: Job, error: DangadError) -> None:
        """See :meth:`IJournal.job_refused`."""
        log.info(
            "job {job} {command} refused client={client} {code}: {reason}",
            **fields_of(job),
            code=error.code.decode("ascii", "replace"),
            reason=str(error),
        )
