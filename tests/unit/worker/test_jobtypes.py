from __future__ import annotations

import functools
import importlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from dangad import BadJobType, Blob, Large, job
from dangad.wire import boxes, values
from dangad.wire.catalogue import Policy
from dangad.worker.jobtypes import catalogue_of, find_job_types, job_types_of

if TYPE_CHECKING:
    from collections.abc import Callable


class Resize(amp.Command):
    """Make an image smaller."""

    arguments = [(b"image", Blob()), (b"max-width", amp.Integer(optional=True))]
    response = [(b"image", Blob())]


class Purge(amp.Command):
    commandName = b"cache.purge"


def resize(image: bytes, max_width: int | None) -> dict[str, Any]:
    """Something that performs Resize."""
    return {"image": image[:max_width]}


class DecoratorTests(SynchronousTestCase):
    def test_function_stays_itself(self) -> None:
        """A decorated function can be called as before."""

        @job(Resize)
        def shrink(image: bytes, max_width: int | None = None) -> dict[str, Any]:
            return {"image": image[:max_width]}

        self.assertEqual(shrink(b"abc", max_width=2), {"image": b"ab"})
        (job_type,) = job_types_of(shrink)
        self.assertIs(job_type.function, shrink)
        self.assertEqual((job_type.name, job_type.policy), (b"Resize", Policy()))

    def test_policy(self) -> None:
        """What the decorator is told is the policy, of async functions, too."""

        @job(Purge, time_limit=1.5, retries=2, max_running=3, on_disconnect="finish")
        async def purge() -> dict[str, Any]:
            return {}

        (job_type,) = job_types_of(purge)
        self.assertEqual(job_type.policy, Policy(1.5, 2, 3, "finish"))
        self.assertEqual(job_type.name, b"cache.purge")

    def test_several_commands(self) -> None:
        """One function may perform several commands."""

        @job(Resize)
        @job(Purge)
        def anything(**arguments: Any) -> dict[str, Any]:
            return {}

        self.assertEqual({each.command for each in job_types_of(anything)}, {Resize, Purge})

    def test_undecorated(self) -> None:
        """A function that was not decorated performs nothing."""
        self.assertEqual(job_types_of(resize), ())


KEY = b"k" * 250
TOO_LONG = "has 250 characters; that of a Large or Blob has at most 249"
NOT_ASCII = "is not 1 to 255 characters of ASCII"
COMMANDS: tuple[tuple[Any, str], ...] = (
    ("Resize", "@job takes a subclass of amp.Command, not 'Resize'"),
    (resize, "@job takes a subclass of amp.Command, not <function resize"),
    (Purge(), "@job takes a subclass of amp.Command"),
    (
        type("Mine", (amp.Command,), {"commandName": b"dangad.Mine"}),
        "names that begin with 'dangad.' are dangad's own",
    ),
    (type("Odd", (amp.Command,), {"commandName": "größe".encode()}), "is not ASCII"),
)
"""What @job does not take, and why."""
KEYS: tuple[tuple[list[tuple[bytes, Any]], str], ...] = (
    ([(b"_priority", amp.String())], "begins with an underscore"),
    ([("größe".encode(), amp.String())], NOT_ASCII),
    ([(b"", amp.String())], NOT_ASCII),
    ([(b"k" * 256, amp.String())], NOT_ASCII),
    # A key of a large value needs room for its further keys, in lists, too.
    ([(KEY, Blob())], TOO_LONG),
    ([(b"rows", Large(amp.AmpList([(KEY, Blob())])))], TOO_LONG),
    ([(b"max-width", amp.Integer()), (b"max_width", amp.Integer())], "two"),
    ([(b"file", amp.Descriptor())], "a descriptor (b'file')"),
    ([(b"size", amp.Integer)], "not an argument of AMP"),  # the parentheses are forgotten
)
"""Keys with which a command is not taken, coming or going, and why."""
POLICIES: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("time_limit", (0, -1, float("nan"), float("inf"), "5"), "time_limit must be a number of sec"),
    ("retries", (-1, 1.5, 1.0, float("inf"), "1", None), "retries must be a whole number from 0"),
    ("max_running", (0, -1, 0.5, "2"), "max_running must be a whole number from 1"),
    ("on_disconnect", ("ignore", None, ["cancel"]), 'on_disconnect must be "cancel" or "finish"'),
)
"""Values that a policy does not take, and why."""


class Service:
    """Has a method."""

    def purge(self) -> None:
        """Can be called, and not be marked."""


def by_position(image: bytes, max_width: int | None, /) -> None:
    """Takes no keywords."""


GOT = "cannot take the arguments of Resize (image, max_width): got an unexpected keyword"
FUNCTIONS: tuple[tuple[type[amp.Command], Any, str], ...] = (
    (Resize, lambda image: {}, GOT),
    (Resize, lambda image, max_width, colour: {}, "missing a required argument: 'colour'"),
    (Resize, by_position, "cannot take the arguments"),
    (Purge, lambda image: {}, "of Purge (none): missing"),
    (Resize, 5, "5 cannot take the arguments"),
    (Resize, max, "max cannot take the arguments"),
    (Resize, functools.partial(lambda image: {}, image=b""), "functools.partial"),
    (Purge, Service().purge, "cannot be decorated"),
    # One may have parameters of its own if they have defaults, and take any keyword.
    (Resize, lambda image, max_width, quality=80: {}, ""),
    (Resize, lambda **arguments: {}, ""),
    (Resize, lambda *, max_width, image: {}, ""),
    (Resize, functools.partial(resize, max_width=None), ""),
)
"""Functions that are not taken for a command, and why; "" are good ones."""


class RefusalTests(SynchronousTestCase):
    """What is wrong is said when the function is decorated."""

    def refused(self, text: str, decorate: Callable[[], object]) -> None:
        """See that this is refused with this text."""
        with self.subTest(text):
            error = self.assertRaises(BadJobType, decorate)
            self.assertIn(text, str(error))

    def test_commands(self) -> None:
        """What is no command, or has a name or keys that cannot be, is refused."""
        for command, text in COMMANDS:
            self.refused(text, functools.partial(job, command))
        for place in ("arguments", "response"):
            for keys, text in KEYS:
                odd = type("Odd", (amp.Command,), {place: keys})
                self.refused(text, functools.partial(job, odd))
        fits = {"arguments": [(KEY, amp.String()), (KEY[1:], Blob())]}
        job(type("Fits", (amp.Command,), fits))
        self.assertEqual(len(boxes.pair(b"k" * values.MAX_LARGE_KEY + b".99999", b"")), 2 + 255 + 2)

    def test_policies(self) -> None:
        """A policy that cannot be is refused."""
        for name, wrong, text in POLICIES:
            for value in wrong:
                self.refused(f"Purge: {text}", functools.partial(job, Purge, **{name: value}))

    def test_functions(self) -> None:
        """A function that cannot be called with a command's arguments is refused."""
        for command, function, text in FUNCTIONS:
            if text:
                self.refused(text, functools.partial(job(command), function))
            else:
                self.assertIs(job(command)(function), function)


HEADER = """\
from twisted.protocols import amp
from dangad import job

class Purge(amp.Command):
    pass

class Refresh(amp.Command):
    pass

"""
PURGE = """\
@job(Purge)
def purge():
    return {}
"""
ODD = """\
from unittest import mock

class Proxy:
    def __getattr__(self, name):
        raise RuntimeError("working outside of context")

    def __call__(self):
        pass

proxy, anything, call = Proxy(), mock.Mock(), mock.call

"""


REFRESH = "@job(Refresh)\ndef refresh():\n    return {}\n"
IMPORTING = "from jobs_original import purge\nalias = purge\n"
GROUP = "group:dangad.jobs"
MODULES: tuple[tuple[dict[str, str], list[str], set[bytes] | str], ...] = (
    ({}, [], set()),
    ({"jobs_both": PURGE + "\n" + REFRESH}, ["jobs_both"], {b"Purge", b"Refresh"}),
    # What a module has imported counts there, too, and once if it is found twice.
    (
        {"jobs_original": PURGE, "jobs_importing": IMPORTING},
        ["jobs_importing", "jobs_original", "jobs_original"],
        {b"Purge"},
    ),
    ({"jobs_odd": ODD + PURGE}, ["jobs_odd"], {b"Purge"}),  # mocks answer to any name
    (
        {"jobs_none": "def purge():\n    return {}\n"},
        ["jobs_none"],
        "jobs_none has no job types: decorate a function with @dangad.job",
    ),
    (
        {"jobs_one": PURGE, "jobs_two": "from jobs_one import Purge\n" + PURGE},
        ["jobs_one", "jobs_two"],
        "jobs_two.purge and jobs_one.purge both perform Purge",
    ),
    ({"jobs_twice": "@job(Purge, retries=1)\n" + PURGE}, ["jobs_twice"], "both perform Purge"),
    ({"jobs_same": PURGE, "jobs_name": PURGE}, ["jobs_same", "jobs_name"], "both perform Purge"),
    # Installed packages may offer modules, here those that begin with "offered".
    ({}, [GROUP], "group:dangad.jobs: no installed package offers job modules in this group"),
    ({"offered_1": PURGE, "offered_2": REFRESH}, [GROUP], {b"Purge", b"Refresh"}),
    ({"offered_1": PURGE}, ["offered_1", GROUP], {b"Purge"}),
)
"""Modules, which of them are asked for, and what is found there, or what is wrong."""


class DiscoveryTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a folder for modules, and have Python look there."""
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.patch(sys, "path", [str(self.folder), *sys.path])
        self.written: list[str] = []
        self.addCleanup(lambda: [sys.modules.pop(name, None) for name in self.written])

    def write(self, name: str, body: str) -> str:
        """Make a module of this name, which is returned."""
        (self.folder / f"{name}.py").write_text(HEADER + body)
        self.written.append(name)
        importlib.invalidate_caches()
        return name

    def test_modules(self) -> None:
        """The decorated functions of modules are found under their commands' names."""
        for modules, asked, expected in MODULES:
            with self.subTest(asked=asked):
                self.doCleanups()
                self.setUp()
                for name, body in modules.items():
                    self.write(name, body)
                    if name.startswith("offered"):
                        self.install(name.replace("_", ""), name)
                if isinstance(expected, str):
                    error = self.assertRaises(BadJobType, find_job_types, asked)
                    self.assertIn(expected, str(error))
                else:
                    found = find_job_types(asked)
                    self.assertEqual(set(found), expected)
                    names = {each.function.__name__.encode().title() for each in found.values()}
                    self.assertEqual(names, expected)

    def test_missing_module(self) -> None:
        """A module that does not exist, or fails on import, raises what Python raises."""
        with self.assertRaises(ModuleNotFoundError):
            find_job_types(["jobs_that_nobody_wrote"])
        self.write("jobs_broken", "1 / 0\n")
        with self.assertRaises(ZeroDivisionError):
            find_job_types(["jobs_broken"])

    def install(self, project: str, *modules: str) -> None:
        """Make it look as if a package that offers these modules had been installed."""
        metadata = self.folder / f"{project}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n"
        )
        points = "\n".join(f"{name} = {name}" for name in modules)
        (metadata / "entry_points.txt").write_text(f"[dangad.jobs]\n{points}\n")
        importlib.invalidate_caches()

    def test_catalogue(self) -> None:
        """The catalogue that a worker announces describes all its job types, ready for JSON."""
        self.write(
            "jobs_described", '@job(Purge, time_limit=5)\ndef purge():\n    """Empty it."""\n'
        )
        document = json.loads(catalogue_of(find_job_types(["jobs_described"]).values()))
        (entry,) = document["commands"]
        self.assertEqual((entry["name"], entry["doc"]), ("Purge", "Empty it."))
        self.assertEqual(entry["policy"]["time_limit"], 5)
        self.assertEqual(Policy(**entry["policy"]), Policy(time_limit=5))
