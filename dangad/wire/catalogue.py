"""Job types as a document in JSON, the catalogue.

Workers make it (their Hello), and the server passes it on (``dangad.Describe``). :mod:`dangad.cli`
turns it back into AMP arguments, and so can call commands that it cannot import.

The document::

    {"commands": [
        {"name": "Thumbnail",
         "doc": "Make an image smaller.",
         "arguments": [{"key": "image", "type": {"name": "Large", "of": {"name": "String"}},
                        "optional": false}, ...],
         "response": [... the same ...],
         "errors": ["UNREADABLE_IMAGE"],
         "policy": {"time_limit": 30.0, "retries": 1, "max_running": null,
                    "on_disconnect": "cancel"}}]}

A type has the name of its AMP argument class. ``Large`` and ``ListOf`` have their element's type
under ``of``, ``AmpList`` has its keys (in the form of ``arguments``) under ``keys``. A user's own
class is described by its base class, or by ``Custom`` if the base class is ``Argument`` itself. The
values of a ``Custom`` are bytes to a program without the class. Commands are sorted by name.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from twisted.protocols import amp

from dangad.wire.values import Large

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Policy:
    """A job type's rules for the scheduler, announced by the workers that perform the type."""

    time_limit: float | None = None
    """Seconds that one attempt may run; None for no limit."""
    retries: int = 0
    """How often a job may be tried again after its worker died."""
    max_running: int | None = None
    """How many jobs of the type may run at once; None for no limit."""
    on_disconnect: Literal["cancel", "finish"] = "cancel"
    """What becomes of a running job whose client disconnects."""
    isolate: bool = False
    """Whether each job has a worker process of its own, which runs no other job before or after."""
    stoppable: bool = False
    """Whether a worker may go on after a job that was stopped and ended by itself."""


NO_POLICY = Policy()
"""The policy of an unknown job type: the defaults."""

_SCALARS: dict[str, type[amp.Argument]] = {
    "Integer": amp.Integer,
    "Float": amp.Float,
    "Boolean": amp.Boolean,
    "Decimal": amp.Decimal,
    "DateTime": amp.DateTime,
    "Path": amp.Path,
    "Unicode": amp.Unicode,
    "String": amp.String,
}
"""AMP's argument classes for single values; subclasses come before their bases."""

CUSTOM = "Custom"


def describe_argument(argument: amp.Argument) -> dict[str, Any]:
    """What kind of values `argument` carries, as in the catalogue."""
    if isinstance(argument, Large):
        return {"name": "Large", "of": describe_argument(argument.argument)}
    if isinstance(argument, amp.ListOf):
        return {"name": "ListOf", "of": describe_argument(argument.elementType)}
    if isinstance(argument, amp.AmpList):
        return {"name": "AmpList", "keys": describe_keys(argument.subargs)}
    for name, kind in _SCALARS.items():
        if isinstance(argument, kind):
            return {"name": name}
    return {"name": CUSTOM}


def describe_keys(keys: Sequence[tuple[bytes, amp.Argument]]) -> list[dict[str, Any]]:
    """The arguments, or the response, of a command, as in the catalogue."""
    return [
        {
            "key": key.decode("ascii"),
            "type": describe_argument(argument),
            "optional": bool(argument.optional),
        }
        for key, argument in keys
    ]


def describe_command(command: type[amp.Command], policy: Policy, doc: str) -> dict[str, Any]:
    """One entry of the catalogue."""
    return {
        "name": command.commandName.decode("ascii"),
        "doc": doc,
        "arguments": describe_keys(command.arguments),
        "response": describe_keys(command.response),
        "errors": sorted(code.decode("ascii", "replace") for code in all_errors(command).values()),
        "policy": dataclasses.asdict(policy),
    }


def all_errors(command: type[amp.Command]) -> dict[type[Exception], bytes]:
    """The errors that the command declares, fatal ones included, with their codes."""
    declared: dict[type[Exception], bytes] = command.allErrors  # type: ignore[attr-defined]
    return declared


def command_doc(command: type[amp.Command], function: object) -> str:
    """The description of a command: its own docstring, or else its function's."""
    doc = command.__doc__ if command.__doc__ != amp.Command.__doc__ else None
    return inspect.cleandoc(doc or getattr(function, "__doc__", None) or "")


def write_catalogue(entries: Iterable[dict[str, Any]]) -> str:
    """The document that holds these entries."""
    return json.dumps({"commands": sorted(entries, key=lambda entry: entry["name"])})


def build_argument(description: dict[str, Any], optional: bool = False) -> amp.Argument:
    """The AMP argument for the values that `description` describes.

    :raises KeyError: the description is not one of this module's.
    """
    name = description["name"]
    if name == "Large":
        return Large(build_argument(description["of"]), optional)
    if name == "ListOf":
        return amp.ListOf(build_argument(description["of"]), optional)
    if name == "AmpList":
        return amp.AmpList(build_keys(description["keys"]), optional)
    return amp.String(optional) if name == CUSTOM else _SCALARS[name](optional)


def build_keys(keys: Iterable[dict[str, Any]]) -> list[tuple[bytes, amp.Argument]]:
    """The arguments, or the response, that these entries of the catalogue describe."""
    return [
        (key["key"].encode("ascii"), build_argument(key["type"], key["optional"])) for key in keys
    ]


def build_command(entry: dict[str, Any]) -> type[amp.Command]:
    """A command class with the name, arguments and response of a catalogue's entry."""
    return type(
        entry["name"],
        (amp.Command,),
        {
            "commandName": entry["name"].encode("ascii"),
            "arguments": build_keys(entry["arguments"]),
            "response": build_keys(entry["response"]),
            "__doc__": entry["doc"],
        },
    )
