"""Parsers of options' texts: numbers, sizes, times, and words of a few.

Used by :mod:`.commandline`. A parser raises ValueError for a text that is not valid, as
`usage.Options` expects; its message names the option.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from twisted.python import usage

if TYPE_CHECKING:
    from collections.abc import Callable


MAX_NUMBER = 2**63 - 1
"""The largest whole number of an option: TOML has no larger ones."""


def whole_number(option: str, least: int, most: int | None = None) -> Callable[[str], int]:
    """A parser for an option's text: a whole number, `least` or more, and at most `most`."""
    bounds = f"from {least}" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        number = _natural(text) if text.isascii() and text.isdigit() else -1
        if number > MAX_NUMBER:
            raise ValueError(f"--{option} {text}: the number is too large")
        if number < least or (most is not None and number > most):
            raise ValueError(f"--{option} {text}: not a whole number {bounds}")
        return number

    parse.coerceDoc = f"A whole number {bounds}."  # type: ignore[attr-defined]
    return parse


def seconds(option: str, *, zero: bool = True, least: float = 0.0) -> Callable[[str], float]:
    """A parser for an option's text: seconds, 0 or more, or above 0 if `zero` is not allowed.

    :param least: the least number that is not 0.
    """
    bounds = f"0, or {least:g} or more" if least else "0 or more" if zero else "above 0"

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf") or (number < least if number else not zero):
            raise ValueError(f"--{option} {text}: not a number of seconds, {bounds}")
        return number

    parse.coerceDoc = "A number of seconds."  # type: ignore[attr-defined]
    return parse


def size(option: str, least: int = 1) -> Callable[[str], int]:
    """A parser for an option's text: bytes, with k, M or G at the end for 1024 and its powers."""

    def parse(text: str) -> int:
        units = {"k": 2**10, "m": 2**20, "g": 2**30}
        unit = units.get(text[-1:].lower(), 1)
        digits = text[:-1] if unit > 1 else text
        number = _natural(digits) * unit if digits.isascii() and digits.isdigit() else -1
        if number < least:
            valid = f"a number of bytes from {least}" if least else "a number of bytes"
            raise ValueError(f"--{option} {text}: not {valid}, or one with k, M or G")
        if number > MAX_NUMBER:
            raise ValueError(f"--{option} {text}: the number is too large")
        return number

    parse.coerceDoc = "A number of bytes, or one with k, M or G."  # type: ignore[attr-defined]
    return parse


def _natural(digits: str) -> int:
    """The number of these digits, or one beyond :data:`MAX_NUMBER`."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= len(str(MAX_NUMBER)) else MAX_NUMBER + 1


def one_of(option: str, words: tuple[str, ...]) -> Callable[[str], str]:
    """A function that takes the text of an option if it is one of the words.

    It raises UsageError if it is not.
    """

    def read(text: str) -> str:
        if text not in words:
            raise usage.UsageError(f"--{option} {text}: it must be one of {', '.join(words)}")
        return text

    return read


def octal(option: str) -> Callable[[str], int]:
    """A parser for an option's text: a file mode mask, an octal number."""

    def parse(text: str) -> int:
        try:
            mask = int(text, 8)
        except ValueError:
            mask = -1
        if not 0 <= mask <= 0o777:
            raise ValueError(f"--{option} {text}: not an octal number from 0 to 777")
        return mask

    parse.coerceDoc = "An octal number."  # type: ignore[attr-defined]
    return parse


def url_path(option: str) -> Callable[[str], str]:
    """A parser for an option's text: the path of a URL, without a slash at its end."""

    def parse(text: str) -> str:
        if not re.fullmatch(r"(/[\w.~-]+)*/?", text, re.ASCII):
            raise ValueError(f"--{option} {text}: not a path like /dangad")
        return text.rstrip("/")

    parse.coerceDoc = "A path like /dangad."  # type: ignore[attr-defined]
    return parse
