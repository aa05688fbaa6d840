"""The form that calls a command: its fields, and what a person has typed into them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from twisted.web.template import Tag, tags

from dangad.web.address import read_time
from dangad.web.forms import form
from dangad.web.parts import text
from dangad.wire.callwords import example_words
from dangad.wire.catalogue import CUSTOM
from dangad.wire.words import plain, type_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dangad.web.layout import Scene

MOST_FIELDS = 100
"""Arguments of a command that the form has fields for, and that are read."""
MAX_FIELD = 16_000
"""Characters that a browser lets a person type into a field; a form has 64 KiB in all."""
PRIORITIES = ("high", "normal", "low")
"""The priorities that a call may have."""

_PREFIX = "arg."
"""Stands before the keys of arguments in the names of fields."""
_LISTS = ("ListOf", "AmpList")
_TEXTS = ("Unicode", "String", CUSTOM)
_HINTS = {
    "ListOf": "one element a line, or a JSON list",
    "AmpList": "one JSON object a line, or a JSON list of them",
    "DateTime": "as in 2026-11-23T14:30 (time of the server) or 2026-11-23T14:30Z",
    "String": "sent as UTF-8",
    CUSTOM: "sent as UTF-8",
}
"""How to write values of these types."""


@dataclass(frozen=True, slots=True)
class Typed:
    """What a person has typed into the form, or chosen there."""

    command: str
    """The name of the command."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """The text of each argument, by its key."""
    priority: str = "normal"
    """How urgent the job is."""
    deadline: str = ""
    """The time until the answer is useless; empty for ever."""
    chunks: bool = False
    """Whether the job may send parts of its result."""

    def words(self, entry: Mapping[str, Any]) -> dict[str, list[str]]:
        """The words of each argument, for ``IOperations.call``; none for fields left empty.

        A text, and a list, may be empty, unless they are optional.

        :param entry: the command, as the catalogue describes it.
        """
        kinds = {key["key"]: (plain(key["type"])["name"], key["optional"]) for key in _keys(entry)}
        words: dict[str, list[str]] = {}
        for key, typed in self.fields.items():
            name, optional = kinds.get(key, ("", False))
            if name in _LISTS:
                if typed.strip() or not optional:
                    words[key] = _elements(typed)
            elif typed or (name in _TEXTS and not optional):
                words[key] = [typed]
        return words

    def options(self) -> dict[str, Any]:
        """The options, for ``IOperations.call``.

        :raises BadAddress: the deadline is no time.
        """
        deadline = read_time(self.deadline, "deadline") if self.deadline.strip() else None
        return {"priority": self.priority, "deadline": deadline, "chunks": self.chunks}


def read_typed(given: Mapping[bytes, Sequence[bytes]]) -> Typed:
    """What a form has sent."""
    sent = {
        name.decode("utf-8", "replace"): values[-1].decode("utf-8", "replace")
        for name, values in given.items()
    }
    fields = {
        name.removeprefix(_PREFIX): value.replace("\r\n", "\n")
        for name, value in sent.items()
        if name.startswith(_PREFIX)
    }
    return Typed(
        sent.get("command", ""),
        dict(list(fields.items())[:MOST_FIELDS]),
        sent.get("priority", "normal"),
        sent.get("deadline", ""),
        "chunks" in sent,
    )


def typed_before(call: Mapping[str, Any]) -> Typed:
    """What was typed for a call.

    :param call: its document, see ``IOperations.calls``.
    """
    deadline = call["deadline"]
    return Typed(
        call["command"],
        {key: "\n".join(words) for key, words in (call["words"] or {}).items()},
        call["priority"],
        "" if deadline is None else show_number(deadline),
        call["chunks"],
    )


def show_number(value: float) -> str:
    """A number as a person would type it."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def call_form(scene: Scene, entry: Mapping[str, Any], typed: Typed, wrong: str = "") -> Tag:
    """The form.

    :param entry: the command, as the catalogue describes it.
    :param typed: what is in the fields already.
    :param wrong: what is wrong with it.
    """
    examples = example_words({**entry, "arguments": list(_keys(entry))})
    return form(
        scene,
        "call",
        [_argument(key, typed.fields.get(key["key"], ""), examples, wrong) for key in _keys(entry)],
        tags.div(class_="options")(
            tags.label(
                "Priority",
                tags.select(name="priority")(
                    _option(each, each, typed.priority) for each in PRIORITIES
                ),
            ),
            tags.label(
                "Deadline",
                tags.input(
                    type="text",
                    name="deadline",
                    value=typed.deadline,
                    placeholder="none; or 30, 5m",
                    maxlength="20",
                ),
            ),
            tags.label(class_="check")(
                tags.input(
                    type="checkbox",
                    name="chunks",
                    **({"checked": "checked"} if typed.chunks else {}),
                ),
                "Show parts of the result",
            ),
        ),
        tags.button(type="submit")("Call"),
        command=entry["name"],
    )


def _keys(entry: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    keys: Sequence[dict[str, Any]] = entry["arguments"]
    return keys[:MOST_FIELDS]


def _elements(typed: str) -> list[str]:
    """The words for a list: a line each, or all of it if it is one value of JSON."""
    if typed.lstrip()[:1] == "[":
        return [typed]
    try:
        whole = json.loads(typed)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, dict):
        return [typed]
    return [line for line in typed.split("\n") if line.strip()]


def _argument(
    key: Mapping[str, Any], typed: str, examples: Mapping[str, Sequence[str]], wrong: str
) -> Tag:
    """The field of an argument, with its name and type."""
    name = key["key"]
    kind = plain(key["type"])["name"]
    said: dict[str, str] = {"name": f"{_PREFIX}{name}"}
    if f"argument {name!r}" in wrong:
        said |= {"aria-invalid": "true", "autofocus": "autofocus"}
    example = "\n".join(examples.get(name, ()))
    about = f"{type_name(key['type'])}{', optional' if key['optional'] else ''}"
    return tags.label(
        tags.span(class_="key")(text(name), " ", tags.small(text(about))),
        _field(kind, typed, example, said),
        tags.small(_HINTS[kind]) if kind in _HINTS else "",
    )


def _field(kind: str, typed: str, example: str, said: dict[str, str]) -> Tag:
    if kind == "Boolean":
        return tags.select(**said)(
            _option(value, title, typed.lower())
            for value, title in (("", "choose …"), ("true", "true"), ("false", "false"))
        )
    if kind in _LISTS or kind in _TEXTS:
        rows = "3" if kind in _LISTS else "1"
        bounds = {"rows": rows, "maxlength": str(MAX_FIELD), "placeholder": example}
        # Browsers leave out a newline at the beginning.
        return tags.textarea(**said, **bounds)(f"\n{typed}")
    bounds = {"value": typed, "placeholder": example, "maxlength": str(MAX_FIELD)}
    if kind == "Integer":
        return tags.input(type="number", step="1", **said, **bounds)
    return tags.input(type="text", **said, **bounds)


def _option(value: str, title: str, chosen: str) -> Tag:
    return tags.option(value=value, **({"selected": "selected"} if value == chosen else {}))(title)
