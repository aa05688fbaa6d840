from __future__ import annotations

import contextlib
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


class ExceptionTests(PerformTestCase):
    def test_undeclared(self) -> None:
        """An undeclared exception is JOB_FAILED, with its type and message."""
        self.assertEqual(
            self.error(raising(ValueError("no such width"))),
            ("JOB_FAILED", "ValueError: no such width"),
        )
        self.assertEqual(self.error(raising(ValueError())), ("JOB_FAILED", "ValueError"))

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

    def test_exceptions_that_end_programs(self) -> None:
        """SystemExit and its like end the job, not the worker."""
        for error, text in (
            (SystemExit(3), "SystemExit: 3"),
            (SystemExit(), "SystemExit"),
            (GeneratorExit(), "GeneratorExit"),
            (StopIteration(1), "StopIteration: 1"),
            (RecursionError("too deep"), "RecursionError: too deep"),
            (MemoryError(), "MemoryError"),
            (
                BaseExceptionGroup("two", [SystemExit(1)]),
                "BaseExceptionGroup: two (1 sub-exception)",
            ),
        ):
            self.assertEqual(self.error(raising(error)), ("JOB_FAILED", text))
        self.assertEqual(
            self.error(raising(KeyboardInterrupt("^C")), Need, {b"max-width": b"1"}),
            ("JOB_FAILED", "KeyboardInterrupt: ^C"),
        )

    def test_endless_recursion(self) -> None:
        """A job that recurses without end fails, and the next is performed."""

        def function(**arguments: Any) -> Any:
            return function()

        code, text = self.error(function)
        self.assertEqual((code, text[:14]), ("JOB_FAILED", "RecursionError"))

    def test_exception_that_cannot_be_shown(self) -> None:
        """An exception whose message raises is reported by its type."""
        for error in (Unspeakable(), Quitting()):
            self.assertEqual(
                self.error(raising(error)),
                ("JOB_FAILED", f"{type(error).__name__}: (its message cannot be shown)"),
            )

    def test_stderr_that_cannot_be_written(self) -> None:
        """A job that closed stderr still gets its error answered."""
        self.stderr.close()
        self.assertEqual(self.error(raising(ValueError("x"))), ("JOB_FAILED", "ValueError: x"))

    def test_long_message(self) -> None:
        """The message of an undeclared exception is bounded."""
        _, text = self.error(raising(ValueError("x" * 10_000_000)))
        self.assertEqual(text, "ValueError: " + "x" * MAX_MESSAGE + "...")

    def test_odd_characters(self) -> None:
        """A message with lone surrogates reaches the client in a readable form."""
        _, text = self.error(raising(ValueError("caf\udce9 größer")))
        self.assertEqual(text, "ValueError: caf\\udce9 größer")

    def test_declared(self) -> None:
        """A declared exception has its declared code and own message, and a line in the log."""
        self.assertEqual(self.error(raising(Declared("too wide"))), ("DECLARED", "too wide"))
        self.assertEqual(self.error(raising(Fatal("out\nof ink"))), ("FATAL", "out\nof ink"))
        self.assertEqual(
            self.stderr.getvalue(),
            "Work ended with DECLARED: too wide\nWork ended with FATAL: out\\nof ink\n",
        )

    def test_derived(self) -> None:
        """An exception that derives from a declared one counts as that, the first that fits."""
        self.assertEqual(self.error(raising(MoreDeclared("x"))), ("DECLARED", "x"))
        self.assertEqual(self.error(raising(FileNotFoundError(2, "gone")))[0], "OS")
        self.assertEqual(self.error(raising(DeclaredLate(5, "x")))[0], "OS")

    def test_declared_beyond_exceptions(self) -> None:
        """Even KeyboardInterrupt may be declared."""
        self.assertEqual(self.error(raising(KeyboardInterrupt("^C"))), ("INTERRUPTED", "^C"))

    def test_long_declared_message(self) -> None:
        """The message of a declared exception is cut to what AMP can send."""
        _, text = self.error(raising(Declared("ü" * 70_000)))
        self.assertTrue(text.startswith("üüü"))
        self.assertTrue(text.endswith("ü..."))
        self.assertGreater(len(text.encode()), 65_000)


class ResponseTests(PerformTestCase):
    def bad(self, result: Any, command: type[amp.Command] = Give) -> str:
        """The text with which this result is refused."""
        code, text = self.error(returning(result), command)
        self.assertEqual(code, "BAD_RESPONSE")
        return text

    def test_good(self) -> None:
        """What the function returns goes back in AMP's form, absent optional values left out."""
        self.assertEqual(
            self.result(returning({"text": "größer", "number": 3, "two_words": "x"}), Give),
            {b"text": "größer".encode(), b"number": b"3", b"two-words": b"x"},
        )
        self.assertEqual(self.result(returning({}), Give), {})
        self.assertEqual(self.result(returning({"text": None}), Give), {})

    def test_own_dict_is_left_alone(self) -> None:
        """The dict that the function returns, perhaps its own store, is not changed."""
        kept = {"total": 5}
        for _ in range(2):
            self.assertEqual(self.result(returning(kept)), {b"total": b"5"})
        self.assertEqual(kept, {"total": 5})

    def test_no_dict(self) -> None:
        """None, or anything else that is no dict, is a bad response."""
        self.assertEqual(self.bad(None), "the job returned None, not a dict of its response")
        self.assertIn("returned a list", self.bad([("text", "x")]))
        self.assertIn("returned a list_iterator", self.bad(iter([])))

    def test_missing(self) -> None:
        """A response without one of its required values is named by it."""
        self.assertEqual(self.bad({}, Work), "the job returned no 'total'")

    def test_undeclared_key(self) -> None:
        """A value that the command does not declare is refused, bytes as keys included."""
        self.assertIn("returned 'size', which its command does not", self.bad({"size": 1}))
        self.assertIn("returned b'text', which its command does", self.bad({b"text": "x"}))
        self.assertIn("returned 'two-words', which", self.bad({"two-words": "x"}))

    def test_wrong_types(self) -> None:
        """A value of a wrong type is named, with its type and the declared one."""
        for result, text in (
            ({"text": b"x"}, "'text' is a bytes, where Unicode takes a str"),
            ({"bytes": "x"}, "'bytes' is a str, where String takes bytes"),
            ({"number": "3"}, "'number' is a str, where Integer takes a whole number"),
            ({"number": 2.7}, "'number' is a float, where Integer takes a whole number"),
            ({"number": 10**5000}, "'number' is a int, which is no Integer: ValueError"),
            ({"flag": "no"}, "'flag' is a str, where Boolean takes True or False"),
            ({"list": ["a", None]}, "'list'[1] is None, where Unicode takes a str"),
            ({"list": "abc"}, "'list' is a str, where ListOf takes a list"),
            ({"blob": "x"}, "'blob' is a str, where String takes bytes"),
        ):
            with self.subTest(text):
                self.assertIn(text, self.bad(result))
        self.assertIn("'total' is None, where Integer takes", self.bad({"total": None}, Work))

    def test_none_as_a_value(self) -> None:
        """An argument class that has a form for None may carry it."""
        self.assertEqual(self.result(returning({"value": None}), GiveAny), {b"value": b"null"})
        self.assertEqual(self.bad({}, GiveAny), "the job returned no 'value'")

    def test_longer_than_one_value(self) -> None:
        """A value over AMP's limit is refused with the advice how to declare it."""
        self.assertEqual(
            self.bad({"text": "x" * 65_536}),
            "'text' is 65536 bytes long, and AMP takes 65,535 in one value: declare it as "
            "dangad.Blob() or dangad.Large(...)",
        )
        self.result(returning({"text": "x" * 65_535}), Give)

    def test_blob(self) -> None:
        """A Blob may be longer than one value."""
        pairs = self.result(returning({"blob": b"x" * 65_536}), Give)
        self.assertEqual(pairs, {b"blob": b"x" * 65_535, b"blob.1": b"x"})

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


class ArgumentTests(PerformTestCase):
    def bad(self, command: type[amp.Command] = Work, **strings: bytes) -> str:
        """The text with which these arguments are refused."""
        pairs = {key.replace("_", "-").encode(): value for key, value in strings.items()}
        code, text = self.error(returning({"total": 0}), command, pairs)
        self.assertEqual(code, "BAD_ARGUMENTS")
        return text

    def test_given(self) -> None:
        """The function is called with the arguments as keywords, dashes as underscores."""
        seen: list[Any] = []

        def function(max_width: int) -> dict[str, Any]:
            seen.append(max_width)
            return {}

        self.result(function, Need, {b"max-width": b"640", b"_ask": b"1", b"unknown": b"x"})
        self.assertEqual(seen, [640])

    def test_optional(self) -> None:
        """Optional arguments that the client leaves out are None."""
        seen: dict[str, Any] = {}

        def function(**arguments: Any) -> dict[str, Any]:
            seen.update(arguments)
            return {"total": 0}

        self.result(function, Work, {b"number": b"5"})
        self.assertEqual(seen, {"number": 5, "colour": None, "list": None, "blob": None})

    def test_optional_with_default(self) -> None:
        """Those for which the function has a default are left to it, and the others are None."""
        seen: list[Any] = []

        def function(number: int = 200, *, list: Any, blob: bytes = b"-", **others: Any) -> Any:
            seen.append((number, list, blob, others))
            return {"total": 0}

        self.result(function)
        self.result(function, Work, {b"blob": b"", b"number": b"0"})
        self.assertEqual(
            seen, [(200, None, b"-", {"colour": None}), (0, None, b"", {"colour": None})]
        )
        self.assertIn("'number' is no Integer", self.bad(number=b""))

    def test_missing(self) -> None:
        """A required argument that is missing is named."""
        self.assertEqual(self.bad(Need), "argument 'max-width' is missing")

    def test_unparsable(self) -> None:
        """An argument that cannot be read is named, with its type and why, and nothing runs."""
        self.assertIn("argument 'number' is no Integer: ValueError", self.bad(number=b"five"))
        self.assertIn(
            "argument 'list' is no AmpList: KeyError: b'name'", self.bad(list=b"\0\1x\0\0\0\0")
        )
        self.assertIn("argument 'max-width' is no Integer", self.bad(Need, max_width=b""))

    def test_long_number(self) -> None:
        """A number of 5,000 digits, which Python refuses to read, is a bad argument."""
        text = self.bad(number=b"9" * 5000)
        self.assertIn("argument 'number' is no Integer: ValueError: Exceeds the limit", text)

    def test_own_argument_classes(self) -> None:
        """A custom argument class that fails in any way means a bad argument, not a missing one."""
        self.assertIn("argument 'colour' is no Colour: KeyError: b'blue'", self.bad(colour=b"blue"))
        self.assertIn("argument 'colour' is no Colour: SystemExit: no", self.bad(colour=b"exit"))

    def test_blob(self) -> None:
        """A Blob over several keys is put together, whatever the order of the pairs."""
        seen: list[Any] = []

        def function(blob: bytes, **arguments: Any) -> dict[str, Any]:
            seen.append(blob)
            return {"total": 0}

        self.result(function, Work, {b"blob.2": b"c", b"blob": b"a", b"blob.1": b"b"})
        self.assertEqual(seen, [b"abc"])

    def test_unknown_command(self) -> None:
        """A command that this worker does not perform, and another did, is UNHANDLED."""
        performer = Performer({}, MAX_PAYLOAD, wait)
        answer = performer.perform({COMMAND: b"New"}, RunningJob(1, "New", 1))
        self.assertTrue(answer.failed)
        self.assertEqual(unpack(answer.body)[ERROR_CODE], b"UNHANDLED")


class AsynchronousTests(PerformTestCase):
    def test_deferred(self) -> None:
        """A function may return a Deferred of its response."""
        self.assertEqual(self.result(returning(succeed({"total": 5}))), {b"total": b"5"})

    def test_failed_deferred(self) -> None:
        """The failure of a Deferred is the job's, declared or not."""
        self.assertEqual(self.error(lambda **_: fail(Declared("x"))), ("DECLARED", "x"))
        self.assertEqual(
            self.error(lambda **_: fail(ValueError("x"))), ("JOB_FAILED", "ValueError: x")
        )
        self.assertIn("ValueError: x", self.stderr.getvalue())
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_bad_response_of_a_deferred(self) -> None:
        """What a Deferred fires with is checked like what a function returns."""
        self.assertEqual(self.error(lambda **_: succeed(None))[0], "BAD_RESPONSE")

    def test_coroutine(self) -> None:
        """A function may be async def, and wait for Deferreds."""

        async def function(**arguments: Any) -> dict[str, Any]:
            return {"total": await succeed(5)}

        self.assertEqual(self.result(function), {b"total": b"5"})

    def test_coroutine_that_raises(self) -> None:
        """What an async def function raises is treated as what any function raises."""
        for error, expected in (
            (Declared("x"), ("DECLARED", "x")),
            (ValueError("x"), ("JOB_FAILED", "ValueError: x")),
            (SystemExit(3), ("JOB_FAILED", "SystemExit: 3")),
            (GeneratorExit(), ("JOB_FAILED", "GeneratorExit")),
            (KeyboardInterrupt("^C"), ("INTERRUPTED", "^C")),
        ):

            async def function(error: BaseException = error, **arguments: Any) -> None:
                raise error

            with self.subTest(repr(error)):
                self.assertEqual(self.error(function), expected)


class CurrentJobTests(PerformTestCase):
    def test_inside(self) -> None:
        """While a function runs, current_job() is its job."""
        seen: list[Any] = []

        def function(**arguments: Any) -> dict[str, Any]:
            seen.append((current_job().id, current_job().command, current_job().attempt))
            return {"total": 0}

        self.result(function)
        self.assertEqual(seen, [(7, "Work", 1)])

    def test_inside_async(self) -> None:
        """So it is in an async def function."""

        async def function(**arguments: Any) -> dict[str, Any]:
            await succeed(None)
            return {"total": current_job().id}

        self.assertEqual(self.result(function), {b"total": b"7"})

    def test_outside(self) -> None:
        """Where no job runs there is a stand-in that takes progress and says nothing of it."""
        job = current_job()
        job.progress(1, 2, "half")
        self.assertEqual((job.id, job.seconds_left), (0, None))

    def test_after(self) -> None:
        """After a job, however it ended, no job is current; `perform` of these tests sees to it."""
        for function in (raising(SystemExit(1)), returning(None), returning({"total": 1})):
            with contextlib.suppress(AssertionError):
                self.perform(function)
            self.assertIs(current_job(), NO_JOB)

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
