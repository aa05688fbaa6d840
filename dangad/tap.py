"""The command line of ``twistd dangad``: its options, and the service that they describe.

Imported by twistd when the command is named; everything heavier is imported by `makeService`,
after twistd has chosen the reactor.
"""

from __future__ import annotations

import os
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.python import usage

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from twisted.application.service import IService

DEFAULT_ENDPOINTS = ("unix:dangad.sock:mode=600", "tcp:7003:interface=127.0.0.1")
DEFAULT_JOBS = ("dangad.examples",)


def whole_number(option: str, least: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least`, for an option's text."""

    def parse(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() else -1
        if number < least:
            raise ValueError(f"--{option} {text}: not a whole number from {least}")
        return number

    parse.coerceDoc = f"A whole number from {least}."  # type: ignore[attr-defined]
    return parse


def seconds(option: str) -> Callable[[str], float]:
    """A parser of seconds, 0 or more, for an option's text."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            raise ValueError(f"--{option} {text}: not a number of seconds")
        return number

    parse.coerceDoc = "A number of seconds."  # type: ignore[attr-defined]
    return parse


def size(option: str) -> Callable[[str], int]:
    """A parser of bytes, for an option's text, which may end in k, M or G (1024 and its powers)."""

    def parse(text: str) -> int:
        units = {"k": 2**10, "m": 2**20, "g": 2**30}
        unit = units.get(text[-1:].lower(), 1)
        digits = text[:-1] if unit > 1 else text
        if not (digits.isascii() and digits.isdigit()) or int(digits) == 0:
            raise ValueError(f"--{option} {text}: not a number of bytes, or one with k, M or G")
        return int(digits) * unit

    parse.coerceDoc = "A number of bytes, or one with k, M or G."  # type: ignore[attr-defined]
    return parse


def _number(option: str, default: int, least: int, doc: str) -> list[Any]:
    """An option that takes a whole number, in the form of `usage.Options.optParameters`."""
    return [option, None, default, doc, whole_number(option, least)]


def _size(option: str, default: int, doc: str) -> list[Any]:
    """One that takes bytes."""
    return [option, None, default, doc, size(option)]


def _seconds(option: str, default: float, doc: str) -> list[Any]:
    """One that takes seconds."""
    return [option, None, default, doc, seconds(option)]


class Options(usage.Options):
    """What ``twistd dangad`` can be told."""

    synopsis = "[options]"
    longdesc = (
        "A job server: takes jobs from clients over AMP, has worker processes perform them, "
        "and gives the results back."
    )

    optParameters = [
        _number("min-workers", 1, 0, "Worker processes that live always."),
        _number("max-workers", os.cpu_count() or 1, 1, "Worker processes that live at most."),
        _number("max-queued", 10_000, 0, "Jobs that wait at most, of all clients."),
        _size("max-queued-bytes", 2**30, "Bytes that their requests have together at most."),
        _number("max-in-flight", 1000, 1, "Unanswered requests for which one connection is read."),
        _number("max-connections", 10_000, 1, "Connections of clients at most."),
        _size("max-payload", 64 * 2**20, "Bytes of the largest request or answer."),
        _number("quarantine-after", 5, 0, "Workers in a row that a command may kill; 0: any."),
        _seconds("quarantine-time", 30.0, "Seconds for which it is refused then."),
        _seconds("drain", 30.0, "Seconds for accepted jobs to end when stopping."),
        ["worker-directory", None, None, "The workers' working directory, if not the server's."],
    ]

    optFlags = [
        ["log-jobs", None, "Log the end of every job, not only of those that fail."],
        ["traceback", None, "Show the traceback of an error at the start."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []
        self["jobs"] = []
        self["worker-path"] = []
        self["worker-env"] = {}

    def opt_listen(self, endpoint: str) -> None:
        """Where clients connect, a Twisted server endpoint; repeatable.

        [default: unix:dangad.sock:mode=600 and tcp:7003:interface=127.0.0.1]
        """
        self["listen"].append(endpoint)

    def opt_jobs(self, module: str) -> None:
        """A module with job types; repeatable. [default: dangad.examples]."""
        self["jobs"].append(module)

    def opt_worker_path(self, directory: str) -> None:
        """A directory in which workers look for modules first; repeatable."""
        self["worker-path"].append(os.path.abspath(directory))

    def opt_worker_env(self, setting: str) -> None:
        """A variable NAME=VALUE for the workers' environment; repeatable."""
        name, equals, value = setting.partition("=")
        if not (name and equals):
            raise usage.UsageError(f"--worker-env {setting}: write NAME=VALUE")
        self["worker-env"][name] = value

    def postOptions(self) -> None:
        """Fill in the defaults of what may be repeated, and compare what belongs together."""
        self["listen"] = self["listen"] or list(DEFAULT_ENDPOINTS)
        self["jobs"] = self["jobs"] or list(DEFAULT_JOBS)
        if self["min-workers"] > self["max-workers"]:
            raise usage.UsageError(
                f"--min-workers {self['min-workers']} is more than "
                f"--max-workers {self['max-workers']}"
            )
        directory = self["worker-directory"]
        if directory is not None:
            self["worker-directory"] = os.path.abspath(directory)
            if not os.path.isdir(directory):
                raise usage.UsageError(f"--worker-directory {directory}: no such directory")

    def parseOptions(self, options: Any = None) -> None:
        """Read the command line; what is wrong with it is said in one line, and ends twistd.

        Twisted's way would be to print all the help, on stdout.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            text = str(error).removeprefix("Parameter type enforcement failed: ")
            _give_up(f"{text}; see twistd dangad --help")


def makeService(options: Options) -> IService:
    """The service that the options describe.

    Ends the program, with one line on stderr, if the endpoints cannot be read or the job
    modules not be served; and has that done too if an endpoint cannot be listened on.
    """
    from dangad.launch import BrokenJobs, JobsCheck, WorkerSettings, default_path

    settings = WorkerSettings(
        jobs=tuple(options["jobs"]),
        max_payload=options["max-payload"],
        path=(*options["worker-path"], *default_path()),
        directory=options["worker-directory"],
        environment={**os.environ, **options["worker-env"]},
    )
    twistd: Any = options.parent or {}
    check = JobsCheck(settings, twistd.get("uid"), twistd.get("gid"))

    from twisted.internet import reactor
    from twisted.internet.endpoints import serverFromString

    from dangad.service import CannotListen, DangadService, Limits

    for description in options["listen"]:
        try:
            serverFromString(reactor, description)
        except Exception as error:  # noqa: BLE001 - each kind of endpoint has its own
            _give_up(f"--listen {description}: {error}")
    try:
        check.wait()
    except BrokenJobs as error:
        if options["traceback"]:
            sys.stderr.write(f"{error.traceback}\n")
        _give_up(str(error))
    if not options["traceback"]:
        _say_in_one_line(CannotListen)
    limits = Limits(**{each.name: options[each.name.replace("_", "-")] for each in fields(Limits)})
    return DangadService(
        reactor,
        options["listen"],
        settings,
        limits,
        log_jobs=bool(options["log-jobs"]),
        own_signals=True,
    )


def _give_up(message: str) -> NoReturn:
    """End the program with status 1 and one line on stderr."""
    raise SystemExit(f"twistd dangad: {message}")


def _say_in_one_line(kind: type[Exception]) -> None:
    """When an exception of this kind ends the program, print its text and no traceback.

    It is raised in the middle of twistd's start, where only it can clean up behind itself.
    """
    usual = sys.excepthook

    def hook(
        raised: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(raised, kind):
            os.write(2, f"twistd dangad: cannot listen on {error}\n".encode())
        else:
            usual(raised, error, trace)

    sys.excepthook = hook
