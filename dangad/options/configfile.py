"""The configuration file: options of ``twistd dangad`` in TOML, read before the server is made.

:mod:`.commandline` puts the file's options before the words of the command line, so that both go
through the same parsers. :mod:`.configuration` makes a :class:`Configuration` of the outcome, and
:mod:`dangad.operators.view` tells it to operators.
"""

from __future__ import annotations

import contextlib
import getopt
import json
import os
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from dangad.options.values import MAX_NUMBER
from dangad.text import meant, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.python import usage

MAX_FILE = 2**18
"""Bytes of the largest file. The server keeps its text, and sends it to operators."""
MAX_SHOWN = 60
"""The most characters of a value that are shown in an error."""
OPTION = "config"
"""The option that names the file; it cannot be in the file itself."""

_SYNONYMS = frozenset({"preload", "start"})
"""Options of which one on the command line replaces both in the file."""
_NAMES_OR_NUMBERS = frozenset({"allow-groups", "allow-users", "worker-gid", "worker-uid"})
"""Options for users and groups, which have names and numbers."""
_INSTEAD_OF_FLAGS = {"log-jobs": {False: '"failed"', True: '"all"'}}
"""For each option that looks like a flag: what to write in place of the flag."""
_EXAMPLES = {"start": '"lean"', "worker-env": '["NAME=VALUE"]', "worker-umask": '"027"'}
"""How to write some options whose wrong value does not tell it."""


class BadFile(Exception):
    """The file cannot be used; the text names the file, and says in one line what is wrong."""


class Kind(Enum):
    """What an option takes in a file."""

    FLAG = "a flag, true or false"
    NUMBER = "a number"
    TEXT = "a text in quotes"
    ARRAY = "an array of texts in quotes"


@dataclass(frozen=True)
class ConfigFile:
    """A file that was read."""

    path: str = ""
    """Its absolute path; empty if there is no file."""
    shown: str = ""
    """Its name in errors: the path as it was given."""
    text: str = ""
    """Its text."""
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """For each option in it, the words that would follow the option on the command line. A flag has
    one empty word if it is set, and none if it is not."""
    flags: frozenset[str] = frozenset()
    """The options that are flags."""

    def words(self, name: str) -> list[str]:
        """The option as words of the command line."""
        if name in self.flags:
            return [f"--{name}" for _ in self.texts[name]]
        return [f"--{name}={text}" for text in self.texts[name]]

    def blame(self, error: str) -> str:
        """The text of an error of the command line's, with the file's name if it is the file's."""
        for name, texts in self.texts.items():
            for start in (f"--{name} {text}".rstrip() for text in texts):
                if error.startswith(start) and error[len(start) :][:1] in ("", " ", ":"):
                    return f"{self.shown}: {error.removeprefix('--')}"
        return error


def kinds_of(options: usage.Options) -> dict[str, Kind]:
    """What each option takes in a file. Arrays come first, then values, then flags.

    :param options: new options, which have parsed nothing yet.
    """
    kinds: dict[str, Kind] = {}
    for name, default in options.items():
        if f"{name}=" not in options.longOpt:
            kinds[name] = Kind.FLAG
        elif isinstance(default, (list, dict)):
            kinds[name] = Kind.ARRAY
        elif name != OPTION:
            kinds[name] = Kind.NUMBER if isinstance(default, (int, float)) else Kind.TEXT
    order = (Kind.ARRAY, Kind.TEXT, Kind.NUMBER, Kind.FLAG)
    return dict(sorted(kinds.items(), key=lambda each: order.index(each[1])))


def merge(options: usage.Options, words: Sequence[str]) -> tuple[ConfigFile, list[str]]:
    """The file that the command line names, and the words of both, those of the file first.

    Of options that may be repeated, the file's are left out if the command line has any.

    :param options: new options, which have parsed nothing yet.
    :param words: the command line.
    :raises BadFile: the file cannot be read, or is not valid.
    """
    try:
        found, _ = getopt.getopt(list(words), options.shortOpt, options.longOpt)
    except getopt.GetoptError:
        return ConfigFile(), list(words)  # whoever parses the words will report it
    given = {name.removeprefix("--") for name, _ in found}
    paths = [value for name, value in found if name == f"--{OPTION}"]
    if not paths:
        return ConfigFile(), list(words)
    kinds = kinds_of(options)
    file = read(paths[-1], kinds)
    replaced = {name for name in given if kinds.get(name) is Kind.ARRAY}
    if given & _SYNONYMS:
        replaced |= _SYNONYMS
    kept = [word for name in file.texts if name not in replaced for word in file.words(name)]
    return file, [*kept, *words]


def read(path: str, kinds: Mapping[str, Kind]) -> ConfigFile:
    """The file at `path`.

    :param kinds: the options that may be in it.
    :raises BadFile: it cannot be read, is not TOML, has a key that is no option, or a value of a
        wrong type.
    """
    import tomllib  # only if there is a file: most starts do without

    shown = printable(path)
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:  # the latter for a path with a NUL
        why = getattr(error, "strerror", None) or error
        raise BadFile(f"--{OPTION} {shown}: {why}") from None
    if len(raw) > MAX_FILE:
        raise BadFile(f"--{OPTION} {shown}: it has more than {MAX_FILE:,} bytes")
    try:
        text = raw.decode()
        values = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise BadFile(f"{shown}: it is not UTF-8 (at byte {error.start:,})") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, and numbers without end
        raise BadFile(f"{shown}: it is not TOML: {printable(str(error))}") from None
    texts = {}
    for name, value in values.items():
        wrong = _what_is_wrong(name, value, kinds)
        if wrong:
            raise BadFile(f"{shown}: {wrong}")
        texts[name] = _texts(value)
    flags = frozenset(name for name, kind in kinds.items() if kind is Kind.FLAG)
    return ConfigFile(os.path.abspath(path), shown, text, texts, flags)


def _texts(value: Any) -> list[str]:
    """A value of a right type as the words that would follow the option on the command line."""
    if isinstance(value, bool):
        return [""] if value else []
    values = value if isinstance(value, list) else [value]
    return [repr(each) if isinstance(each, float) else str(each) for each in values]


def _what_is_wrong(name: str, value: Any, kinds: Mapping[str, Kind]) -> str:
    """Why the file may not have this key with this value, and what to write; empty if it may."""
    kind = kinds.get(name)
    if kind is None:
        return f"{printable(name)}: {_unknown(name, value, kinds)}"
    values = value if kind is Kind.ARRAY and isinstance(value, list) else [value]
    if kind is Kind.ARRAY and not isinstance(value, list):
        right = False
    elif kind is Kind.FLAG:
        right = isinstance(value, bool)
    else:
        numbers = kind is Kind.NUMBER or name in _NAMES_OR_NUMBERS
        right = all(
            isinstance(each, (str, int, float) if numbers else str) and not isinstance(each, bool)
            for each in values
        )
    if not right:
        shown, advice = _shown(value), _advice(name, value, kind)
        return f"{name} = {shown}: it must be {kind.value}; write {name} = {advice}"
    if any(isinstance(each, int) and abs(each) > MAX_NUMBER for each in values):
        return f"{name}: the number is too large"
    if any("\0" in each for each in values if isinstance(each, str)):
        return f"{name} = {_shown(value)}: it has a NUL character"
    return ""


def _unknown(name: str, value: Any, kinds: Mapping[str, Kind]) -> str:
    """What is wrong with a key that is no option."""
    if name == OPTION:
        return "a file cannot name another file"
    alike = meant(name.lower().replace("_", "-"), kinds)
    if alike:
        return f"there is no such option{alike}"
    if isinstance(value, dict):
        return "there is no such option; options are keys at the top, outside of tables"
    return "there is no such option; twistd dangad --help lists all"


def _advice(name: str, value: Any, kind: Kind) -> str:
    """A value of the right type, which is the given one if possible."""
    if name in _INSTEAD_OF_FLAGS and isinstance(value, bool):
        return _INSTEAD_OF_FLAGS[name][value]
    if name in _EXAMPLES:
        return _EXAMPLES[name]
    if kind is Kind.FLAG:
        return "false" if value in (0, "0", "no", "off", "false", "False") else "true"
    if kind is Kind.NUMBER:
        return "1"
    values = value if isinstance(value, list) else [value]
    plain = [each for each in values if isinstance(each, (str, int, float))]
    texts = [json.dumps(str(each), ensure_ascii=False) for each in plain] or ['"..."']
    return printable(f"[{', '.join(texts)}]" if kind is Kind.ARRAY else texts[0])


def _shown(value: Any) -> str:
    """The value for an error: nearly as TOML has it, and not too long."""
    with contextlib.suppress(RecursionError, ValueError):  # the latter by numbers without end
        text = printable(json.dumps(value, default=str, ensure_ascii=False))
        return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
    return "..."


@dataclass(frozen=True)
class Configuration:
    """The options of a server, and where they come from.

    Values are as in a file: texts, numbers, booleans, lists of texts, and None for an option
    without a value.
    """

    file: ConfigFile = field(default_factory=ConfigFile)
    """The file; the one without a path if there is none."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options with which the server was started, the defaults included."""
    file_alone: Mapping[str, Any] = field(default_factory=dict)
    """The options of a server that is started with the file, and an empty command line."""
    meanings: Mapping[str, str] = field(default_factory=dict)
    """What each option means, in a few words."""

    def document(self, now: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration for operators; ``docs/reference/control.md`` gives its shape.

        :param now: the options that were changed since the start.
        """
        options = {**self.options, **now}
        nothing = object()
        return {
            "file": self.file.path or None,
            "text": self.file.text,
            "options": options,
            "changed": [
                name
                for name, value in options.items()
                if value != self.file_alone.get(name, nothing)
            ],
            "meanings": dict(self.meanings),
        }
