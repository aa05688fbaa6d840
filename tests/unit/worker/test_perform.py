from __future__ import annotations

import io
import itertools
import json
import os
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dangad import Blob, current_job
from dangad.wire.boxes import COMMAND, ERROR_CODE, ERROR_DESCRIPTION, unpack
from dangad.wire.catalogue import Policy
from dangad.worker.context import NO_JOB, RunningJob
from dangad.worker.failures import MAX_MESSAGE
from dangad.worker.jobtypes import JobType
from dangad.worker.perform import Performer

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PAYLOAD = 300_000
BASE_GROUP = "BaseExceptionGroup: two (1 sub-exception)"


class Declared(Exception):
    """Declared by the command."""


class MoreDeclared(Declared):
    """Derives from a declared one."""


class Fatal(Exception):
    """Declared as fatal."""


class DeclaredLate(OSError):
    """Declared after its base class."""


class Json(amp.Argument):
    """Carries any value, None included."""

    def toString(self, inObject: object) -> bytes:
        """AMP's call."""
        return json.dumps(inObject).encode()

    def fromString(self, inString: bytes) -> Any:
        """AMP's call."""
        return json.loads(inString)


class Colour(amp.Argument):
    """Fails in odd ways to read what it does not know."""

    NAMES = {b"red": 1}

    def fromString(self, inString: bytes) -> int:
        """AMP's call."""
        if inString == b"exit":
            raise SystemExit("no")
        return self.NAMES[inString]


class Work(amp.Command):
    arguments = [
        (b"number", amp.Integer(optional=True)),
        (b"colour", Colour(optional=True)),
        (b"list", amp.AmpList([(b"name", amp.Unicode())], optional=True)),
        (b"blob", Blob(optional=True)),
    ]
    response = [(b"total", amp.Integer())]
    errors = {
        Declared: b"DECLARED",
        OSError: b"OS",
        DeclaredLate: b"LATE",
        KeyboardInterrupt: b"INTERRUPTED",  # type: ignore[dict-item]
    }
    fatalErrors = {Fatal: b"FATAL"}  # noqa: N815 - AMP's name


class Need(amp.Command):
    arguments = [(b"max-width", amp.Integer())]


class Give(amp.Command):
    response = [
        (b"text", amp.Unicode(optional=True)),
        (b"bytes", amp.String(optional=True)),
        (b"number", amp.Integer(optional=True)),
        (b"flag", amp.Boolean(optional=True)),
        (b"list", amp.ListOf(amp.Unicode(), optional=True)),
        (b"blob", Blob(optional=True)),
        (b"two-words", amp.Unicode(optional=True)),
    ]


class GiveAny(amp.Command):
    response = [(b"value", Json())]


def wait(deferred: Deferred[Any]) -> Any:
    """The result of a Deferred that has fired, or its exception raised."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result


class PerformTestCase(SynchronousTestCase):
    """Calls a function as a worker does, and reads the answer as a client does."""

    def setUp(self) -> None:
        """Catch what goes to stderr."""
        self.stderr = io.StringIO()
        self.patch(__import__("sys"), "stderr", self.stderr)

    def perform(
        self,
        function: Callable[..., Any],
        command: type[amp.Command] = Work,
        strings: dict[bytes, bytes] | None = None,
    ) -> tuple[bool, dict[bytes, bytes]]:
        """Whether the job failed, and the pairs of its answer; no job is current afterwards."""
        job_type = JobType(command, function, Policy())
        performer = Performer({job_type.name: job_type}, MAX_PAYLOAD, wait)
        running = RunningJob(7, "Work", 1)
        answer = performer.perform({COMMAND: job_type.name, **(strings or {})}, running)
        self.assertIs(current_job(), NO_JOB)
        return answer.failed, unpack(answer.body)

    def error(self, *arguments: Any, **keywords: Any) -> tuple[str, str]:
        """The code and the text of the error with which the job fails."""
        failed, pairs = self.perform(*arguments, **keywords)
        self.assertTrue(failed)
        self.assertEqual(set(pairs), {ERROR_CODE, ERROR_DESCRIPTION})
        return pairs[ERROR_CODE].decode(), pairs[ERROR_DESCRIPTION].decode()

    def result(self, *arguments: Any, **keywords: Any) -> dict[bytes, bytes]:
        """The pairs of the answer of a job that does not fail."""
        failed, pairs = self.perform(*arguments, **keywords)
        self.assertFalse(failed, pairs)
        return pairs


def raising(error: BaseException) -> Callable[..., Any]:
    """A job function that raises this."""

    def function(**arguments: Any) -> Any:
        raise error

    return function


def returning(result: Any) -> Callable[..., Any]:
    """A job function that returns this."""
    return lambda **arguments: result


class Unspeakable(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Quitting(Exception):
    """Wants to end the process when it is shown."""

    def __str__(self) -> str:
        raise SystemExit(3)


ERRORS: tuple[tuple[BaseException, str, str], ...] = (
    (ValueError("no such width"), "JOB_FAILED", "ValueError: no such width"),
    (ValueError(), "JOB_FAILED", "ValueError"),
    (ValueError("x" * 10_000_000), "JOB_FAILED", "ValueError: " + "x" * MAX_MESSAGE + "..."),
    (ValueError("caf\udce9 größer"), "JOB_FAILED", "ValueError: caf\\udce9 größer"),
    (SystemExit(3), "JOB_FAILED", "SystemExit: 3"),
    (SystemExit(), "JOB_FAILED", "SystemExit"),
    (GeneratorExit(), "JOB_FAILED", "GeneratorExit"),
    (RecursionError("too deep"), "JOB_FAILED", "RecursionError: too deep"),
    (MemoryError(), "JOB_FAILED", "MemoryError"),
    (BaseExceptionGroup("two", [SystemExit(1)]), "JOB_FAILED", BASE_GROUP),
    (Unspeakable(), "JOB_FAILED", "Unspeakable: (its message cannot be shown)"),
    (Quitting(), "JOB_FAILED", "Quitting: (its message cannot be shown)"),
    # Declared ones have their own code, and those that derive from them the first that fits.
    (Declared("too wide"), "DECLARED", "too wide"),
    (Fatal("out\nof ink"), "FATAL", "out\nof ink"),
    (MoreDeclared("x"), "DECLARED", "x"),
    (FileNotFoundError(2, "gone"), "OS", "[Errno 2] gone"),
    (DeclaredLate(5, "x"), "OS", "[Errno 5] x"),
    (KeyboardInterrupt("^C"), "INTERRUPTED", "^C"),
)
"""What a job raises, and the error that its client is told."""


class ExceptionTests(PerformTestCase):
    def test_errors(self) -> None:
        """What a job raises, or its Deferred or coroutine fails with, is its error.

        Whatever it is, it ends the job, not the worker, and no job is current afterwards.
        """
        for error, code, text in ERRORS:

            async def coroutine(error: BaseException = error, **arguments: Any) -> None:
                raise error

            functions: list[Callable[..., Any]] = [raising(error), coroutine]
            if isinstance(error, Exception):
                functions.append(lambda error=error, **_: fail(error))
            for function in functions:
                with self.subTest(text[:80], function=function):
                    self.assertEqual(self.error(function), (code, text))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_stop_iteration(self) -> None:
        """So it is with one that no coroutine can raise, and with one that others declare."""
        for error, command in ((StopIteration(1), Work), (KeyboardInterrupt("^C"), Need)):
            text = f"{type(error).__name__}: {error}"
            got = self.error(raising(error), command, {b"max-width": b"1"})
            self.assertEqual(got, ("JOB_FAILED", text))

    def test_traceback_is_logged(self) -> None:
        """The traceback of an undeclared exception goes to stderr, from the job's own frame on."""

        def function(**arguments: Any) -> None:
            os.environ["NO_SUCH_WIDTH"]

        self.assertEqual(self.error(function), ("JOB_FAILED", "KeyError: 'NO_SUCH_WIDTH'"))
        text = self.stderr.getvalue()
        self.assertTrue(text.startswith("Work failed:\nTraceback (most recent call last):\n"))
        self.assertIn("KeyError: 'NO_SUCH_WIDTH'", text)
        self.assertIn("test_perform.py", text)
        self.assertNotIn('perform.py", line', text.replace("test_perform.py", ""))

    def test_endless_recursion(self) -> None:
        """A job that recurses without end fails, and the next is performed."""

        def function(**arguments: Any) -> Any:
            return function()

        code, text = self.error(function)
        self.assertEqual((code, text[:14]), ("JOB_FAILED", "RecursionError"))

    def test_stderr_that_cannot_be_written(self) -> None:
        """A job that closed stderr still gets its error answered."""
        self.stderr.close()
        self.assertEqual(self.error(raising(ValueError("x"))), ("JOB_FAILED", "ValueError: x"))

    def test_declared(self) -> None:
        """A declared exception has its declared code and own message, and a line in the log."""
        self.assertEqual(self.error(raising(Declared("too wide"))), ("DECLARED", "too wide"))
        self.assertEqual(self.error(raising(Fatal("out\nof ink"))), ("FATAL", "out\nof ink"))
        self.assertEqual(
            self.stderr.getvalue(),
            "Work ended with DECLARED: too wide\nWork ended with FATAL: out\\nof ink\n",
        )

    def test_long_declared_message(self) -> None:
        """The message of a declared exception is cut to what AMP can send."""
        _, text = self.error(raising(Declared("ü" * 70_000)))
        self.assertTrue(text.startswith("üüü"))
        self.assertTrue(text.endswith("ü..."))
        self.assertGreater(len(text.encode()), 65_000)


TOO_LONG = (
    "'text' is 65536 bytes long, and AMP takes 65,535 in one value: declare it as "
    "dangad.Blob() or dangad.Large(...)"
)
RESPONSES: tuple[tuple[type[amp.Command], Any, Any], ...] = (
    # What goes back is in AMP's form, absent optional values left out.
    (Give, {"text": "größer", "two_words": "x"}, {b"text": "größer".encode(), b"two-words": b"x"}),
    (Give, {"number": 3, "text": None}, {b"number": b"3"}),
    (Give, {}, {}),
    (Give, succeed({"number": 3}), {b"number": b"3"}),
    (GiveAny, {"value": None}, {b"value": b"null"}),
    (Give, {"text": "x" * 65_535}, {b"text": b"x" * 65_535}),
    (Give, {"blob": b"x" * 65_536}, {b"blob": b"x" * 65_535, b"blob.1": b"x"}),
    # What is wrong is named.
    (Give, None, "the job returned None, not a dict of its response"),
    (Give, succeed(None), "the job returned None"),
    (Give, [("text", "x")], "returned a list"),
    (Give, iter([]), "returned a list_iterator"),
    (Work, {}, "the job returned no 'total'"),
    (GiveAny, {}, "the job returned no 'value'"),
    (Give, {"size": 1}, "returned 'size', which its command does not"),
    (Give, {b"text": "x"}, "b'text', which its command does not declare; keys are text"),
    (Give, {"two-words": "x"}, "returned 'two-words', which"),
    (Give, {"text": b"x"}, "'text' is a bytes, where Unicode takes a str"),
    (Give, {"bytes": "x"}, "'bytes' is a str, where String takes bytes"),
    (Give, {"number": "3"}, "'number' is a str, where Integer takes a whole number"),
    (Give, {"number": 2.7}, "'number' is a float, where Integer takes a whole number"),
    (Give, {"number": 10**5000}, "'number' is a int, which is not a whole number: ValueError"),
    (Give, {"flag": "no"}, "'flag' is a str, where Boolean takes True or False"),
    (Give, {"list": ["a", None]}, "'list'[1] is None, where Unicode takes a str"),
    (Give, {"list": "abc"}, "'list' is a str, where ListOf takes a list"),
    (Give, {"blob": "x"}, "'blob' is a str, where String takes bytes"),
    (Work, {"total": None}, "'total' is None, where Integer takes"),
    (Give, {"text": "x" * 65_536}, TOO_LONG),
)
"""What a job of a command returns, and the pairs of its answer, or what is wrong with it."""


class ResponseTests(PerformTestCase):
    def test_responses(self) -> None:
        """What a function returns, or its Deferred fires with, is checked by its command."""
        for command, result, expected in RESPONSES:
            with self.subTest(expected=str(expected)[:80]):
                if isinstance(expected, dict):
                    self.assertEqual(self.result(returning(result), command), expected)
                    continue
                code, text = self.error(returning(result), command)
                self.assertEqual(code, "BAD_RESPONSE")
                self.assertIn(expected, text)

    def test_coroutine(self) -> None:
        """A function may be async def, and wait for Deferreds; its job is the current one."""

        async def function(**arguments: Any) -> dict[str, Any]:
            await succeed(None)
            return {"total": current_job().id}

        self.assertEqual(self.result(function), {b"total": b"7"})

    def test_own_dict_is_left_alone(self) -> None:
        """The dict that the function returns, perhaps its own store, is not changed."""
        kept = {"total": 5}
        for _ in range(2):
            self.assertEqual(self.result(returning(kept)), {b"total": b"5"})
        self.assertEqual(kept, {"total": 5})

    def test_larger_than_the_payload(self) -> None:
        """An answer over --max-payload is TOO_LARGE, with both sizes."""
        code, text = self.error(returning({"blob": b"x" * MAX_PAYLOAD}), Give)
        self.assertEqual(code, "TOO_LARGE")
        self.assertRegex(text, r"^the answer is 3000\d\d bytes, the limit is 300000$")

    def test_odd_dicts(self) -> None:
        """A dict of the job's own class that misbehaves fails the job, not the worker."""

        class Odd(dict[str, Any]):
            def copy(self) -> Any:
                raise SystemExit("no copies")

        self.assertEqual(
            self.error(returning(Odd(total=1))), ("JOB_FAILED", "SystemExit: no copies")
        )


ARGUMENTS: tuple[tuple[type[amp.Command], dict[bytes, bytes], str], ...] = (
    (Need, {}, "argument 'max-width' is missing"),
    (Need, {b"max-width": b""}, "argument 'max-width' is not a whole number"),
    (Work, {b"number": b"five"}, "argument 'number' is not a whole number: ValueError"),
    (Work, {b"number": b""}, "'number' is not a whole number"),
    (Work, {b"number": b"9" * 5000}, "is not a whole number: ValueError: Exceeds the limit"),
    (Work, {b"list": b"\0\1x\0\0\0\0"}, "argument 'list' is not an AmpList: KeyError: b'name'"),
    (Work, {b"colour": b"blue"}, "argument 'colour' is not a Colour: KeyError: b'blue'"),
    (Work, {b"colour": b"exit"}, "argument 'colour' is not a Colour: SystemExit: no"),
)
"""What a client sends, and what is wrong with it."""


class ArgumentTests(PerformTestCase):
    def test_bad(self) -> None:
        """An argument that is missing or cannot be read is named, and nothing runs."""
        for command, strings, expected in ARGUMENTS:
            with self.subTest(expected):
                code, text = self.error(raising(AssertionError()), command, strings)
                self.assertEqual(code, "BAD_ARGUMENTS")
                self.assertIn(expected, text)

    def test_given(self) -> None:
        """The function is called with the arguments as keywords, dashes as underscores."""
        seen: list[Any] = []

        def function(max_width: int) -> dict[str, Any]:
            seen.append(max_width)
            return {}

        self.result(function, Need, {b"max-width": b"640", b"_ask": b"1", b"unknown": b"x"})
        self.assertEqual(seen, [640])

    def test_optional_with_default(self) -> None:
        """Optional arguments that are left out have the function's default, or are None.

        A Blob over several keys is put together, whatever the order of the pairs.
        """
        seen: list[Any] = []

        def function(number: int = 200, *, list: Any, blob: bytes = b"-", **others: Any) -> Any:
            seen.append((number, list, blob, others))
            return {"total": 0}

        self.result(function)
        self.result(function, Work, {b"blob": b"", b"number": b"0"})
        self.result(function, Work, {b"blob.2": b"c", b"blob": b"a", b"blob.1": b"b"})
        none = {"colour": None}
        expected = [(200, None, b"-", none), (0, None, b"", none), (200, None, b"abc", none)]
        self.assertEqual(seen, expected)

    def test_unknown_command(self) -> None:
        """A command that this worker does not perform, and another did, is UNHANDLED."""
        performer = Performer({}, MAX_PAYLOAD, wait)
        answer = performer.perform({COMMAND: b"New"}, RunningJob(1, "New", 1))
        self.assertTrue(answer.failed)
        self.assertEqual(unpack(answer.body)[ERROR_CODE], b"UNHANDLED")


class CurrentJobTests(PerformTestCase):
    def test_inside(self) -> None:
        """While a function runs, current_job() is its job."""
        seen: list[Any] = []

        def function(**arguments: Any) -> dict[str, Any]:
            seen.append((current_job().id, current_job().command, current_job().attempt))
            return {"total": 0}

        self.result(function)
        self.assertEqual(seen, [(7, "Work", 1)])

    def test_outside(self) -> None:
        """Where no job runs there is a stand-in that takes progress and says nothing of it."""
        job = current_job()
        job.progress(1, 2, "half")
        self.assertEqual((job.id, job.seconds_left), (0, None))

    def test_one_after_the_other(self) -> None:
        """A performer performs any number of jobs, and none knows of the one before."""
        numbers = itertools.count()
        performer = Performer(
            {b"Work": JobType(Work, lambda **_: {"total": next(numbers)}, Policy())},
            MAX_PAYLOAD,
            wait,
        )
        totals = [
            unpack(performer.perform({COMMAND: b"Work"}, RunningJob(n, "Work", 1)).body)[b"total"]
            for n in range(5)
        ]
        self.assertEqual(totals, [b"0", b"1", b"2", b"3", b"4"])
