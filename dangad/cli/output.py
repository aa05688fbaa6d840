"""Answers and catalogues as text: tables for people, JSON for machines, raw bytes for files.

:mod:`dangad.cli.calling` writes the texts that these functions return. The catalogue's type of a
value decides how the value is shown. In tables, characters that could move a terminal's cursor or
hide text are escaped.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from twisted.python.filepath import FilePath

from dangad.cli.tables import GAP, NOTHING, Column, flow, list_pairs, table, widths
from dangad.text import printable, show_bytes
from dangad.wire.catalogue import CUSTOM
from dangad.wire.values import python_name
from dangad.wire.words import as_json, describe_keys, plain, type_name, utf8_of, value_as_json

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ESCAPED = 64
"""The most bytes, other than text, that are shown escaped; for more, tables show the size."""

_NUMBERS = {"Integer", "Float", "Decimal"}
_BYTES = {"String", CUSTOM}


def answer_as_table(
    keys: Sequence[dict[str, Any]], response: dict[str, Any], columns: int | None = None
) -> str:
    """A response as lines of key and value, and an aligned table for each list in it.

    A text with line breaks follows its key, indented. A table follows its key, too, unless it is
    the whole response.

    :param columns: the width of the terminal, to which tables are fitted; None for a file or pipe.
    """
    singles: list[tuple[str, str]] = []
    blocks: list[list[str]] = []
    for key in keys:
        kind = plain(key["type"])
        name = printable(key["key"])
        value = response.get(_python_name(key))
        is_alone = len(keys) == 1 and kind["name"] in {"ListOf", "AmpList"}
        indent = "" if is_alone else GAP
        lines = _block(name, kind, value, None if columns is None else columns - len(indent))
        if lines is None:
            hint = f"; to save them: --raw {name} > FILE" if _is_binary(value) else ""
            singles.append((name, _cell(kind, value) + hint))
        elif is_alone:
            blocks.append(lines)
        else:
            blocks.append([f"{name}:", *(f"{indent}{line}".rstrip() for line in lines)])
    if singles:
        blocks.insert(0, list_pairs(singles))
    return "\n\n".join("\n".join(lines) for lines in blocks) + "\n" if blocks else ""


def _block(name: str, kind: dict[str, Any], value: Any, room: int | None) -> list[str] | None:
    """The lines of a value that needs several; None for a value that needs one."""
    if value is None:
        return None
    if kind["name"] == "AmpList":
        keys = kind["keys"]
        rows = [[_cell(k["type"], row.get(_python_name(k))) for k in keys] for row in value]
        return table([_column(k["key"], k["type"]) for k in keys], rows, room)
    if kind["name"] == "ListOf":
        rows = [[_cell(kind["of"], element)] for element in value]
        return table([_column(name, kind["of"])], rows, room)
    text = utf8_of(value)
    if text is not None and "\n" in text and not text.isspace():
        return [printable(line.expandtabs()) for line in text.rstrip("\n").split("\n")]
    return None


def _column(name: str, kind: dict[str, Any]) -> Column:
    return Column(printable(name).upper(), plain(kind)["name"] in _NUMBERS)


def _cell(kind: dict[str, Any], value: Any) -> str:
    """A value in one line of printable text."""
    kind = plain(kind)
    if value is None:
        return NOTHING
    if kind["name"] in {"ListOf", "AmpList"}:
        return printable(json.dumps(value_as_json(kind, value), ensure_ascii=False))
    if isinstance(value, bytes):
        if _is_binary(value):
            return f"{show_bytes(len(value))} that are not text"
        return printable(value.decode("utf-8", "surrogateescape"))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return _local(value).isoformat(" ", "seconds")
    if isinstance(value, FilePath):
        value = value.asTextMode().path
    return printable(str(value))


def _local(time: datetime) -> datetime:
    try:
        return time.astimezone()
    except (OverflowError, ValueError):  # at the ends of a datetime's range
        return time


def _is_binary(value: Any) -> bool:
    """Whether the value is bytes other than text, and too long to be shown escaped."""
    return isinstance(value, bytes) and len(value) > MAX_ESCAPED and utf8_of(value) is None


def catalogue_as_table(catalogue: dict[str, Any], columns: int | None = None) -> str:
    """The commands of a catalogue, each with its arguments, its response and its description.

    :param columns: the width of the terminal. If the table is wider, each command has several
        lines instead. None for any width.
    """
    entries = catalogue["commands"]
    rows = [
        [
            printable(entry["name"]),
            printable(describe_keys(entry["arguments"])) or NOTHING,
            printable(describe_keys(entry["response"])) or NOTHING,
            printable(_unmarked(entry["doc"]).partition("\n")[0]),
        ]
        for entry in entries
    ]
    heads = [Column(head) for head in ("COMMAND", "ARGUMENTS", "RESPONSE", "WHAT IT DOES")]
    if columns is None or sum(widths(heads, rows)) + len(GAP) * (len(heads) - 1) <= columns:
        lines = table(heads, rows, columns)
    else:
        lines = [line for row in rows for line in _command_lines(columns, *row)]
    return "\n".join(lines) + "\n"


def _command_lines(columns: int, name: str, arguments: str, response: str, doc: str) -> list[str]:
    """A command of the catalogue in lines for a terminal of so many columns."""
    pairs = [("takes", arguments), ("gives", response)]
    lines = list_pairs(pairs, columns - len(GAP))
    return [*list_pairs([(name, doc)], columns), *(f"{GAP}{line}" for line in lines)]


def entry_as_help(entry: dict[str, Any], columns: int | None = None) -> str:
    """The help of one command: how to call it, its keys, and its policy.

    :param columns: the width of the terminal, to which the text is wrapped; None for any width.
    """
    name = printable(entry["name"])
    words = [
        f"[{key['key']}=...]" if key["optional"] else f"{key['key']}=..."
        for key in entry["arguments"]
    ]
    inner = None if columns is None else columns - len(GAP)
    lines = [printable(" ".join(["usage: dangad call", name, *words]))]
    if entry["doc"]:
        lines += ["", *_flow(_unmarked(entry["doc"]), columns)]
    for title, keys in (("arguments", entry["arguments"]), ("response", entry["response"])):
        pairs = [
            (printable(key["key"]), type_name(key["type"]) + ", may be left out" * key["optional"])
            for key in keys
        ]
        lines += ["", f"{title}:", *(f"  {line}" for line in list_pairs(pairs, inner) or ["none"])]
    policy = [
        (name.replace("_", " "), f"{value} s" if name == "time_limit" else _word(value))
        for name, value in entry["policy"].items()
        if value is not None
    ]
    lines += ["", "policy:", *(f"  {line}" for line in list_pairs(policy, inner))]
    return "\n".join(lines) + "\n"


def _word(value: object) -> str:
    """A value of a policy in the form of answers."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unmarked(doc: str) -> str:
    """A docstring without its marks for code."""
    return doc.replace("``", "")


def _flow(doc: str, columns: int | None) -> list[str]:
    """The printable lines of a docstring. Paragraphs are filled; lists and examples are kept."""
    lines = [printable(line) for line in doc.expandtabs().splitlines()]
    if columns is None:
        return lines
    filled: list[str] = []
    for line in lines:
        plain = line[:1].isalnum() and filled[-1:] and filled[-1][:1].isalnum()
        filled[-1:] = [f"{filled[-1]} {line}"] if plain else [*filled[-1:], line]
    return flow(filled, columns)


# For machines.


def answer_as_json(keys: Sequence[dict[str, Any]], response: dict[str, Any]) -> str:
    """A response as one line of JSON."""
    return json.dumps(as_json(keys, response)) + "\n"


# For files.


def raw_key(keys: Sequence[dict[str, Any]]) -> str | None:
    """The key whose value alone is written to a file or a pipe; None if a table is written.

    This is the only Blob among the keys of the response, or the only key, if it is of bytes. It
    depends on the declaration, never on the answer.
    """
    blobs = [key for key in keys if key["type"]["name"] == "Large" and _holds_bytes(key)]
    if len(blobs) == 1:
        return str(blobs[0]["key"])
    if len(keys) == 1 and _holds_bytes(keys[0]):
        return str(keys[0]["key"])
    return None


def value_as_bytes(key: dict[str, Any], response: dict[str, Any]) -> bytes:
    """One value of a response alone; bytes and text are unchanged."""
    value = response.get(_python_name(key))
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return _cell(key["type"], value).encode("utf-8")


def _holds_bytes(key: dict[str, Any]) -> bool:
    return plain(key["type"])["name"] in _BYTES


def _python_name(key: dict[str, Any]) -> str:
    return python_name(key["key"].encode("ascii"))
