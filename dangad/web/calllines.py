"""A call as it is written elsewhere: as a line for the shell, and as Python."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from twisted.python.filepath import FilePath

from dangad.text import printable
from dangad.web.callforms import show_number
from dangad.wire.callwords import call_line, example_words
from dangad.wire.words import WrongWord, build_arguments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_LINES = 4000
"""Characters of a call that are shown."""
LONGEST = 50
"""Characters of arguments that are written on one line of Python."""
DEFAULT_SERVER = "unix:dangad.sock"
"""Where ``dangad call`` connects by itself."""

_IMPORTS = {
    "datetime.": "from datetime import datetime",
    "Decimal(": "from decimal import Decimal",
    "FilePath(": "from twisted.python.filepath import FilePath",
}
"""What the texts of values need."""
_OPTIONS = frozenset({"priority", "deadline", "progress", "traceparent"})
"""Keywords of the client's own: arguments of these names are given in a dict."""


class Lines:
    """One call, as it is written elsewhere."""

    def __init__(
        self,
        entry: dict[str, Any],
        words: Mapping[str, Sequence[str]] | None,
        options: Mapping[str, Any],
        server: str,
    ) -> None:
        """Take what was typed, if a call can be made of it, and examples otherwise.

        :param entry: the command, as the catalogue describes it.
        :param words: the words of each argument.
        :param options: as of ``IOperations.call``.
        :param server: where clients connect; empty if that is not known.
        """
        self._entry = entry
        #: Whether this is an example.
        self.example = True
        self._words: Mapping[str, Sequence[str]] = example_words(entry)
        self._options: Mapping[str, Any] = {}
        self._server = server
        if words is not None:
            try:
                build_arguments(entry, words)
            except WrongWord:
                return
            self.example, self._words, self._options = False, words, options

    def shell(self) -> str:
        """A line for the shell."""
        options = []
        if self._options.get("priority", "normal") != "normal":
            options += ["--priority", self._options["priority"]]
        if self._options.get("deadline") is not None:
            options += ["--deadline", show_number(self._options["deadline"])]
        if self._options.get("chunks"):
            options.append("--stream")
        connect = "" if self._server == DEFAULT_SERVER else self._server
        line = call_line(self._entry["name"], self._words, connect=connect, options=options)
        return _bounded(line)

    def python(self) -> str:
        """A program in Python."""
        name = self._entry["name"]
        command = name if name.isidentifier() else "YourCommand"
        try:
            arguments = build_arguments(self._entry, self._words)
        except WrongWord:  # the example has a type that is not known here
            arguments = {}
        parts = [command, *self._given(arguments)]
        given = ", ".join(parts)
        if len(given) > LONGEST:
            given = "".join(f"\n        {part}," for part in parts) + "\n    "
        imports = [line for use, line in _IMPORTS.items() if use in given]
        lines = [
            *imports,
            "from twisted.internet.task import react",
            "",
            "import dangad",
            f"from your_jobs import {command}  # the module of the job type",
            "",
            "",
            "async def main(reactor):",
            f"    client = await dangad.connect(reactor, {self._server or DEFAULT_SERVER!r})",
        ]
        if self._options.get("chunks"):
            lines += [f"    async for part in client.stream({given}):", "        print(part)"]
        else:
            lines += [f"    answer = await client.run({given})", "    print(answer)"]
        return _bounded("\n".join([*lines, "", "", "react(main)"]))

    def _given(self, arguments: Mapping[str, Any]) -> list[str]:
        """The arguments and the options of the call in Python."""
        plain = all(name.isidentifier() and name not in _OPTIONS for name in arguments)
        given = [f"{name}={_value(value)}" for name, value in arguments.items()]
        if not plain:
            given = [_value(dict(arguments))]
        if self._options.get("priority", "normal") != "normal":
            given.append(f"priority={self._options['priority']!r}")
        if self._options.get("deadline") is not None:
            given.append(f"deadline={show_number(self._options['deadline'])}")
        return given


def _value(value: Any) -> str:
    """A value as Python has it."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_value(each)}' for key, each in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, datetime):
        return f"datetime.fromisoformat({value.isoformat()!r})"
    if isinstance(value, Decimal):
        return f"Decimal({str(value)!r})"
    if isinstance(value, FilePath):
        return f"FilePath({value.asTextMode().path!r})"
    if isinstance(value, float) and value - value != 0:  # neither nan nor inf has a literal
        return f"float({str(value)!r})"
    return repr(value)


def _bounded(lines: str) -> str:
    shown = printable(lines, keep="\n")
    return shown if len(shown) <= MAX_LINES else f"{shown[:MAX_LINES]}…"
