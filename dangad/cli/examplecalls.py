"""Example calls: for a job type, a line for the shell with arguments of the right types.

Used by :mod:`dangad.cli.devsession`. :mod:`dangad.wire.words` reads such
arguments.
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
    from collections.abc import Sequence

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
    words = [*program, "call", *(["--connect", connect] if connect else []), entry["name"]]
    examples = _Examples()
    for key in entry["arguments"]:
        if not key["optional"]:
            words += [f"{key['key']}={text}" for text in examples.texts_for(key)]
    return printable(" ".join(map(shlex.quote, words)))


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
