"""The example calls of ``dangad dev``: what they give is of the command's types."""

from __future__ import annotations

import shlex
from typing import Any

from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from dangad import Blob, Large
from dangad.cli.arguments import read_words
from dangad.wire.callwords import call_line, example_call
from dangad.wire.catalogue import Policy, describe_command
from dangad.wire.words import build_arguments

ROW = amp.AmpList([(b"name", amp.Unicode()), (b"the-size", amp.Integer(optional=True))])


def entry(*arguments: tuple[bytes, amp.Argument]) -> dict[str, Any]:
    """A catalogue's entry of a command with these arguments."""
    command = type("Try", (amp.Command,), {"arguments": list(arguments)})
    return describe_command(command, Policy(), "")


class Own(amp.Argument):
    """A type that only its programs know."""


class ExampleCallTests(SynchronousTestCase):
    def test_line(self) -> None:
        """The line names the server, the command and the required arguments."""
        self.assertEqual(
            example_call(
                entry(
                    (b"old", Large(amp.Unicode())),
                    (b"new", Large(amp.Unicode())),
                    (b"width", amp.Integer(optional=True)),
                ),
                ("python", "-m", "dangad"),
                "/tmp/my socket",
            ),
            "python -m dangad call --connect '/tmp/my socket' Try old=hello new=world",
        )

    def test_without_arguments(self) -> None:
        """A command without arguments is called by its name."""
        self.assertEqual(example_call(entry()), "dangad call Try")

    def test_different(self) -> None:
        """Two numbers are not the same; what is called a path is one."""
        line = example_call(entry((b"a", amp.Integer()), (b"b", amp.Integer())))
        self.assertEqual(line, "dangad call Try a=2 b=3")
        line = example_call(entry((b"path", amp.Unicode())))
        self.assertEqual(line, "dangad call Try path=.")

    def test_lists(self) -> None:
        """A list is written as one argument for each element, and records as JSON."""
        line = example_call(entry((b"sizes", amp.ListOf(amp.Float())), (b"rows", ROW)))
        self.assertEqual(line, """dangad call Try sizes=1.5 sizes=1.5 'rows=[{"name": "hello"}]'""")

    def test_all_types(self) -> None:
        """The values of all types are understood by `dangad call`."""
        kinds: list[amp.Argument] = [
            amp.Integer(),
            amp.Float(),
            amp.Boolean(),
            amp.Decimal(),
            amp.DateTime(),
            amp.Path(),
            amp.Unicode(),
            amp.String(),
            Own(),
            ROW,
            Blob(),
        ]
        kinds += [amp.ListOf(kind) for kind in kinds[:-1]]
        kinds += [Large(amp.ListOf(amp.ListOf(amp.Integer())))]
        command = entry(*((f"key{n}".encode(), kind) for n, kind in enumerate(kinds)))
        _, _, name, *words = shlex.split(example_call(command))
        self.assertEqual(name, "Try")
        arguments = build_arguments(command, read_words(words, lambda: b""))
        self.assertEqual(set(arguments), {f"key{n}" for n in range(len(kinds))})
        self.assertEqual(arguments[f"key{len(kinds) - 1}"], [[7, 2], [3, 5]])


class CallLineTests(SynchronousTestCase):
    def test_words(self) -> None:
        """A shell, and `dangad call`, understand each word as it was meant."""
        words = {"a": ["it's", "@home", "", "x=1\ny"], "b": []}
        line = call_line("Try", words, connect="a b", options=["--priority", "high"])
        first = ["dangad", "call", "--connect", "a b", "--priority", "high", "Try"]
        split = shlex.split(line)
        self.assertEqual(split[: len(first)], first)
        read = read_words(split[len(first) :], lambda: b"")
        self.assertEqual(read, {**words, "b": ["[]"]})

    def test_control_characters(self) -> None:
        """What a terminal would obey is escaped."""
        self.assertEqual(call_line("Try", {"a": ["\x1b"]}), "dangad call Try 'a=\\x1b'")
