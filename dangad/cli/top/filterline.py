"""The filter line: which jobs an operator means, in the words of the options of ``dangad jobs``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from dangad.cli.options import seconds_of
from dangad.text import meant, printable

if TYPE_CHECKING:
    from collections.abc import Collection


def read_filter(line: str, keys: Collection[str], states: Collection[str]) -> dict[str, Any]:
    """The filter that a line says, as the server takes it: ``command=Sleep older-than=5m``.

    :param keys: the words that may come before an equals sign.
    :param states: what may come after ``state=``.
    :raises ValueError: the line is not valid; the text says in one line what is allowed.
    """
    try:
        words = shlex.split(line)
    except ValueError:
        raise ValueError("a quote is not closed") from None
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        key = key.replace("_", "-")
        if not equals or key not in keys:
            allowed = " ".join(f"{each}=" for each in keys)
            raise ValueError(f"{printable(word)!r}: write {allowed}{meant(key, keys)}")
        name = key.replace("-", "_")
        if name in found:
            raise ValueError(f"{key}= is given twice")
        if key == "state" and value not in states:
            raise ValueError(f"state= is {' or '.join(states)}{meant(value, states)}")
        found[name] = seconds_of(value) if key == "older-than" else value
    return found
