"""The words after ``dangad call Command``: text as typed, or bytes from a file.

:mod:`dangad.cli.calling` reads them before there is a connection, because files and the standard
input may take their time. When the server has described the command, :mod:`dangad.wire.words` makes
values of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.cli.outcome import WrongUsage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def read_words(
    pairs: Iterable[str], read_stdin: Callable[[], bytes]
) -> dict[str, list[str | bytes]]:
    """The words for each key, in their order; a word that begins with @ is read from a file.

    :raises WrongUsage: a word is not ``key=value``, or a file cannot be read.
    """
    words: dict[str, list[str | bytes]] = {}
    stdin_is_for = ""
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise WrongUsage(f"{pair!r} is not an argument: write key=value")
        word: str | bytes = text
        if text.startswith("@@"):
            word = text[1:]
        elif text == "@-":
            if stdin_is_for:
                raise WrongUsage(
                    f"{pair}: the standard input is read only once, for {stdin_is_for}"
                )
            stdin_is_for = pair
            try:
                word = read_stdin()
            except OSError as error:
                raise WrongUsage(
                    f"{pair}: cannot read the standard input: {error.strerror}"
                ) from None
        elif text.startswith("@"):
            try:
                with open(text[1:], "rb") as file:
                    word = file.read()
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or error
                hint = "; a value that begins with @ is written @@" if len(text) == 1 else ""
                raise WrongUsage(f"{pair}: cannot read {text[1:]!r}: {why}{hint}") from None
        words.setdefault(key, []).append(word)
    return words
