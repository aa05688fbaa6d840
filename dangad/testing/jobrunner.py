"""Runs a job in the test's own process: with client, serialisation and worker, but no server.

A real :class:`dangad.client.connection.Client` makes the request, on a transport in memory. The
worker's own :class:`dangad.worker.perform.Performer` performs its bytes, and the answer's bytes go
back to the client. So tests and production run the same code.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from dangad.client import MAX_PAYLOAD, ClientFactory
from dangad.errors import TooLarge
from dangad.wire import boxes, commands
from dangad.worker.context import NO_JOB, JobStopped, RunningJob, current_job, set_current_job
from dangad.worker.jobtypes import catalogue_of, job_types_of
from dangad.worker.perform import Answer, Performer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from twisted.protocols import amp

    from dangad.client.streams import Stream
    from dangad.worker.jobtypes import JobType


class Report(NamedTuple):
    """One report of a job's progress."""

    done: int
    total: int
    message: str


class _Unhurried(RunningJob):
    """A job that sends all its reports, not ten a second, so that a test can predict them."""

    def progress(self, *told: Any, **named: Any) -> None:
        """Report, and send the report at once."""
        super().progress(*told, **named)
        self.flush()


class JobRunner:
    """Runs jobs in the test's own process, with an id, an attempt or limits of the test's choice.

    What the jobs report through ``dangad.current_job().progress(...)`` is collected in `progress`::

        runner = JobRunner(attempt=2)
        runner.perform(count_words, document=b"to be", top=1)
        assert runner.progress == [(1, 2, "to"), (2, 2, "be")]

    These are all reports; a client of a server gets ten a second at most. With ``chunks=True`` the
    partial results that the jobs yield or send are collected in `chunks`. Without it, the jobs run
    as for a client that did not ask for partial results::

        runner = JobRunner(chunks=True)
        runner.perform(read_lines, path="poem")
        assert runner.chunks == [b"to be", b"or not to be"]

    :ivar progress: all reports, in order.
    :ivar chunks: all partial results, in order.
    """

    def __init__(
        self,
        *,
        id: int = 1,
        attempt: int = 1,
        max_payload: int = MAX_PAYLOAD,
        chunks: bool = False,
    ) -> None:
        """Run nothing yet.

        :param id: the job's id, as its function sees it.
        :param attempt: the attempt, as its function sees it.
        :param max_payload: bytes of the largest request and the largest answer, like the
            server's ``--max-payload``.
        :param chunks: whether the jobs are asked for partial results.
        """
        self.progress: list[Report] = []
        self.chunks: list[bytes] = []
        self._wants_chunks = chunks
        self._id = id
        self._attempt = attempt
        self._max_payload = max_payload

    def perform(
        self,
        function: Callable[..., Any],
        command: type[amp.Command] | None = None,
        /,
        **arguments: Any,
    ) -> dict[str, Any]:
        """See :func:`dangad.testing.perform`."""
        __tracebackhide__ = True
        run = self._run(function, command, arguments)
        outcome: list[Any] = []
        run.answer.addBoth(outcome.append)
        if not outcome:
            run.answer.cancel()
            raise RuntimeError(
                f"{function.__qualname__} is asynchronous, and its Deferred has not fired: use "
                f"`await dangad.testing.perform_async({function.__qualname__}, ...)`"
            )
        if isinstance(outcome[0], Failure):
            error: Any = outcome[0].value
            raise error from run.raised
        answer: dict[str, Any] = outcome[0]
        return answer

    def perform_async(
        self,
        function: Callable[..., Any],
        command: type[amp.Command] | None = None,
        /,
        **arguments: Any,
    ) -> Deferred[dict[str, Any]]:
        """See :func:`dangad.testing.perform_async`."""
        run = self._run(function, command, arguments)
        return run.answer.addErrback(run.explain)

    def _run(
        self,
        function: Callable[..., Any],
        command: type[amp.Command] | None,
        arguments: dict[str, Any],
    ) -> _Run:
        job_type = _job_type(function, command)
        chunks = self.chunks if self._wants_chunks else None
        run = _Run(job_type, arguments, self._max_payload, self._note_progress, chunks)
        run.begin(self._id, self._attempt)
        return run

    def _note_progress(self, done: int, total: int, message: str) -> None:
        self.progress.append(Report(done, total, message))


def perform(
    function: Callable[..., Any], command: type[amp.Command] | None = None, /, **arguments: Any
) -> dict[str, Any]:
    """The answer of one job, run here and now in the test's own process.

    Raises what :meth:`dangad.Client.run` would fail with: an error that the command declares, or
    `dangad.JobFailed`, `dangad.BadArguments`, `dangad.BadResponse` or `dangad.TooLarge`. The
    exception that the function itself raised is its ``__cause__``. Text that the worker would print
    into the server's log, such as the traceback of an undeclared exception, goes to stderr.

    There is no other process here: a job that crashes or hangs takes the test with it. Even a
    command that wants no answer gets one.

    If a job needs an id, an attempt or a limit of its own, or if you want to see its progress, use
    a :class:`JobRunner`, which has this function as a method.

    :param function: a function decorated with ``@dangad.job``.
    :param command: which of its commands to perform, if it has several.
    :param arguments: the command's arguments. All names are free for them.
    :raises RuntimeError: the function is asynchronous, and its Deferred has not fired.
    :raises TypeError: the function is not a job function, or has several commands and no `command`.
    """
    __tracebackhide__ = True
    return JobRunner().perform(function, command, **arguments)


def perform_async(
    function: Callable[..., Any], command: type[amp.Command] | None = None, /, **arguments: Any
) -> Deferred[dict[str, Any]]:
    """Like :func:`perform`, for functions that are ``async def`` or return a Deferred.

    Fires with the answer. Fails with the errors that :func:`perform` raises. Cancelling it cancels
    the function's Deferred. Wait for one job before you begin the next, as a worker does: there is
    only one ``current_job()``.

    :raises TypeError: as :func:`perform` does.
    """
    return JobRunner().perform_async(function, command, **arguments)


def _job_type(function: Callable[..., Any], command: type[amp.Command] | None) -> JobType:
    """The job type of the function; if there are several, the one for the command."""
    job_types = job_types_of(function)
    if not job_types:
        raise TypeError(f"{function!r} has no job type: decorate it with @dangad.job")
    name = function.__qualname__
    commands = ", ".join(sorted(job_type.command.__name__ for job_type in job_types))
    if command is None and len(job_types) > 1:
        raise TypeError(f"{name} performs {commands}: name one, as in perform({name}, {commands})")
    for job_type in job_types:
        if command in (None, job_type.command):
            return job_type
    raise TypeError(f"{name} performs {commands}, and not {command!r}")


class _Unfinished(JobStopped):
    """The job function's Deferred has not fired yet."""


class _Run:
    """One job's way from a client to the job function and back.

    An asynchronous function is performed in two steps, because the Performer cannot be left and
    entered again. The first step yields the Deferred, and is then stopped like a job. The second
    step uses the Deferred's result as the function's return value.

    :ivar answer: fires with the client's answer, or fails with its error.
    :ivar raised: the exception that the function raised; None if it raised none.
    """

    def __init__(
        self,
        job_type: JobType,
        arguments: dict[str, Any],
        max_payload: int,
        progress: Callable[[int, int, str], None],
        chunks: list[bytes] | None,
    ) -> None:
        """Let a client send the request; `begin` performs it.

        :param progress: the client calls it with the job's progress.
        :param chunks: gets the job's partial results; None if the client wants none.
        """
        self._job_type = job_type
        self._running = NO_JOB
        self._wants_chunks = chunks is not None
        self._max_payload = max_payload
        self._unfinished: Deferred[Any] | None = None
        self.raised: BaseException | None = None
        catalogue_of([job_type])  # as a worker does when it starts
        transport = StringTransport(peerAddress=UNIXAddress(None))
        self._client = ClientFactory(max_payload).buildProtocol(None)
        self._client.makeConnection(transport)
        command = _with_answer(job_type.command)
        if chunks is None:
            self.answer = self._client.run(command, arguments, progress=progress)
        else:
            stream = self._client.stream(command, arguments, progress=progress)
            self.answer = Deferred.fromCoroutine(_gather(stream, chunks))
        self.answer.addBoth(self._ended)
        reader = boxes.BoxReader(max_payload, boxes.REQUEST_KEYS)
        reader.feed(transport.value())
        self._request = reader.next()

    def begin(self, id: int, attempt: int) -> None:
        """Perform the job, if there is a request for it, and give the client the answer."""
        if self._request is not None:
            name = self._job_type.name.decode("ascii")
            part = self._send_part if self._wants_chunks else None
            self._running = _Unhurried(id, name, attempt, report=self._send_report, part=part)
            self._perform(self._job_type.function)

    def explain(self, failure: Failure) -> Failure:
        """The failure, with the function's exception as the cause of its own."""
        if failure.value is not None:
            failure.value.__cause__ = self.raised
        return failure

    def _perform(self, function: Callable[..., Any]) -> None:
        """Perform the request by `function`, and give the client the answer."""
        box = self._request
        assert box is not None
        if box.raw is None:
            text = f"the request is {box.size} bytes, --max-payload is {self._max_payload}"
            self._give(Answer(True, boxes.pack(boxes.error_pairs(TooLarge.code, text))))
            return

        @wraps(function)
        def noting(**arguments: Any) -> Any:
            try:
                result = function(**arguments)
            except BaseException as error:
                self.raised = error
                raise
            return self._note_from(result) if inspect.isgenerator(result) else result

        job_type = replace(self._job_type, function=noting)
        performer = Performer(
            {job_type.name: job_type},
            self._max_payload,
            self._settle,
            is_stopped=lambda: self._unfinished is not None,
            tell=lambda _: None,  # the test gets the error itself
        )
        try:
            answer = performer.perform(boxes.unpack(bytes(box.raw)), self._running)
        except _Unfinished:
            set_current_job(self._running)
            return
        self._running.end()
        self._give(answer)

    def _note_from(self, generator: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """The same generator; remembers the exception that it raises."""
        try:
            return (yield from generator)
        except BaseException as error:
            self.raised = error
            raise

    def _settle(self, deferred: Deferred[Any]) -> Any:
        """The result of `deferred`.

        :raises _Unfinished: it has not fired. When it fires, the job is performed again.
        """
        outcome: list[Any] = []
        deferred.addBoth(outcome.append)
        if outcome:
            return self._open(outcome[0])
        self._unfinished = deferred
        deferred.addCallback(lambda _: self._finish(outcome[0]))
        raise _Unfinished

    def _open(self, result: Any) -> Any:
        if isinstance(result, Failure):
            self.raised = result.value
            result.raiseException()
        return result

    def _finish(self, result: Any) -> None:
        """The function's Deferred has fired with `result`."""
        self._unfinished = None
        if not self.answer.called:
            self._perform(lambda **_: self._open(result))

    def _send_report(self, done: int, total: int, message: str) -> None:
        """Send the client the job's progress."""
        self._tell(commands.Progress, done=done, total=total, message=message)

    def _send_part(self, data: bytes) -> None:
        """Send the client a part of the job's result."""
        self._tell(commands.Chunk, data=data)

    def _tell(self, command: type[amp.Command], **news: Any) -> None:
        box = self._request
        assert box is not None
        strings = command.makeArguments({"tag": box.keys[boxes.ASK], **news}, None)
        start = boxes.pair(boxes.COMMAND, command.commandName)
        self._client.dataReceived(start + boxes.pack(strings.items()))

    def _give(self, answer: Answer) -> None:
        """Send the client the answer."""
        box = self._request
        assert box is not None
        start = boxes.pair(boxes.ERROR if answer.failed else boxes.ANSWER, box.keys[boxes.ASK])
        self._client.dataReceived(start + answer.body)

    def _ended(self, result: Any) -> Any:
        """The client has its answer, or no longer wants one."""
        if current_job() is self._running:
            set_current_job(NO_JOB)
        if self._unfinished is not None:
            self._unfinished.cancel()
        if self._running is not NO_JOB:
            self._running.end()
        return result


async def _gather(stream: Stream, chunks: list[bytes]) -> dict[str, Any]:
    """The response of a stream whose chunks have gone to `chunks`."""
    async for chunk in stream:
        chunks.append(chunk)  # noqa: PERF401 - one by one, since an error may follow them
    return await stream.result()


def _with_answer(command: type[amp.Command]) -> type[amp.Command]:
    """The command as one that wants an answer, because the test does."""
    if command.requiresAnswer:
        return command
    names = {"commandName": command.commandName, "requiresAnswer": True}
    answered: type[amp.Command] = type(command.__name__, (command,), names)
    return answered
