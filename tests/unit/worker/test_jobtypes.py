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
        """What the decorator is told about a job type is its policy."""

        @job(Purge, time_limit=1.5, retries=2, max_running=3, on_disconnect="finish")
        def purge() -> dict[str, Any]:
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

    def test_async_functions(self) -> None:
        """A function that is async def may be a job type like any other."""

        @job(Purge)
        async def purge() -> dict[str, Any]:
            return {}

        self.assertEqual(len(job_types_of(purge)), 1)

    def test_undecorated(self) -> None:
        """A function that was not decorated performs nothing."""
        self.assertEqual(job_types_of(resize), ())


class CommandCheckTests(SynchronousTestCase):
    def refused(self, command: Any, text: str) -> None:
        """See that `command` is refused with this text."""
        with self.assertRaises(BadJobType) as caught:
            job(command)
        self.assertIn(text, str(caught.exception))

    def refused_keys(self, *keys: tuple[bytes, Any], text: str) -> None:
        """See that a command with these keys, coming or going, is refused with this text."""
        for place in ("arguments", "response"):
            with self.subTest(place):
                self.refused(type("Odd", (amp.Command,), {place: list(keys)}), text)

    def test_no_command(self) -> None:
        """What is not a command class is refused, the forgotten argument of @job included."""
        self.refused("Resize", "@job takes a subclass of amp.Command, not 'Resize'")
        self.refused(resize, "@job takes a subclass of amp.Command, not <function resize")
        self.refused(Purge(), "@job takes a subclass of amp.Command")

    def test_names_of_dangad(self) -> None:
        """A name that begins like dangad's own commands is refused."""
        mine = type("Mine", (amp.Command,), {"commandName": b"dangad.Mine"})
        self.refused(mine, "names that begin with 'dangad.' are dangad's own")

    def test_name_that_is_not_ascii(self) -> None:
        """A name that is not ASCII is refused."""
        odd = type("Odd", (amp.Command,), {"commandName": "größe".encode()})
        self.refused(odd, "is not ASCII")

    def test_reserved_key(self) -> None:
        """A key that begins with an underscore, which AMP and dangad reserve, is refused."""
        self.refused_keys((b"_priority", amp.String()), text="begins with an underscore")

    def test_odd_key(self) -> None:
        """A key that is not ASCII, or is no length that AMP can send, is refused."""
        for key in ("größe".encode(), b"", b"k" * 256):
            self.refused_keys((key, amp.String()), text="is not 1 to 255 characters of ASCII")

    def test_long_key_of_a_blob(self) -> None:
        """A key without room for the further keys of a large value is refused, in lists, too."""
        key, text = b"k" * 250, "has 250 characters; that of a Large or Blob has at most 249"
        self.refused_keys((key, Blob()), text=text)
        self.refused_keys((b"rows", Large(amp.AmpList([(key, Blob())]))), text=text)
        job(type("Fits", (amp.Command,), {"arguments": [(key, amp.String()), (key[1:], Blob())]}))
        self.assertEqual(len(boxes.pair(b"k" * values.MAX_LARGE_KEY + b".99999", b"")), 2 + 255 + 2)

    def test_one_name_for_two_keys(self) -> None:
        """Two keys that would be one keyword argument are refused."""
        self.refused_keys((b"max-width", amp.Integer()), (b"max_width", amp.Integer()), text="two")

    def test_descriptor(self) -> None:
        """A file descriptor cannot be passed on to a worker, and is refused."""
        self.refused_keys((b"file", amp.Descriptor()), text="a descriptor (b'file')")

    def test_class_in_place_of_an_argument(self) -> None:
        """The forgotten parentheses after an argument's class are found."""
        self.refused_keys((b"size", amp.Integer), text="not an argument of AMP")


class PolicyCheckTests(SynchronousTestCase):
    def refused(self, text: str, **policy: Any) -> None:
        """See that a policy is refused with this text."""
        with self.subTest(str(policy)), self.assertRaises(BadJobType) as caught:
            job(Purge, **policy)
        self.assertIn(text, str(caught.exception))

    def test_time_limit(self) -> None:
        """A time limit that is no positive number of seconds is refused."""
        for limit in (0, -1, float("nan"), float("inf"), "5"):
            self.refused("Purge: time_limit is a number of seconds", time_limit=limit)

    def test_retries(self) -> None:
        """A number of retries that is not whole, or negative, is refused."""
        for retries in (-1, 1.5, 1.0, float("inf"), "1", None):
            self.refused("Purge: retries is a whole number from 0", retries=retries)

    def test_max_running(self) -> None:
        """A bound on running jobs that would let none run is refused."""
        for most in (0, -1, 0.5, "2"):
            self.refused("Purge: max_running is a whole number from 1", max_running=most)

    def test_on_disconnect(self) -> None:
        """A word for what happens at a disconnect that is neither of the two is refused."""
        for word in ("ignore", None, ["cancel"]):
            self.refused('Purge: on_disconnect is "cancel" or "finish"', on_disconnect=word)


class SignatureCheckTests(SynchronousTestCase):
    def refused(self, function: Any, text: str, command: type[amp.Command] = Resize) -> None:
        """See that `function` is refused with this text."""
        with self.assertRaises(BadJobType) as caught:
            job(command)(function)
        self.assertIn(text, str(caught.exception))

    def test_missing_parameter(self) -> None:
        """A function that does not take one of the command's arguments is refused by name."""
        self.refused(
            lambda image: {},
            "cannot take the arguments of Resize (image, max_width): got an unexpected keyword",
        )

    def test_parameter_too_many(self) -> None:
        """A function that wants an argument which the command does not have is refused."""
        self.refused(lambda image, max_width, colour: {}, "missing a required argument: 'colour'")

    def test_positional_only(self) -> None:
        """A function that takes its arguments by position alone is refused."""

        def by_position(image: bytes, max_width: int | None, /) -> None:
            pass

        self.refused(by_position, "cannot take the arguments")

    def test_defaults_and_keywords(self) -> None:
        """A function may have parameters of its own if they have defaults, and take any keyword."""
        functions: list[Callable[..., Any]] = [
            lambda image, max_width, quality=80: {},
            lambda **arguments: {},
            lambda *, max_width, image: {},
        ]
        for function in functions:
            self.assertIs(job(Resize)(function), function)

    def test_no_arguments(self) -> None:
        """A command without arguments wants a function that can be called without any."""
        self.refused(lambda image: {}, "of Purge (none): missing", command=Purge)

    def test_not_a_function(self) -> None:
        """What cannot be called, or tells nothing of its parameters, is refused."""
        self.refused(5, "5 cannot take the arguments")
        self.refused(max, "max cannot take the arguments")

    def test_partial(self) -> None:
        """What can be called but is no plain function is taken if it can be marked."""
        partial = functools.partial(resize, max_width=None)
        self.assertIs(job(Resize)(partial), partial)
        self.refused(functools.partial(lambda image: {}, image=b""), "functools.partial")

    def test_bound_method(self) -> None:
        """A bound method cannot be marked, and says so."""

        class Service:
            def purge(self) -> None:
                pass

        self.refused(Service().purge, "cannot be decorated", command=Purge)


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

    def refused(self, *modules: str) -> str:
        """The text with which these modules are refused."""
        with self.assertRaises(BadJobType) as caught:
            find_job_types(modules)
        return str(caught.exception)

    def test_by_name(self) -> None:
        """The decorated functions of a module are found under their commands' names."""
        module = self.write(
            "jobs_by_name", PURGE + "\n@job(Refresh)\ndef refresh():\n    return {}\n"
        )
        found = find_job_types([module])
        self.assertEqual(set(found), {b"Purge", b"Refresh"})
        self.assertEqual(found[b"Purge"].function.__name__, "purge")

    def test_imported_functions(self) -> None:
        """A function that a module has imported counts there, too, and once if found twice."""
        self.write("jobs_original", PURGE)
        self.write("jobs_importing", "from jobs_original import purge\nalias = purge\n")
        found = find_job_types(["jobs_importing", "jobs_original", "jobs_original"])
        self.assertEqual(set(found), {b"Purge"})

    def test_no_job_types(self) -> None:
        """A module without any decorated function is refused by name, whatever else it has."""
        self.write("jobs_none", "def purge():\n    return {}\n")
        self.assertEqual(
            self.refused("jobs_none"),
            "jobs_none has no job types: decorate a function with @dangad.job",
        )

    def test_two_functions_for_one_command(self) -> None:
        """Two functions that perform one command are refused, with the names of both."""
        self.write("jobs_one", PURGE)
        self.write("jobs_two", "from jobs_one import Purge\n" + PURGE)
        self.assertEqual(
            self.refused("jobs_one", "jobs_two"),
            "jobs_two.purge and jobs_one.purge both perform Purge",
        )

    def test_one_function_twice_for_one_command(self) -> None:
        """One function that was decorated twice for one command is refused: which policy counts?"""
        self.write("jobs_twice", "@job(Purge, retries=1)\n" + PURGE)
        self.assertIn("both perform Purge", self.refused("jobs_twice"))

    def test_same_name_of_two_commands(self) -> None:
        """Two commands of the same name are one on the wire, and refused."""
        self.write("jobs_same", PURGE)
        self.write("jobs_name", PURGE)
        self.assertIn("both perform Purge", self.refused("jobs_same", "jobs_name"))

    def test_odd_attributes(self) -> None:
        """A module may hold mocks, proxies and other things that answer to any name."""
        module = self.write("jobs_odd", ODD + PURGE)
        self.assertEqual(set(find_job_types([module])), {b"Purge"})

    def test_missing_module(self) -> None:
        """A module that does not exist, or fails on import, raises what Python raises."""
        with self.assertRaises(ModuleNotFoundError):
            find_job_types(["jobs_that_nobody_wrote"])
        self.write("jobs_broken", "1 / 0\n")
        with self.assertRaises(ZeroDivisionError):
            find_job_types(["jobs_broken"])

    def test_no_modules(self) -> None:
        """No modules have no job types."""
        self.assertEqual(find_job_types([]), {})

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

    def test_entry_points(self) -> None:
        """The modules that installed packages offer are found by the name of their group."""
        self.write("jobs_offered", PURGE)
        self.write("jobs_also", "@job(Refresh)\ndef refresh():\n    return {}\n")
        self.install("offering", "jobs_offered")
        self.install("also", "jobs_also")
        self.assertEqual(set(find_job_types(["group:dangad.jobs"])), {b"Purge", b"Refresh"})

    def test_module_and_entry_point(self) -> None:
        """A module may be named and offered at once."""
        self.write("jobs_both_ways", PURGE)
        self.install("offering", "jobs_both_ways")
        found = find_job_types(["jobs_both_ways", "group:dangad.jobs"])
        self.assertEqual(set(found), {b"Purge"})

    def test_no_entry_points(self) -> None:
        """If no installed package offers job types, the group is refused like an empty module."""
        self.assertIn("group:dangad.jobs has no job types", self.refused("group:dangad.jobs"))

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
