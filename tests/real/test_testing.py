"""``dangad.testing``, which is for users' tests of their own job types."""

import contextlib
import gc
import inspect
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.task import deferLater
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase, TestCase

import dangad
from dangad import testing
from dangad.client import Disconnected
from dangad.pool.launch import BrokenJobs
from dangad.server.listening import CannotListen
from tests import oddjobs
from tests.realserver import PATIENCE, alive, until

reactor: Any = _reactor


class Unreadable(Exception):
    """An error that a command declares."""


class VeryUnreadable(Unreadable):
    """One that it declares by its base."""


class Add(amp.Command):
    """Add numbers."""

    arguments = [(b"numbers", amp.ListOf(amp.Integer())), (b"unit", amp.Unicode(optional=True))]
    response = [(b"sum", amp.Integer()), (b"unit", amp.Unicode(optional=True))]
    errors = {Unreadable: b"UNREADABLE"}


class Repeat(amp.Command):
    """Say something very often."""

    arguments = [(b"what", dangad.Blob()), (b"times", amp.Integer())]
    response = [(b"all", dangad.Blob())]


class Names(amp.Command):
    """Has the arguments that nobody thinks of."""

    arguments = [
        (name, amp.Unicode())
        for name in b"self function command id attempt max-payload priority deadline".split()
    ]
    response = [(b"names", amp.ListOf(amp.Unicode()))]


class Notice(amp.Command):
    """Wants no answer."""

    arguments = [(b"text", amp.Unicode())]
    requiresAnswer = False


class Tell(amp.Command):
    """Tells what it knows of itself."""

    response = [(b"command", amp.Unicode()), (b"id", amp.Integer()), (b"attempt", amp.Integer())]


class Spell(amp.Command):
    """Spells a word, letter by letter."""

    arguments = [(b"word", amp.Unicode())]
    response = [(b"letters", amp.Integer())]
    errors = {Unreadable: b"UNREADABLE"}


class Say(amp.Command):
    """Sends one part of some size."""

    arguments = [(b"size", amp.Integer())]


class SendLater(amp.Command):
    """Sends a part before and one after a wait."""


class TellLater(Tell):
    """The same, when it is asked for it."""


@dangad.job(Add)
def add(numbers: list[int], unit: str | None) -> dict[str, Any]:
    """Add; but what is sent as a tuple must come as a list."""
    if type(numbers) is not list:
        raise TypeError(type(numbers))
    if unit == "furlong":
        raise VeryUnreadable("who measures in furlongs?")
    return {"sum": sum(numbers), "unit": unit}


@dangad.job(Repeat)
def repeat(what: bytes, times: int) -> dict[str, Any]:
    """Say it."""
    return {"all": what * times}


@dangad.job(Names)
def names(**arguments: str) -> dict[str, Any]:
    """Name them."""
    return {"names": list(arguments)}


@dangad.job(Notice)
def notice(text: str) -> dict[str, Any]:
    """Look at it."""
    return {"": 1 / len(text)} if not text else {}


def _facts() -> dict[str, Any]:
    running = dangad.current_job()
    return {"command": running.command, "id": running.id, "attempt": running.attempt}


@dangad.job(Tell)
def tell() -> dict[str, Any]:
    """Tell, with progress."""
    running = dangad.current_job()
    running.progress(1, 2)
    running.progress(2, 2, "done")
    return _facts()


class Later:
    """What asynchronous jobs wait for."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Any]] = []

    def wait(self) -> Deferred[Any]:
        """Fires when the test fires it."""
        self.waiting.append(Deferred())
        return self.waiting[-1]


later = Later()


@dangad.job(TellLater)
async def tell_later() -> dict[str, Any]:
    """Tell, when a first and a second wait are over."""
    dangad.current_job().progress(0, 1)
    await later.wait()
    await succeed(None)
    dangad.current_job().progress(1, 1)
    return _facts()


@dangad.job(Spell)
def spell(word: str) -> Generator[bytes, None, dict[str, Any]]:
    """Spell, with progress, as far as it goes."""
    for number, letter in enumerate(word, 1):
        dangad.current_job().progress(number, len(word), letter)
        if letter == "?":
            raise Unreadable(word)
        yield letter if letter == "!" else letter.encode()  # type: ignore[misc]
    return {"letters": len(word)}


@dangad.job(Say)
def say(size: int) -> dict[str, Any]:
    """Send it."""
    dangad.current_job().send(bytes(size))
    return {}


@dangad.job(SendLater)
async def send_later() -> dict[str, Any]:
    """Send."""
    running = dangad.current_job()
    running.send(b"before")
    await later.wait()
    if running.wants_chunks:
        running.send(b"after")
    return {}


class Look(amp.Command):
    """With which options was the worker started?"""

    arguments = [(b"names", amp.ListOf(amp.Unicode()))]
    response = [
        (b"variables", amp.ListOf(amp.Unicode())),
        (b"nice", amp.Integer()),
        (b"umask", amp.Integer()),
        (b"limit", amp.Integer()),
        (b"alone", amp.Boolean()),
    ]


OPTIONS_JOBS = f"""
import os, resource
import dangad
from twisted.protocols import amp

IMPORTED_BY = os.getpid()

{inspect.getsource(Look)}

@dangad.job(Look)
def look(names):
    umask = os.umask(0)
    os.umask(umask)
    return {{
        "variables": [os.environ.get(name, "") for name in names],
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "umask": umask,
        "limit": resource.getrlimit(resource.RLIMIT_DATA)[0],
        "alone": IMPORTED_BY == os.getpid(),
    }}
"""
"""A job module that performs this command."""


def undecorated() -> NoReturn:
    """Is no job."""
    raise NotImplementedError


@contextlib.contextmanager
def stderr() -> Any:
    """What is written to stderr meanwhile."""
    text = io.StringIO()
    with mock.patch.object(sys, "stderr", text):
        yield text


class PerformTests(SynchronousTestCase):
    """A job runs in the test's process, serialised, and ends as it would for a client."""

    def test_answer(self) -> None:
        """What comes back is what a client gets: made of bytes, optional values None."""
        answer = testing.perform(add, numbers=(1, 2, 3), unit=None)
        self.assertEqual(answer, {"sum": 6, "unit": None})
        self.assertEqual(testing.perform(add, numbers=[], unit="m"), {"sum": 0, "unit": "m"})
        self.assertEqual(len(testing.perform(repeat, what=b"x" * 70_000, times=10)["all"]), 700_000)

    def test_bad_arguments(self) -> None:
        """Arguments that cannot be sent, or are none of the command's, never reach the function."""
        for arguments, says in (
            ({"numbers": ["one"]}, "'numbers'"),
            ({}, "'numbers' of Add is missing"),
            ({"numbers": [], "number": 1}, "no argument 'number'"),
            ({"numbers": list(range(20_000))}, "65,535"),
        ):
            with self.subTest(says):
                error = self.assertRaises(dangad.BadArguments, testing.perform, add, **arguments)
                self.assertIn(says, str(error))

    def test_declared_error(self) -> None:
        """An error that the command declares comes as the class that is declared."""
        error = self.assertRaises(Unreadable, testing.perform, add, numbers=[], unit="furlong")
        self.assertEqual((type(error), str(error)), (Unreadable, "who measures in furlongs?"))
        self.assertIsInstance(error.__cause__, VeryUnreadable)

    def test_undeclared_error(self) -> None:
        """Any other is `JobFailed`, caused by it, and its traceback is on stderr."""
        with stderr() as text:
            error = self.assertRaises(
                dangad.JobFailed, testing.perform, oddjobs.odd, what="raise", detail=None
            )
        self.assertEqual(str(error), "ZeroDivisionError: by zero")
        self.assertIsInstance(error.__cause__, ZeroDivisionError)
        self.assertIn("oddjobs.py", text.getvalue())
        self.assertTrue(text.getvalue().endswith("ZeroDivisionError: by zero\n"))

    def test_too_large(self) -> None:
        """Requests and answers above the limit, which can be set."""
        runner = testing.JobRunner(max_payload=1000)
        self.assertEqual(runner.perform(repeat, what=b"x", times=900), {"all": b"x" * 900})
        for what, times, says in ((b"x", 1000, "the answer is"), (b"x" * 1000, 0, "the request")):
            with self.subTest(says):
                error = self.assertRaises(
                    dangad.TooLarge, runner.perform, repeat, what=what, times=times
                )
                self.assertIn(says, str(error))

    def test_defaults(self) -> None:
        """An optional argument that is left out is left to the function's default."""

        @dangad.job(Add)
        def add_more(numbers: list[int], unit: str = "inch") -> dict[str, Any]:
            return {"sum": sum(numbers), "unit": unit}

        for unit, expected in (({}, "inch"), ({"unit": None}, "inch"), ({"unit": ""}, "")):
            answer = testing.perform(add_more, numbers=[1], **unit)
            self.assertEqual(answer, {"sum": 1, "unit": expected})

    def test_current_job(self) -> None:
        """The function sees an id and an attempt, and its progress is kept."""
        runner = testing.JobRunner(id=7, attempt=2)
        answer = runner.perform(tell)
        self.assertEqual(answer, {"command": "Tell", "id": 7, "attempt": 2})
        self.assertEqual(runner.progress, [(1, 2, ""), (2, 2, "done")])
        self.assertEqual(dangad.current_job().id, 0)

    def test_all_progress(self) -> None:
        """All that a job reports is told, however fast it comes, and with what fails.

        A generator answers with what it returns; its parts are lost.
        """
        runner = testing.JobRunner()
        self.assertEqual(runner.perform(spell, word="abc"), {"letters": 3})
        with self.assertRaises(Unreadable) as caught:
            runner.perform(spell, word="?")
        self.assertIsInstance(caught.exception.__cause__, Unreadable)
        self.assertIsNot(caught.exception.__cause__, caught.exception)
        self.assertEqual(runner.progress, [(1, 3, "a"), (2, 3, "b"), (3, 3, "c"), (1, 1, "?")])
        self.assertEqual(runner.progress[0].message, "a")

    def test_chunks(self) -> None:
        """Who asks for partial results gets them, in order, those before an error among them."""
        runner = testing.JobRunner(chunks=True)
        self.assertEqual(runner.perform(spell, word="ab"), {"letters": 2})
        self.assertEqual(runner.perform(spell, word="c"), {"letters": 1})
        with self.assertRaises(Unreadable):
            runner.perform(spell, word="d?e")
        self.assertEqual(runner.chunks, [b"a", b"b", b"c", b"d"])
        self.assertEqual(len(runner.progress), 5)

    def test_bad_chunk(self) -> None:
        """A part that is no bytes, or too large, fails as in production."""
        runner = testing.JobRunner(chunks=True, max_payload=1000)
        with stderr() as text, self.assertRaisesRegex(dangad.JobFailed, "a chunk is bytes"):
            runner.perform(spell, word="a!")
        self.assertIn("TypeError", text.getvalue())
        with self.assertRaises(dangad.TooLarge):
            testing.JobRunner(chunks=True, max_payload=100).perform(say, size=3000)

    def test_names(self) -> None:
        """No name of an argument is taken."""
        arguments = dict.fromkeys(
            ("self", "function", "command", "id", "attempt", "max_payload", "priority", "deadline"),
            "",
        )
        self.assertEqual(testing.perform(names, **arguments), {"names": list(arguments)})

    def test_which_command(self) -> None:
        """A function with several commands needs one to be named; others have none."""
        perform: Any = testing.perform
        self.assertEqual(perform(oddjobs.some_bytes, oddjobs.Long, size=1), {"data": b"x"})
        error = self.assertRaises(TypeError, perform, oddjobs.some_bytes, size=1)
        self.assertIn("some_bytes performs Long, Short: name one", str(error))
        error = self.assertRaises(TypeError, perform, add, Repeat, numbers=[])
        self.assertIn("add performs Add, and not", str(error))
        error = self.assertRaises(TypeError, perform, undecorated)
        self.assertIn("decorate it with @dangad.job", str(error))

    def test_no_answer(self) -> None:
        """A command that wants no answer: the test is told all the same how it ended."""
        self.assertEqual(testing.perform(notice, text="hello"), {})
        with stderr():
            self.assertRaises(dangad.JobFailed, testing.perform, notice, text="")

    def test_old_name(self) -> None:
        """`Rehearsal`, as JobRunner was called, still works; only its first use warns."""
        vars(testing).pop("Rehearsal", None)
        for _ in range(2):
            self.assertIs(testing.Rehearsal, testing.JobRunner)
        [warning] = self.flushWarnings([PerformTests.test_old_name])  # given for this file
        self.assertEqual(warning["category"], DeprecationWarning)
        self.assertIn("JobRunner", warning["message"])

    def test_imports(self) -> None:
        """Importing it imports neither a reactor nor pytest."""
        program = (
            "import sys, dangad.testing\n"
            "print({'twisted.internet.reactor', 'pytest', 'pytest_twisted'} & set(sys.modules))"
        )
        said = subprocess.check_output([sys.executable, "-c", program], text=True)
        self.assertEqual(said, "set()\n")


class PerformAsyncTests(SynchronousTestCase):
    """Job functions that give a Deferred, or are ``async def``."""

    def setUp(self) -> None:
        """Nobody waits yet."""
        later.waiting.clear()

    def test_waits(self) -> None:
        """The answer comes when the function's Deferred has fired; until then, it is current."""
        runner = testing.JobRunner(id=7)
        answer = runner.perform_async(tell_later)
        self.assertNoResult(answer)
        self.assertEqual(dangad.current_job().id, 7)
        later.waiting[0].callback(None)
        expected = {"command": "TellLater", "id": 7, "attempt": 1}
        self.assertEqual(self.successResultOf(answer), expected)
        self.assertEqual(runner.progress, [(0, 1, ""), (1, 1, "")])
        self.assertEqual(dangad.current_job().id, 0)

    def test_chunks(self) -> None:
        """An asynchronous job may send, before and after it waits, to who wants it."""
        runner = testing.JobRunner(chunks=True)
        answer = runner.perform_async(send_later)
        self.assertEqual(runner.chunks, [b"before"])
        self.assertNoResult(answer)
        later.waiting.pop().callback(None)
        self.assertEqual(self.successResultOf(answer), {})
        self.assertEqual(runner.chunks, [b"before", b"after"])
        plain = testing.perform_async(send_later)
        later.waiting.pop().callback(None)
        self.assertEqual(self.successResultOf(plain), {})

    def test_fails_later(self) -> None:
        """An error that comes later is like one that comes at once."""
        answer = testing.perform_async(tell_later)
        with stderr() as text:
            later.waiting[0].errback(ZeroDivisionError("too late"))
        error = self.failureResultOf(answer, dangad.JobFailed).value
        self.assertEqual(str(error), "ZeroDivisionError: too late")
        self.assertIsInstance(error.__cause__, ZeroDivisionError)
        self.assertIn("ZeroDivisionError: too late", text.getvalue())
        self.assertEqual(dangad.current_job().id, 0)

    def test_fired_already(self) -> None:
        """If nothing has to be waited for, either will do; synchronous functions, too."""
        with mock.patch.object(later, "wait", return_value=succeed(None)):
            self.assertEqual(testing.perform(tell_later)["command"], "TellLater")
            answer = testing.perform_async(tell_later)
        self.assertEqual(self.successResultOf(answer)["command"], "TellLater")
        answer = testing.perform_async(add, numbers=[1])
        self.assertEqual(self.successResultOf(answer), {"sum": 1, "unit": None})
        self.failureResultOf(testing.perform_async(add, numbers=0), dangad.BadArguments)

    def test_not_fired(self) -> None:
        """`perform` cannot wait: it says who can, and cancels what the function waits for."""
        with stderr() as text:
            error = self.assertRaises(RuntimeError, testing.perform, tell_later)
        self.assertIn("await dangad.testing.perform_async(tell_later, ...)", str(error))
        self.assertTrue(later.waiting[0].called)
        self.assertEqual(text.getvalue(), "")
        self.assertEqual(dangad.current_job().id, 0)

    def test_cancel(self) -> None:
        """Cancelling cancels what the function waits for, with partial results, too."""
        for chunks, function in ((False, tell_later), (True, send_later)):
            answer = testing.JobRunner(chunks=chunks).perform_async(function)
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
            self.assertTrue(later.waiting.pop().called)
            self.assertEqual(dangad.current_job().id, 0)


class ServerTests(TestCase):
    """A real server in the test's reactor; trial sees to it that the reactor is left clean."""

    timeout = PATIENCE

    def folder(self) -> str:
        """A new folder."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return folder.name

    async def test_serves(self) -> None:
        """It performs jobs in other processes, and afterwards nothing is left."""
        async with testing.serve("tests.oddjobs") as server:
            client = await server.connect()
            pid = (await client.run(oddjobs.Odd, what="deferred"))["pid"]
            self.assertNotEqual(pid, os.getpid())
            folder = os.path.dirname(server.endpoint.partition(":")[2])
            self.assertEqual(os.stat(folder).st_mode & 0o777, 0o700)
            self.assertRaises(RuntimeError, getattr, server, "port")
        self.assertFalse(alive(pid))
        self.assertFalse(os.path.exists(folder))
        await client.when_disconnected()
        self.assertRaises(RuntimeError, getattr, server, "endpoint")

    async def test_like_in_process(self) -> None:
        """Every deed ends by the real server as it does in-process, and the same parts are sent.

        Stock AMP reaches it by its endpoint, and by a port if it asked for one.
        """
        cases = "raise/oops/system exit/keyboard interrupt/none/wrong type/extra/deferred/typo"
        runner = testing.JobRunner(chunks=True)
        expected: Any = runner.perform(oddjobs.parts, count=3, size=5)
        async with testing.serve("tests.oddjobs", tcp=True) as server:
            client = await server.connect()
            stream = client.stream(oddjobs.Parts, count=3, size=5)
            self.assertEqual([chunk async for chunk in stream], runner.chunks)
            self.assertEqual(await stream.result(), expected)
            for what in [*cases.split("/"), 3, None, "x" * 70_000]:
                with self.subTest(what), stderr():
                    real = await _end(client.run(oddjobs.Odd, what=what))
                    expected = await _end(testing.perform_async(oddjobs.odd, what=what))
                    self.assertEqual(expected, real)
            for endpoint in (server.endpoint, f"tcp:127.0.0.1:{server.port}"):
                stock = await connectProtocol(clientFromString(reactor, endpoint), amp.AMP())
                answer = await stock.callRemote(oddjobs.Long, size=100_000)
                self.assertEqual(len(answer["data"]), 100_000)

    async def test_options(self) -> None:
        """Workers get the test's path and environment, and what they are given besides."""
        folder = self.folder()
        self.patch(os, "environ", {**os.environ, "ODD_VARIABLE": "overridden"})
        server = testing.serve(
            "tests.oddjobs",
            directory=folder,
            environment={"ODD_VARIABLE": "odd"},
            max_workers=1,
            max_payload=200_000,
        )
        async with server:
            client = await server.connect()
            facts = await client.run(oddjobs.Facts)
            self.assertEqual((facts["cwd"], facts["variable"]), (folder, "odd"))
            self.assertTrue(set(filter(None, sys.path)) <= set(facts["path"]))
            with self.assertRaises(dangad.TooLarge):
                await client.run(oddjobs.Long, size=200_000)

    async def test_all_options(self) -> None:
        """Options of ``twistd dangad`` have their names there; others are refused at once."""
        folder = self.folder()
        Path(folder, "options_jobs.py").write_text(OPTIONS_JOBS)
        self.patch(os, "environ", {**os.environ, "KEPT": "kept", "LOST": "lost"})
        server = testing.serve(
            "options_jobs",
            start="fresh",
            log_jobs="all",
            control=f"unix:{folder}/control",
            worker_path=[folder],
            worker_directory=folder,
            worker_env={"GIVEN": "given"},
            worker_keep_env=["KEPT"],
            worker_nice=3,
            worker_umask=0o27,
            max_memory=2**33,
        )
        async with server:
            client = await server.connect()
            said = await client.run(Look, names=["KEPT", "LOST", "GIVEN"])
            self.assertTrue(os.path.exists(f"{folder}/control"))
        nice = os.getpriority(os.PRIO_PROCESS, 0) + 3
        self.assertEqual(said["variables"], ["kept", "", "given"])
        self.assertEqual([said["nice"], said["umask"], said["limit"]], [nice, 0o27, 2**33])
        for options, error, says in (
            ({"max_wokers": 1}, TypeError, "no option max_wokers"),
            ({"start": "lazy"}, ValueError, "one of fresh, lean, preloaded"),
            ({"start": "fresh", "preload": True}, ValueError, "not with start='fresh'"),
        ):
            with self.assertRaisesRegex(error, says):
                testing.serve("tests.oddjobs", **options)

    async def test_preloaded(self) -> None:
        """Job modules can be preloaded; if this is not possible, the output says why."""
        folder = self.folder()
        Path(folder, "shared_jobs.py").write_text(OPTIONS_JOBS)
        Path(folder, "lonely_jobs.py").write_text(
            f"{OPTIONS_JOBS}\nimport socket\nkept = socket.socket()\n"
        )
        for options in ({"preload": True}, {"start": "preloaded"}):
            async with testing.serve("shared_jobs", worker_path=[folder], **options) as server:
                said = await (await server.connect()).run(Look, names=[])
                self.assertFalse(said["alone"])
        with stderr() as text:
            server = testing.serve("lonely_jobs", worker_path=[folder], preload=True)
            async with server:
                said = await (await server.connect()).run(Look, names=[])
                self.assertTrue(said["alone"])
        self.assertIn("lonely_jobs has left a socket", "\n".join(server.output))
        self.assertIn("lonely_jobs has left a socket", text.getvalue())

    async def test_broken_preloaded(self) -> None:
        """A job module that cannot be preloaded fails the start, with the traceback."""
        folder = self.folder()
        Path(folder, "broken_jobs.py").write_text("1 / 0")
        server = testing.serve("broken_jobs", worker_path=[folder], preload=True)
        with stderr(), self.assertRaises(BrokenJobs) as caught:
            await server.start()
        self.assertIn("ZeroDivisionError: division by zero", str(caught.exception))
        self.assertIn("broken_jobs.py", caught.exception.traceback)

    async def test_broken_jobs(self) -> None:
        """A job module that does not import fails the start, soon, with the reason."""
        server = testing.serve("tests.no_such_jobs", min_workers=2)
        began = reactor.seconds()
        with self.assertRaises(BrokenJobs) as caught:
            await server.start()
        self.assertLess(reactor.seconds() - began, 5 + 1)
        reason = "ModuleNotFoundError: No module named 'tests.no_such_jobs'"
        self.assertIn(reason, str(caught.exception))
        await server.stop()

    async def test_cannot_listen(self) -> None:
        """Neither does a start that fails for another reason leave anything."""
        deep = os.path.join(self.folder(), "long" * 30)
        os.mkdir(deep)
        self.patch(tempfile, "tempdir", deep)
        kind, _ = await _end(testing.serve("tests.oddjobs").start())
        self.assertIs(kind, CannotListen)
        self.assertEqual(os.listdir(deep), [])
        # Twisted does not close a socket that it could not bind, and warns when it is forgotten.
        await deferLater(reactor, 0)
        gc.collect()
        self.flushWarnings()

    async def test_cancelled_start(self) -> None:
        """A start that is cancelled leaves nothing, either; and it may be started again."""
        server = testing.serve("tests.oddjobs")
        starting = server.start()
        pids = [link.pid for link in server.service.pool.processes]
        starting.cancel()
        with self.assertRaises(CancelledError):
            await starting
        self.assertFalse([pid for pid in pids if alive(pid)])
        async with server:
            with self.assertRaises(RuntimeError):
                await server.start()

    async def test_cancelled_stop(self) -> None:
        """A stop that is cancelled goes on."""
        server = await testing.serve("tests.oddjobs").start()
        endpoint = server.endpoint.partition(":")[2]
        stopping = server.stop()
        stopping.cancel()
        with self.assertRaises(CancelledError):
            await stopping
        await until(lambda: not os.path.exists(os.path.dirname(endpoint)))

    async def test_stop_while_busy(self) -> None:
        """Jobs that still run are cancelled, and their clients told."""
        async with testing.serve("tests.oddjobs") as server:
            client = await server.connect()
            mark = os.path.join(self.folder(), "mark")
            answer = client.run(oddjobs.Wait, path="/nowhere", mark=mark)
            await until(lambda: os.path.exists(mark))
        with self.assertRaises(Disconnected):
            await answer

    async def test_output(self) -> None:
        """What workers print is on stderr and in `output`, by server."""
        with stderr() as text:
            async with (
                testing.serve("tests.oddjobs") as server,
                testing.serve("tests.oddjobs") as other,
            ):
                client = await server.connect()
                with self.assertRaises(dangad.JobFailed):
                    await client.run(oddjobs.Odd, what="raise")
                self.assertEqual(server.output[-1], "ZeroDivisionError: by zero")
                self.assertEqual(list(other.output), [])
        self.assertTrue(text.getvalue().endswith("ZeroDivisionError: by zero\n"))


async def _end(answer: Deferred[Any]) -> tuple[type[Exception], str] | list[str]:
    """How a job ended, to compare: an exception by class and text, an answer by its keys."""
    try:
        return list(await answer)
    except Exception as error:  # noqa: BLE001
        return type(error), str(error)
