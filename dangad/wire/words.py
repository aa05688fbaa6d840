"""Values of commands as words that people type, and as JSON, by the types of the catalogue.

:mod:`dangad.cli.arguments` reads words from a command line, :mod:`dangad.operators.handcalls` from
a form. Nothing here knows of terminals, files or sockets.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import re
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from twisted.protocols import amp
from twisted.python.filepath import FilePath

from dangad.wire.catalogue import CUSTOM, build_command
from dangad.wire.values import Large, python_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

TYPE_NAMES = {
    "Integer": "integer",
    "Float": "number",
    "Boolean": "boolean",
    "Decimal": "decimal",
    "DateTime": "datetime",
    "Path": "path",
    "Unicode": "text",
    "String": "bytes",
    CUSTOM: "bytes",
}
"""Names for people of the catalogue's types."""

_WORDS = {
    "Integer": "a whole number",
    "Decimal": "a decimal number",
    "DateTime": "a date and a time",
    "Unicode": "text",
    "String": "bytes",
    CUSTOM: "bytes",
}
"""Words for types that follow "is not"; for other types these are an article and the name."""
_HINTS = {
    "Boolean": "write true or false, yes or no, 1 or 0",
    "DateTime": "write ISO 8601, as in 2026-11-23T14:30 (local time) or 2026-11-23T14:30Z",
    "ListOf": "write key=value once for each element, or a JSON list",
    "AmpList": "write a JSON list of objects, or one key={...} for each",
}
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class WrongWord(ValueError):
    """Words do not make the arguments of a command; the text says in one line what to change."""


def type_name(kind: dict[str, Any]) -> str:
    """A name for people of a type of the catalogue."""
    if kind["name"] == "Large":
        return type_name(kind["of"])
    if kind["name"] == "ListOf":
        return f"list of {type_name(kind['of'])}"
    if kind["name"] == "AmpList":
        return f"list of {{{describe_keys(kind['keys'])}}}"
    name: str = kind["name"]
    return TYPE_NAMES.get(name, name)


def describe_keys(keys: Iterable[dict[str, Any]]) -> str:
    """Keys with their types in one line; optional keys are in brackets."""
    words = [f"{key['key']}: {type_name(key['type'])}" for key in keys]
    marked = [f"[{w}]" if key["optional"] else w for w, key in zip(words, keys, strict=True)]
    return ", ".join(marked)


# From words to values.


def build_arguments(
    entry: dict[str, Any], words: Mapping[str, Sequence[str | bytes]], see: str = ""
) -> dict[str, Any]:
    """The arguments of the command that the catalogue's `entry` describes, by Python name.

    :param words: the words for each key, in their order.
    :param see: where to look if an argument is missing, for the text of the error.
    :raises WrongWord: an argument is missing, unknown, given twice, or not of its type.
    """
    declared = {key["key"]: key for key in entry["arguments"]}
    spellings = {name.replace("-", "_"): name for name in declared} | {n: n for n in declared}
    values: dict[str, Any] = {}
    for given, texts in words.items():
        name = spellings.get(given)
        if name is None:
            known = describe_keys(entry["arguments"]) or "none"
            raise WrongWord(f"{entry['name']} has no argument {given!r}; its arguments: {known}")
        if name in values:
            raise WrongWord(f"argument {name!r} is given twice, as {given!r} too")
        values[name] = _from_words(declared[name]["type"], texts, f"argument {name!r}")
    for name, key in declared.items():
        if name not in values and not key["optional"]:
            raise WrongWord(
                f"argument {name!r} ({type_name(key['type'])}) of {entry['name']} is missing{see}"
            )
    return {python_name(name.encode("ascii")): value for name, value in values.items()}


def _from_words(kind: dict[str, Any], words: Sequence[str | bytes], where: str) -> Any:
    """The value, of the type `kind`, of all words for one key."""
    if kind["name"] == "Large":
        return _from_words(kind["of"], words, where)
    if kind["name"] in {"ListOf", "AmpList"}:
        first = words[0] if len(words) == 1 else ""
        start = first.lstrip()[:1]
        if start in {"[", b"["}:
            return _from_json(kind, _json(kind, _text(kind, first, where), where), where)
        if kind["name"] == "ListOf":
            return [_from_words(kind["of"], [word], where) for word in words]
        return [
            _record(kind["keys"], _json(kind, _text(kind, word, where), where), where)
            for word in words
        ]
    if len(words) > 1:
        raise WrongWord(f"{where} is given {len(words)} times, and is not a list")
    word = words[0]
    if kind["name"] in {"String", CUSTOM}:
        return word if isinstance(word, bytes) else os.fsencode(word)
    text = _text(kind, word, where)
    # The newline at the end of a file belongs to a text, but not to a number.
    return _from_text(kind, text if kind["name"] == "Unicode" else text.strip(), where)


def _text(kind: dict[str, Any], word: str | bytes, where: str) -> str:
    if isinstance(word, str):
        return word
    try:
        return word.decode("utf-8")
    except UnicodeDecodeError:
        raise WrongWord(f"{where}: the file is not UTF-8, and so not {_in_words(kind)}") from None


def _from_text(kind: dict[str, Any], text: str, where: str) -> Any:
    """The value, of the type `kind`, of one text."""
    try:
        return _PARSERS[kind["name"]](text)
    except (ValueError, OverflowError, KeyError, InvalidOperation):
        raise _wrong(kind, text, where) from None


def _integer(text: str) -> int:
    if not re.fullmatch("[-+]?[0-9]+", text):
        raise ValueError
    return int(text)


def _date_time(text: str) -> datetime:
    """A point in time; a text without a zone is local time."""
    value = datetime.fromisoformat(text)
    return value if value.tzinfo is not None else value.astimezone()


_PARSERS: dict[str, Callable[[str], Any]] = {
    "Integer": _integer,
    "Float": float,
    "Boolean": lambda text: _BOOLEANS[text.lower()],
    "Decimal": Decimal,
    "DateTime": _date_time,
    "Path": FilePath,
    "Unicode": str,
    "String": os.fsencode,
    CUSTOM: os.fsencode,
}


def _json(kind: dict[str, Any], text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        hint = _HINTS[kind["name"]]
        raise WrongWord(
            f"{where} is a {type_name(kind)}: {hint} (the JSON is wrong: {error})"
        ) from None


def _from_json(kind: dict[str, Any], value: Any, where: str) -> Any:
    """The value, of the type `kind`, of a JSON value."""
    name = kind["name"]
    if name == "Large":
        return _from_json(kind["of"], value, where)
    if name in {"ListOf", "AmpList"} and isinstance(value, list):
        each: Callable[[Any, str], Any] = (
            (lambda item, place: _record(kind["keys"], item, place))
            if name == "AmpList"
            else (lambda item, place: _from_json(kind["of"], item, place))
        )
        return [each(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if name in {"String", CUSTOM} and isinstance(value, dict) and value.keys() == {"base64"}:
        try:
            return base64.b64decode(value["base64"], validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise _wrong(kind, value, where) from None
    if isinstance(value, bool) and name == "Boolean":
        return value
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        if name == "Integer" and isinstance(value, int):
            return value
        if name == "Float":
            return _from_text(kind, str(value), where)
        if name == "Decimal":
            return Decimal(value)
    if isinstance(value, str) and name in _PARSERS:
        return _from_text(kind, value, where)
    raise _wrong(kind, value, where)


def _record(keys: list[dict[str, Any]], value: Any, where: str) -> dict[str, Any]:
    """One element of an AmpList."""
    if not isinstance(value, dict):
        raise WrongWord(f"{where}: {_quoted(value)} is not an object {{{describe_keys(keys)}}}")
    declared = {key["key"]: key for key in keys}
    for name in value:
        if name not in declared:
            known = describe_keys(keys)
            raise WrongWord(f"{where} has no key {name!r}; its keys: {known}")
    record: dict[str, Any] = {}
    for name, key in declared.items():
        if value.get(name) is not None:
            place = f"{where}.{name}"
            record[python_name(name.encode("ascii"))] = _from_json(key["type"], value[name], place)
        elif not key["optional"]:
            raise WrongWord(f"{where}: key {name!r} ({type_name(key['type'])}) is missing")
    return record


def _wrong(kind: dict[str, Any], value: Any, where: str) -> WrongWord:
    hint = _HINTS.get(kind["name"])
    return WrongWord(
        f"{where}: {_quoted(value)} is not {_in_words(kind)}" + (f"; {hint}" if hint else "")
    )


def _in_words(kind: dict[str, Any]) -> str:
    """A type of the catalogue in words that follow "is not"."""
    return _WORDS.get(kind["name"]) or f"a {type_name(kind)}"


def _quoted(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"


# From values to JSON.


def as_json(keys: Sequence[dict[str, Any]], values: dict[str, Any]) -> dict[str, Any]:
    """Values by their Python names as an object for JSON, by the types of `keys`."""
    names = {key["key"]: python_name(key["key"].encode("ascii")) for key in keys}
    return {key["key"]: value_as_json(key["type"], values.get(names[key["key"]])) for key in keys}


def value_as_json(kind: dict[str, Any], value: Any) -> Any:
    """A value of the type `kind` as a value for JSON; None if there is none."""
    kind = plain(kind)
    if value is None:
        return None
    if kind["name"] == "AmpList":
        return [as_json(kind["keys"], row) for row in value]
    if kind["name"] == "ListOf":
        return [value_as_json(kind["of"], element) for element in value]
    if isinstance(value, bytes):
        text = utf8_of(value)
        return {"base64": base64.b64encode(value).decode("ascii")} if text is None else text
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, FilePath):
        return value.asTextMode().path
    if isinstance(value, Decimal) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)  # JSON has no such numbers
    return value


def utf8_of(value: Any) -> str | None:
    """The value as text, decoded if it is bytes; None if it is not text."""
    try:
        if isinstance(value, str):
            value.encode("utf-8")
            return value
        return value.decode("utf-8") if isinstance(value, bytes) else None
    except UnicodeError:
        return None


def plain(kind: dict[str, Any]) -> dict[str, Any]:
    """The type without any Large around it."""
    while kind["name"] == "Large":
        kind = kind["of"]
    return kind


# From a catalogue's entry to a command.


class TypedText(amp.Unicode):
    """Text that was typed in a terminal; bytes in it that are not UTF-8 are preserved.

    Names of files need not be UTF-8. Python represents other bytes as lone surrogates, see
    :func:`os.fsdecode`. They are sent as the original bytes, which the job may accept or refuse.
    """

    def toString(self, inObject: str) -> bytes:
        """The text as the terminal's bytes."""
        return inObject.encode("utf-8", "surrogateescape")

    def fromString(self, inString: bytes) -> str:
        """The text, with a lone surrogate for each byte that is not UTF-8."""
        return inString.decode("utf-8", "surrogateescape")


def build_typed_command(entry: dict[str, Any]) -> type[amp.Command]:
    """The command that the catalogue's `entry` describes, with :class:`TypedText` for its text."""
    command = build_command(entry)
    for keys in (command.arguments, command.response):
        keys[:] = [(key, _typed(argument)) for key, argument in keys]
    return command


def _typed(argument: amp.Argument) -> amp.Argument:
    if isinstance(argument, Large):
        return Large(_typed(argument.argument), argument.optional)
    if isinstance(argument, amp.ListOf):
        return amp.ListOf(_typed(argument.elementType), argument.optional)
    if isinstance(argument, amp.AmpList):
        keys = [(key, _typed(each)) for key, each in argument.subargs]
        return amp.AmpList(keys, argument.optional)
    return TypedText(argument.optional) if type(argument) is amp.Unicode else argument
