"""Turns arguments into boxes, and boxes into answers and errors.

:class:`dangad.Client` gets the bytes of each request here, and passes the pairs of each answer.
Every error in a value names the command and the argument.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import Any

from twisted.protocols import amp

from dangad.errors import ERRORS, BadArguments, BadResponse, UnhandledCommand
from dangad.text import kind_in_words
from dangad.wire import boxes, values
from dangad.wire.argumentcheck import WrongValue, check_of, too_long
from dangad.wire.values import Priority

MAX_SUMMARY = 200
"""The most characters of a foreign exception's message that an error of dangad's quotes."""

_ERRORS: dict[bytes, type[Exception]] = {
    **{code: error for error, code in ERRORS.items()},
    UnhandledCommand.code: UnhandledCommand,
}
_PRIORITIES: dict[object, bytes] = {
    name: boxes.pair(boxes.PRIORITY, priority.name.lower().encode())
    for priority in Priority
    for name in (priority, priority.name.lower())
}
_OPTIONS = frozenset({"priority", "deadline", "progress", "traceparent"})


class Call:
    """A command, prepared to be sent often.

    :ivar name: the command's name, for people.
    :ivar start: the pair of a request that names the command.
    """

    def __init__(self, command: type[amp.Command]) -> None:
        given: object = command
        if not (isinstance(given, type) and issubclass(given, amp.Command)):
            raise BadArguments(f"the command is {given!r}, not a subclass of amp.Command")
        self.name = command.commandName.decode("ascii", "backslashreplace")
        self.start = boxes.pair(boxes.COMMAND, command.commandName)
        self._arguments = [
            (key, values.python_name(key), kind, check_of(kind)) for key, kind in command.arguments
        ]
        self._names = frozenset(name for _, name, _, _ in self._arguments)
        self._response = list(command.response)
        declared: dict[bytes, type[Exception]] = command.reverseErrors  # type: ignore[attr-defined]
        self._errors = _ERRORS | declared
        for key, *_ in self._arguments:
            if key.startswith(b"_"):
                raise BadArguments(f"{self.name}: key {key!r} begins with _, which is reserved")

    def request(self, arguments: dict[str, Any]) -> bytes:
        """The rest of the request box: the arguments, and its end.

        :param arguments: the arguments by their Python names.
        :raises BadArguments: an argument cannot be sent; the text says which one, and why.
        """
        strings: dict[bytes, bytes] = {}
        objects = arguments.copy()  # AMP removes the values that it has packed
        for key, name, kind, check in self._arguments:
            value = objects.get(name)
            if value is None and not kind.optional:
                raise BadArguments(f"argument {name!r} of {self.name} is missing{_hint(name)}")
            try:
                if check is not None and value is not None:
                    objects[name] = check(value)
                kind.toBox(key, strings, objects, None)
            except WrongValue as error:
                where = f"{name!r} of {self.name}"
                raise BadArguments(f"argument {where}{_at(error.path)} {error}") from None
            except amp.TooLong as error:
                raise BadArguments(
                    f"part of argument {name!r} of {self.name} {too_long(error)}"
                ) from None
            except Exception as error:  # noqa: BLE001 - argument classes are anybody's code
                raise BadArguments(
                    f"argument {name!r} of {self.name} is a {type(arguments.get(name)).__name__} "
                    f"that cannot be sent as {type(kind).__name__}: {_summary(error)}"
                ) from None
        if not self._names.issuperset(arguments):
            unknown = ", ".join(sorted(repr(name) for name in set(arguments) - self._names))
            known = ", ".join(name for _, name, *_ in self._arguments) or "none"
            raise BadArguments(f"{self.name} has no argument {unknown}; it has: {known}")
        for key, value in strings.items():
            if not isinstance(value, bytes):
                strings[key] = self._as_bytes(key, value)
        try:
            return boxes.pack(strings.items())
        except amp.TooLong as error:
            raise BadArguments(self._too_long(error)) from None

    def options(
        self,
        priority: object,
        deadline: float | None,
        progress: object,
        traceparent: object = None,
        *,
        apart: bool,
    ) -> bytes:
        """The pairs of a request for its options.

        :param priority: see :meth:`dangad.Client.run`, as for the other options.
        :param apart: whether arguments were given in a dict. Then a keyword that is also the name
            of an argument is an option for certain.
        :raises BadArguments: an option is not valid, or may be meant as an argument.
        """
        pairs = b""
        given = {
            "priority": priority,
            "deadline": deadline,
            "progress": progress,
            "traceparent": traceparent,
        }
        for name, value in given.items():
            if value is not None and not apart and name in self._names:
                raise BadArguments(f"{self.name} has an argument {name!r}{_hint(name)}")
        if priority is not None:
            if not (isinstance(priority, (str, Priority)) and priority in _PRIORITIES):
                raise BadArguments(f"priority is {priority!r}, not 'high', 'normal' or 'low'")
            pairs += _PRIORITIES[priority]
        if deadline is not None:
            if not _is_finite(deadline):
                raise BadArguments(f"deadline is {deadline!r}, not a number of seconds")
            pairs += boxes.pair(boxes.DEADLINE, b"%.6f" % max(deadline, 0.0))
        if progress is not None:
            if not callable(progress):
                raise BadArguments(f"progress is {progress!r}, which cannot be called")
            pairs += boxes.pair(boxes.PROGRESS, b"1")
        if traceparent is not None:
            text = traceparent.encode() if isinstance(traceparent, str) else b""
            if values.read_traceparent(text) is None:
                raise BadArguments(f"traceparent is {traceparent!r}, not one of W3C Trace Context")
            pairs += boxes.pair(boxes.TRACEPARENT, text)
        return pairs

    def response(self, strings: dict[bytes, bytes]) -> dict[str, Any]:
        """The response in the pairs of an answer, by Python names.

        :raises BadResponse: the answer does not match the command's declaration.
        """
        objects: dict[str, Any] = {}
        for key, kind in self._response:
            if key not in strings and not kind.optional:
                raise BadResponse(f"the answer to {self.name} has no {key.decode()!r}")
            try:
                kind.fromBox(key, strings, objects, None)
            except Exception as error:  # noqa: BLE001 - argument classes are anybody's code
                raise BadResponse(
                    f"{key.decode()!r} in the answer to {self.name} is not "
                    f"{kind_in_words(type(kind).__name__)}: {_summary(error)}"
                ) from None
        return objects

    def error(self, strings: dict[bytes, bytes]) -> Exception:
        """The exception for the pairs of an error."""
        code = strings.get(boxes.ERROR_CODE, b"")
        text = strings.get(boxes.ERROR_DESCRIPTION, b"").decode("utf-8", "replace")
        kind = self._errors.get(code)
        if kind is not None:
            with contextlib.suppress(Exception):  # a class that cannot be made from a text alone
                return kind(text)
        return amp.RemoteAmpError(code, text)

    def _as_bytes(self, key: bytes, value: object) -> bytes:
        if isinstance(value, (bytearray, memoryview)):
            return bytes(value)
        raise BadArguments(
            f"argument {values.python_name(key)!r} of {self.name} is a {type(value).__name__} "
            "where bytes are declared"
        )

    def _too_long(self, error: amp.TooLong) -> str:
        if error.isKey:
            return f"{self.name} {too_long(error)}: choose a shorter name"
        kinds = {key: kind for key, _, kind, _ in self._arguments}
        kind = kinds.get(error.keyName)
        name = type(kind).__name__
        better = "dangad.Blob()" if type(kind) is amp.String else f"dangad.Large({name}(...))"
        return (
            f"argument {values.python_name(error.keyName)!r} of {self.name} is {len(error.value)} "
            f"bytes long as {name}, and AMP takes {boxes.MAX_VALUE:,} in one value: declare it as "
            f"{better}"
        )


prepare = lru_cache(maxsize=1024)(Call)
"""The :class:`Call` for a command; the most recently used ones are cached."""


def _is_finite(seconds: Any) -> bool:
    """Whether a time is a number, and less than infinite."""
    with contextlib.suppress(TypeError, ArithmeticError):
        return bool(seconds < float("inf"))
    return False


def _hint(name: str) -> str:
    """A hint for an argument with the name of an option of `run` and `stream`."""
    if name not in _OPTIONS:
        return ""
    return f"; this is also the name of an option: pass arguments in a dict, {{{name!r}: ...}}"


def _at(path: str) -> str:
    """The place of an error within an argument's value, in words."""
    return f", at {path}," if path else ""


def _summary(error: BaseException) -> str:
    text = str(error)[:MAX_SUMMARY]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
