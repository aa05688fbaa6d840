from __future__ import annotations

import datetime
import decimal
import json
from typing import Any

from twisted.protocols import amp
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase

from dangad import Blob, Large
from dangad.wire.catalogue import (
    Policy,
    all_errors,
    build_argument,
    build_command,
    command_doc,
    describe_argument,
    describe_command,
    write_catalogue,
)


class Json(amp.Argument):
    """A class of somebody's own that derives from AMP's most general one."""

    def toString(self, inObject: object) -> bytes:
        """AMP's call."""
        return json.dumps(inObject).encode()

    def fromString(self, inString: bytes) -> Any:
        """AMP's call."""
        return json.loads(inString)


class Percent(amp.Integer):
    """A class of somebody's own that derives from one that everybody has."""


class BadWidth(Exception):
    """Declared by a command."""


class OutOfInk(Exception):
    """Declared as fatal."""


SAMPLES: list[tuple[amp.Argument, dict[str, Any], Any]] = [
    (amp.Integer(), {"name": "Integer"}, 10**30),
    (amp.Float(), {"name": "Float"}, -0.1),
    (amp.Boolean(), {"name": "Boolean"}, True),
    (amp.Decimal(), {"name": "Decimal"}, decimal.Decimal("1.10")),
    (
        amp.DateTime(),
        {"name": "DateTime"},
        datetime.datetime(2026, 11, 23, 13, 19, 5, 17, tzinfo=amp.utc),
    ),
    (amp.Path(), {"name": "Path"}, FilePath("/srv")),
    (amp.Unicode(), {"name": "Unicode"}, "größer"),
    (amp.String(), {"name": "String"}, b"\0\xff"),
    (Blob(), {"name": "Large", "of": {"name": "String"}}, b"x" * 200_000),
    (
        Large(amp.ListOf(amp.Unicode())),
        {"name": "Large", "of": {"name": "ListOf", "of": {"name": "Unicode"}}},
        ["line"] * 20_000,
    ),
    (
        amp.ListOf(amp.ListOf(amp.Integer())),
        {"name": "ListOf", "of": {"name": "ListOf", "of": {"name": "Integer"}}},
        [[1, 2], [], [3]],
    ),
    (
        amp.AmpList([(b"name", amp.Unicode()), (b"size", amp.Integer(optional=True))]),
        {
            "name": "AmpList",
            "keys": [
                {"key": "name", "type": {"name": "Unicode"}, "optional": False},
                {"key": "size", "type": {"name": "Integer"}, "optional": True},
            ],
        },
        [{"name": "a", "size": 1}, {"name": "b", "size": None}],
    ),
    (Percent(), {"name": "Integer"}, 50),
]
"""Arguments, what the catalogue says of each, and a value that each carries."""


class ArgumentTests(SynchronousTestCase):
    def test_description(self) -> None:
        """Each kind of argument that AMP and dangad have is described, and so are subclasses."""
        for argument, description, _ in SAMPLES:
            self.assertEqual(describe_argument(argument), description)

    def test_round_trip(self) -> None:
        """Whoever has only the description can send and read the values of each kind."""
        for argument, description, value in SAMPLES:
            built = build_argument(json.loads(json.dumps(description)))
            self.assertEqual(describe_argument(built), description)
            for writer, reader in ((argument, built), (built, argument)):
                strings: dict[bytes, bytes] = {}
                objects: dict[str, Any] = {}
                writer.toBox(b"key", strings, {"key": value}, None)
                reader.fromBox(b"key", strings, objects, None)
                self.assertEqual(objects, {"key": value})

    def test_custom(self) -> None:
        """An argument of somebody's own class is bytes to those who do not have the class."""
        description = describe_argument(Json())
        self.assertEqual(description, {"name": "Custom"})
        built = build_argument(description)
        self.assertEqual(built.fromString(Json().toString([1])), b"[1]")
        self.assertEqual(
            describe_argument(amp.ListOf(Json())), {"name": "ListOf", "of": {"name": "Custom"}}
        )

    def test_every_argument_of_amp_is_known(self) -> None:
        """AMP has no argument of a kind that the catalogue has no word for."""
        of_amp = {
            name
            for name, kind in vars(amp).items()
            if isinstance(kind, type) and issubclass(kind, amp.Argument) and name[0] != "_"
        }
        described = {str(description["name"]) for _, description, _ in SAMPLES}
        self.assertEqual(of_amp - described, {"Argument", "Descriptor"})

    def test_optional(self) -> None:
        """What may be left out may be left out by those who have only the description, too."""
        for description in [description for _, description, _ in SAMPLES] + [{"name": "Custom"}]:
            strings: dict[bytes, bytes] = {}
            objects: dict[str, Any] = {}
            built = build_argument(description, optional=True)
            built.toBox(b"key", strings, {}, None)
            built.fromBox(b"key", strings, objects, None)
            self.assertEqual((strings, objects), ({}, {"key": None}))

    def test_unknown_description(self) -> None:
        """A kind of a later version is refused by name."""
        with self.assertRaises(KeyError) as caught:
            build_argument({"name": "Tensor"})
        self.assertEqual(caught.exception.args, ("Tensor",))


class Sum(amp.Command):
    """Add numbers.

    However many they are.
    """

    arguments = [(b"numbers", amp.ListOf(amp.Integer())), (b"first-name", amp.Unicode(True))]
    response = [(b"total", amp.Integer())]
    errors = {BadWidth: b"BAD_WIDTH"}
    fatalErrors = {OutOfInk: b"OUT_OF_INK"}  # noqa: N815 - AMP's name


class Average(Sum):
    response = [(b"average", amp.Float())]
    errors = {ZeroDivisionError: b"NO_NUMBERS"}


class CommandTests(SynchronousTestCase):
    def test_entry(self) -> None:
        """A command's entry has its name, text, arguments, response, errors and policy."""
        entry = describe_command(Sum, Policy(30.0, 1, None, "finish"), "Add numbers.")
        self.assertEqual(
            entry,
            {
                "name": "Sum",
                "doc": "Add numbers.",
                "arguments": [
                    {
                        "key": "numbers",
                        "type": {"name": "ListOf", "of": {"name": "Integer"}},
                        "optional": False,
                    },
                    {"key": "first-name", "type": {"name": "Unicode"}, "optional": True},
                ],
                "response": [{"key": "total", "type": {"name": "Integer"}, "optional": False}],
                "errors": ["BAD_WIDTH", "OUT_OF_INK"],
                "policy": {
                    "time_limit": 30.0,
                    "retries": 1,
                    "max_running": None,
                    "on_disconnect": "finish",
                    "isolate": False,
                    "stoppable": False,
                },
            },
        )

    def test_inherited_errors(self) -> None:
        """A command declares what its base declares, too, fatal errors included."""
        self.assertEqual(
            all_errors(Average),
            {BadWidth: b"BAD_WIDTH", ZeroDivisionError: b"NO_NUMBERS", OutOfInk: b"OUT_OF_INK"},
        )

    def test_built_command(self) -> None:
        """A command made from its entry writes and reads the boxes of the real one."""
        entry = json.loads(json.dumps(describe_command(Sum, Policy(), "Add numbers.")))
        built = build_command(entry)
        self.assertTrue(issubclass(built, amp.Command))
        self.assertEqual((built.commandName, built.__doc__), (b"Sum", "Add numbers."))
        arguments = {"numbers": [1, 2], "first_name": "Ann"}
        self.assertEqual(
            built.makeArguments(dict(arguments), None), Sum.makeArguments(dict(arguments), None)
        )
        box = Sum.makeResponse({"total": 3}, None)
        self.assertEqual(built.parseResponse(box, None), {"total": 3})
        self.assertEqual(describe_command(built, Policy(), "Add numbers."), {**entry, "errors": []})

    def test_catalogue(self) -> None:
        """The catalogue is a JSON document with the commands in the order of their names."""
        entries = [describe_command(command, Policy(), "") for command in (Sum, Average)]
        document = json.loads(write_catalogue(entries))
        self.assertEqual([entry["name"] for entry in document["commands"]], ["Average", "Sum"])
        self.assertEqual(json.loads(write_catalogue([])), {"commands": []})


class DocTests(SynchronousTestCase):
    def test_docstring_of_the_command(self) -> None:
        """A command's own docstring counts first, without its indentation."""
        self.assertEqual(command_doc(Sum, lambda: None), "Add numbers.\n\nHowever many they are.")

    def test_docstring_of_the_function(self) -> None:
        """Else its function's does, and not that of AMP's own class."""

        class Bare(amp.Command):
            pass

        def perform() -> None:
            """Do it."""

        self.assertEqual(command_doc(Bare, perform), "Do it.")
        self.assertEqual(command_doc(Bare, lambda: None), "")
        self.assertEqual(command_doc(amp.Command, perform), "Do it.")
