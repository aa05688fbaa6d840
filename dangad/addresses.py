"""How addresses written by people are read: Twisted's descriptions of endpoints, and plain paths.

Used by both sides: by :mod:`dangad.client.factory` and :mod:`dangad.cli.running`, and by
:mod:`dangad.tap` for the server's own endpoints.
"""

from __future__ import annotations

import os
import re

CLIENT_FORMS = {"tcp": "tcp:HOST:PORT", "tls": "tls:HOST:PORT", "unix": "unix:PATH"}
"""How to write a client's endpoint, for some kinds of endpoints."""
SERVER_FORMS = {"tcp": "tcp:PORT:interface=127.0.0.1", "unix": "unix:PATH"}
"""How to write a server's endpoint, for some kinds of endpoints."""

_MISSING = re.compile(r"missing \d+ required positional arguments?: (.*)")
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
_NO_NUMBER = re.compile(r"invalid literal for int\(\) with base 10: (.*)")


def description_of(text: str) -> str:
    """The Twisted description of the endpoint that `text` names.

    A text that does not begin like a description (``word:``), or names an existing file, is the
    path of a UNIX socket.
    """
    if re.match("[A-Za-z0-9]+:", text) and not os.path.exists(text):
        return text
    return "unix:" + re.sub(r"([\\:])", r"\\\1", text)


def what_is_wrong(text: str, error: Exception, forms: dict[str, str]) -> str:
    """Why Twisted cannot read a description, and how to write it.

    :param error: the exception that Twisted raised; its text names Twisted's own functions.
    :param forms: `CLIENT_FORMS` or `SERVER_FORMS`.
    """
    said = str(error)
    kind = text.partition(":")[0].lower()
    advice = f"; write {forms[kind]}" if kind in forms else ""
    if said.startswith("Unknown endpoint type"):
        return f"{said}; for the path of a UNIX socket, write ./{text}"
    if found := _MISSING.search(said):
        return f"it has no {found[1]}{advice}".replace("'", "")
    if found := _UNEXPECTED.search(said):
        return f"{found[1]}= is not understood{advice}"
    if found := _NO_NUMBER.search(said):
        return f"{found[1]} is not a number{advice}"
    return f"it has too many parts{advice}" if "positional arguments but" in said else said
