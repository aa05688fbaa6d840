"""Numbers and strange characters made readable for people, in logs, errors and tables."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_QUOTED = 40
"""The most bytes of a peer that are quoted in the text of an error."""
ALIKE = 0.7
"""The least similarity, from 0 to 1, at which one word may be the other one mistyped."""
SHORTEST = 2
"""Characters of the shortest word that may be the beginning of another."""

_KINDS = {
    "Integer": "a whole number",
    "Float": "a number",
    "Decimal": "a decimal number",
    "Unicode": "UTF-8 text",
    "String": "bytes",
    "ListOf": "a list",
}
_SIZES = ("bytes", "KiB", "MiB", "GiB", "TiB")
_TIMES = ((0.9995, 0.001, "ms"), (59.95, 1.0, "s"), (3597.0, 60.0, "min"), (172_800.0, 3600.0, "h"))
"""The units of time: the seconds below which each is used, its length in seconds, and its name."""


def show_bytes(number: float) -> str:
    """A number of bytes for people: ``34 MiB``."""
    for unit in _SIZES:
        if number < 1000 or unit == _SIZES[-1]:
            break
        number /= 1024
    return f"{number:.1f} {unit}" if number < 9.95 and unit != "bytes" else f"{number:.0f} {unit}"


def show_seconds(seconds: float) -> str:
    """A time for people: ``2.1 s``."""
    for below, size, unit in _TIMES:
        if seconds < below:
            digits = 0 if unit == "ms" else 1
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds / 86_400:.1f} d"


def kind_in_words(name: str) -> str:
    """The type of an AMP argument in words that follow "is not": ``a whole number``."""
    return _KINDS.get(name) or f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}"


def counted(number: int, noun: str) -> str:
    """A number of things: ``1 job``, ``2 jobs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def worker_name(pid: int) -> str:
    """A worker by its process id: ``worker 4711``; ``a worker`` if it never had a process."""
    return f"worker {pid}" if pid else "a worker"


def signal_name(number: int) -> str:
    """A signal's name: ``SIGKILL``; ``signal 64`` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def find_alike(word: str, known: Iterable[str]) -> str | None:
    """The known word most similar to `word`, or the only one that begins with it.

    Case does not matter. None if there is neither.
    """
    import difflib  # for mistakes only: workers do without

    by_lower = {each.lower(): each for each in known}
    alike = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=ALIKE)
    if not alike and len(word) >= SHORTEST:
        alike = [each for each in by_lower if each.startswith(word.lower())]
    return by_lower[alike[0]] if len(alike) == 1 else None


def meant(word: str, known: Iterable[str], before: str = "") -> str:
    """The end of an error about an unknown word: the most similar known one, if there is any.

    :param before: what comes before the known word.
    """
    alike = find_alike(word, known)
    return f"; did you mean {before}{alike}?" if alike else ""


def printable(text: str, keep: str = "") -> str:
    r"""The text with a backslash escape for every character that is not simply printed.

    These are control characters, line breaks, and invisible characters that change the direction of
    writing. Bytes that were not UTF-8 (lone surrogates) become ``\xff`` and the like.

    :param keep: characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def quote(value: bytes) -> str:
    """Bytes of a peer for the text of an error: in quotes, and not too many."""
    return repr(value[:MOST_QUOTED])[1:]
