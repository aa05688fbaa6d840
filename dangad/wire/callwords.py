"""Calls as lines for the shell, and examples: for a job type, words of the right types.

Used by :mod:`dangad.cli.devcalls` and by the page of operators. :mod:`dangad.wire.words` reads such
words.
"""

from __future__ import annotations

import json
import shlex
from itertools import cycle
from typing import TYPE_CHECKING, Any

from dangad.text import printable
from dangad.wire.catalogue import CUSTOM
from dangad.wire.words import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TEXTS = ("hello", "world", "again", "more")
_NUMBERS = (2, 3, 5, 7)
"""Values in the order of the arguments: two are not the same, for the sake of comparisons."""
_PLACES = frozenset({"path", "file", "filename", "directory", "folder", "dir"})
"""Names of arguments that are likely to be paths."""
_VALUES: dict[str, Any] = {
    "Float": 1.5,
    "Boolean": True,
    "Decimal": "9.99",
    "DateTime": "2026-11-23T14:30Z",
    "Path": ".",
}
"""For each type the value of JSON that stands for it, except for texts, numbers and lists."""


def example_call(
    entry: dict[str, Any], program: Sequence[str] = ("dangad",), connect: str = ""
) -> str:
    """A line for the shell that calls the command with its required arguments.

    :param entry: the command's entry in the catalogue.
    :param program: the words that start the ``dangad`` command.
    :param connect: where the server listens, for ``--connect``; empty to leave it out.
    """
    return call_line(entry["name"], example_words(entry), program, connect)


def example_words(entry: dict[str, Any]) -> dict[str, list[str]]:
    """Words for the required arguments of the command: see :func:`.words.build_arguments`."""
    examples = _Examples()
    required = [key for key in entry["arguments"] if not key["optional"]]
    return {key["key"]: examples.texts_for(key) for key in required}


def call_line(
    command: str,
    words: Mapping[str, Sequence[str]],
    program: Sequence[str] = ("dangad",),
    connect: str = "",
    options: Sequence[str] = (),
) -> str:
    """A line for the shell that calls the command with these words.

    :param words: the words of each argument; none of them for an empty list.
    :param program: the words that start the ``dangad`` command.
    :param connect: where the server listens, for ``--connect``; empty to leave it out.
    :param options: further options of ``dangad call``.
    """
    line = [*program, "call", *(["--connect", connect] if connect else []), *options, command]
    for key, texts in words.items():
        # A word that begins with @ would be the name of a file.
        line += [f"{key}={'@' if text[:1] == '@' else ''}{text}" for text in texts or ["[]"]]
    return printable(" ".join(map(shlex.quote, line)), keep="\n")


class _Examples:
    """The values of one call."""

    def __init__(self) -> None:
        #: The texts and the numbers to come.
        self._texts, self._numbers = cycle(_TEXTS), cycle(_NUMBERS)

    def texts_for(self, key: dict[str, Any]) -> list[str]:
        """The values of one argument, as a shell has them: several for a list."""
        value = self._value(key)
        kind = plain(key["type"])
        if kind["name"] == "ListOf" and plain(kind["of"])["name"] not in {"ListOf", "AmpList"}:
            return [_word(each) for each in value]
        return [_word(value)]

    def _value(self, key: dict[str, Any]) -> Any:
        """A value of JSON for an argument of this name and type."""
        kind = plain(key["type"])
        name = kind["name"]
        if name == "ListOf":
            return [self._value({**key, "type": kind["of"]}) for _ in range(2)]
        if name == "AmpList":
            required = [each for each in kind["keys"] if not each["optional"]]
            return [{each["key"]: self._value(each) for each in required}]
        if name == "Integer":
            return next(self._numbers)
        if name in {"Unicode", "String", CUSTOM}:
            return "." if key["key"].lower() in _PLACES else next(self._texts)
        return _VALUES.get(name, "...")


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
