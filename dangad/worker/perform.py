"""Turns the pairs of a request into the pairs of an answer, by one call of a job function.

Called by :mod:`dangad.worker.child` for each job, and by :mod:`dangad.testing`, so that a test of a
job type goes through the same checks as production.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.protocols import amp

from dangad.errors import (
    BadArguments,
    BadResponse,
    DangadError,
    JobFailed,
    TooLarge,
    UnhandledCommand,
)
from dangad.text import kind_in_words, show_bytes
from dangad.wire.argumentcheck import WrongValue, check_of, too_long
from dangad.wire.boxes import COMMAND, error_pairs, pack
from dangad.wire.catalogue import NO_POLICY, all_errors
from dangad.wire.values import python_name
from dangad.worker.context import JobStopped, RunningJob, set_current_job
from dangad.worker.failures import (
    is_a,
    leave_fork,
    message_of,
    say,
    summary_of,
    traceback_of,
    type_name,
    write,
)
from dangad.worker.following import follow

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from dangad.wire.catalogue import Policy
    from dangad.worker.jobtypes import JobType


class OutOfMemory(Exception):
    """The job has used up the memory of its worker, so the worker must exit."""


@dataclass(slots=True)
class Answer:
    """The answer to a job: the rest of an AMP answer or error box after its tag.

    It is not frozen, because making a frozen dataclass takes more than twice as long.
    """

    failed: bool
    body: bytes


class Performer:
    """Runs job functions and turns their outcomes into :class:`Answer` objects."""

    def __init__(
        self,
        job_types: Mapping[bytes, JobType],
        max_payload: int,
        wait: Callable[[Deferred[Any]], Any],
        max_memory: int = 0,
        is_stopped: Callable[[], bool] = lambda: False,
        tell: Callable[[str], None] = say,
    ) -> None:
        """Prepare to perform `job_types`.

        :param job_types: the job types by command name.
        :param max_payload: bytes of the largest answer.
        :param wait: waits for a Deferred; returns its result, or raises its exception.
        :param max_memory: bytes of memory that this process may have; 0 for no limit.
        :param is_stopped: whether the running job was told to stop.
        :param tell: called with one line for each job that ends with a declared error or a bad
            response.
        """
        self._calls = {name: _call_of(job_type) for name, job_type in job_types.items()}
        self._max_payload = max_payload
        self._wait = wait
        self._max_memory = max_memory
        self._is_stopped = is_stopped
        self._tell = tell

    def policy_of(self, strings: dict[bytes, bytes]) -> Policy:
        """The policy of the job of this request."""
        call = self._calls.get(strings[COMMAND])
        return NO_POLICY if call is None else call.policy

    def perform(self, strings: dict[bytes, bytes], running: RunningJob) -> Answer:
        """Run the job of a request; the caller ends `running`.

        The job has a context of its own, in which it is the current job to the end.

        An exception of the job function becomes an error answer, and leaves a traceback on stderr
        if the command does not declare it. Only two exceptions leave this method. If the job has
        forked and the fork leaves the function, the fork does not return from here.

        :param strings: the pairs of the request box.
        :param running: the job that :func:`dangad.current_job` returns while the function runs.
        :raises JobStopped: the job was told to stop, and its function did not catch this.
        :raises OutOfMemory: the job has used up the limited memory of this process.
        """
        return copy_context().run(self._perform, strings, running)

    def _perform(self, strings: dict[bytes, bytes], running: RunningJob) -> Answer:
        call = self._calls.get(strings[COMMAND])
        if call is None:  # workers with older or newer job modules perform it
            return _refuse(UnhandledCommand("the worker does not perform this command"))
        try:
            arguments = call.parse(strings)
        except BadArguments as error:
            return _refuse(error)
        process = os.getpid()
        follow()
        set_current_job(running)
        try:
            result = call.function(**arguments)
            if not isinstance(result, dict):
                result = self._settle(result, running)
        except BaseException as error:
            if os.getpid() != process:
                leave_fork(error)
            if is_a(error, JobStopped) and self._is_stopped():
                raise
            return self._explain(call, running, error)
        if os.getpid() != process:
            leave_fork(None)
        try:
            body = call.pack(result)
            if len(body) > self._max_payload:
                raise TooLarge(f"the answer is {len(body)} bytes, the limit is {self._max_payload}")
        except (BadResponse, TooLarge) as error:
            kind = BadResponse if is_a(error, BadResponse) else TooLarge
            return self._told(running, kind.code, message_of(error))
        except BaseException as error:  # the dict may be of the job's own class
            if is_a(error, JobStopped) and self._is_stopped():
                raise
            return self._explain(call, running, error)
        return Answer(False, body)

    def _explain(self, call: _Call, running: RunningJob, error: BaseException) -> Answer:
        """The answer for an exception of the function.

        :raises OutOfMemory: the job has used up the memory, so the worker must exit.
        """
        code = call.code_of(error)
        if code is not None:
            return self._told(running, code, message_of(error))
        write(f"{running.command} failed:\n{traceback_of(error)}")
        if self._max_memory and is_a(error, MemoryError):
            raise OutOfMemory(f"ran out of memory (--max-memory {show_bytes(self._max_memory)})")
        return _refuse(JobFailed(summary_of(error)))

    def _told(self, running: RunningJob, code: bytes, text: str) -> Answer:
        """Log an error, and return it as the answer to a job."""
        self._tell(f"{running.command} ended with {code.decode('ascii', 'replace')}: {text}")
        return Answer(True, pack(error_pairs(code, text)))

    def _settle(self, result: Any, running: RunningJob) -> Any:
        """Wait for `result` if it is asynchronous; send its parts if it is a generator."""
        if inspect.isgenerator(result):
            with contextlib.closing(result):
                return _send_parts(result, running)
        if inspect.iscoroutine(result):
            result = ensureDeferred(result)
        if not isinstance(result, Deferred):
            return result
        follow()
        return self._wait(result)


class _Call:
    """A job type, prepared to be called often."""

    def __init__(self, job_type: JobType) -> None:
        command = job_type.command
        self.function = job_type.function
        self.policy = job_type.policy
        self._errors: dict[type[Exception], bytes] = all_errors(command)
        defaults = _defaults_of(job_type.function)
        self._arguments = [
            (key, python_name(key), argument, python_name(key) in defaults)
            for key, argument in command.arguments
        ]
        self._response = [
            (key, python_name(key), argument, check_of(argument))
            for key, argument in command.response
        ]
        self._declared = {name for _, name, _, _ in self._response}

    def parse(self, strings: dict[bytes, bytes]) -> dict[str, Any]:
        """The function's keyword arguments from the pairs of a request.

        Arguments that were left out are None, unless the function has a default for them.

        :raises BadArguments: an argument is missing, or cannot be decoded.
        """
        arguments: dict[str, Any] = {}
        for key, name, argument, has_default in self._arguments:
            given = key in strings
            try:
                argument.fromBox(key, strings, arguments, None)
            except BaseException as error:  # noqa: BLE001 - argument classes are anybody's code
                if is_a(error, KeyError) and not given:
                    raise BadArguments(f"argument {key.decode()!r} is missing") from None
                kind = kind_in_words(type_name(argument))
                raise BadArguments(
                    f"argument {key.decode()!r} is not {kind}: {summary_of(error)}"
                ) from None
            if has_default and not given and arguments.get(name) is None:
                arguments.pop(name, None)
        return arguments

    def pack(self, result: Any) -> bytes:
        """The answer's pairs from the result of the function.

        :raises BadResponse: the result does not match the command's response.
        """
        if not isinstance(result, dict):
            raise BadResponse(f"the job returned {_kind(result)}, not a dict of its response")
        for name in result:
            if name not in self._declared:
                hint = "; keys are text" if isinstance(name, bytes) else ""
                raise BadResponse(
                    f"the job returned {name!r}, which its command does not declare{hint}"
                )
        strings = self._strings_of(result)
        for key, value in strings.items():
            if key[:1] == b"_":  # a client would take the key for the frame of the answer
                raise BadResponse(f"{key!r} begins with an underscore, which is reserved")
            if not isinstance(value, bytes):
                raise BadResponse(f"{key.decode()!r} is {_kind(value)} where bytes are declared")
        try:
            return pack(strings.items())
        except amp.TooLong as error:
            what = repr(error.keyName)[1:] if error.keyName else "the response"
            raise BadResponse(f"{what} {too_long(error)}") from None

    def _strings_of(self, result: dict[str, Any]) -> dict[bytes, bytes]:
        """The encoded values by key.

        :raises BadResponse: a value is missing, or cannot be encoded.
        """
        strings: dict[bytes, bytes] = {}
        objects = result.copy()  # AMP removes each value from the dict when it has packed it
        for key, name, argument, check in self._response:
            if not argument.optional and name not in result:
                raise BadResponse(f"the job returned no {name!r}")
            try:
                if check and not (argument.optional and objects.get(name) is None):
                    objects[name] = check(objects[name])
                argument.toBox(key, strings, objects, None)
            except WrongValue as error:
                raise BadResponse(f"{name!r}{error.path} {error}") from None
            except amp.TooLong as error:
                raise BadResponse(f"a part of {name!r} {too_long(error)}") from None
            except Exception as error:  # noqa: BLE001 - argument classes are anybody's code
                raise BadResponse(
                    f"{name!r} is {_kind(result.get(name))}, which is not "
                    f"{kind_in_words(type_name(argument))}: {summary_of(error)}"
                ) from None
        return strings

    def code_of(self, error: BaseException) -> bytes | None:
        """The code with which the command declares the exception; None if it does not."""
        for declared, code in self._errors.items():
            if is_a(error, declared):
                return code
        return None


def _defaults_of(function: Callable[..., Any]) -> set[str]:
    """The names of the function's parameters that have a default."""
    return {
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty
    }


def _send_parts(parts: Generator[Any, Any, Any], running: RunningJob) -> Any:
    """Send every part that the generator yields to the client; return the generator's result.

    If sending fails, or the job is stopped, the exception is raised at the generator's ``yield``,
    so that the generator can clean up.
    """
    while True:
        try:
            part = next(parts)
        except StopIteration as end:
            return end.value
        try:
            running.send(part)
        except BaseException as error:
            with contextlib.suppress(StopIteration):
                parts.throw(error)
            raise


def _refuse(error: DangadError) -> Answer:
    return Answer(True, pack(error_pairs(error.code, str(error))))


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type_name(value)}"


_prepared: dict[int, tuple[JobType, _Call]] = {}
"""The job types that were prepared, by identity: functions need not be hashable."""


def prepare(job_types: Iterable[JobType]) -> None:
    """Inspect the functions and commands now, so that no performer in a fork has to."""
    _prepared.update({id(job_type): (job_type, _Call(job_type)) for job_type in job_types})


def _call_of(job_type: JobType) -> _Call:
    known, call = _prepared.get(id(job_type), (None, None))
    return call if call is not None and known is job_type else _Call(job_type)
