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

_HOST_AND_PORT = re.compile(r"([^/]*):(\d+)")
_EVERYWHERE = frozenset({"", "0.0.0.0", "\\:\\:"})
_MISSING = re.compile(r"missing \d+ required positional arguments?: (.*)")
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
_NO_NUMBER = re.compile(r"invalid literal for int\(\) with base 10: (.*)")


def description_of(text: str) -> str:
    """The Twisted description of the endpoint that `text` names.

    A text that neither begins like a description (``word:``) nor is a host and a port, or that
    names an existing file, is the path of a UNIX socket. A host and a port are left for Twisted to
    refuse: they look like neither a description nor a path.
    """
    if looks_described(text) and not os.path.exists(text):
        return text
    return "unix:" + re.sub(r"([\\:])", r"\\\1", text)


def looks_described(text: str) -> bool:
    """Whether the text begins like a description, or is a host and a port."""
    return bool(re.match("[A-Za-z0-9]+:", text) or _HOST_AND_PORT.fullmatch(text))


def client_form(description: str) -> str:
    """How clients of this machine reach a server's endpoint; empty if that is not known.

    :param description: the server's endpoint, in Twisted's form or as a path.
    """
    kind, _, rest = description_of(description).partition(":")
    first, *others = re.findall(r"((?:[^\\:]|\\.)*)(?::|$)", rest)[:-1] or [""]
    if kind == "unix" and first:
        return f"unix:{first}"
    if kind == "tcp" and first.isdigit() and int(first):
        faces = [each.partition("=")[2] for each in others if each.startswith("interface=")]
        face = faces[-1] if faces else ""
        return f"tcp:{'localhost' if face in _EVERYWHERE else face}:{first}"
    return ""


def what_is_wrong(text: str, error: Exception, forms: dict[str, str]) -> str:
    """Why Twisted cannot read a description, and how to write it.

    :param error: the exception that Twisted raised; its text names Twisted's own functions.
    :param forms: `CLIENT_FORMS` or `SERVER_FORMS`.
    """
    said = str(error)
    kind = text.partition(":")[0].lower()
    advice = f"; write {forms[kind]}" if kind in forms else ""
    unknown = said.startswith("Unknown endpoint type")
    if unknown and (found := _HOST_AND_PORT.fullmatch(text)):
        host, port = found[1].strip("[]").replace(":", r"\:") or "localhost", found[2]
        form = forms["tcp"].replace("HOST", host).replace("PORT", port)
        if host != "localhost":
            form = form.replace("127.0.0.1", host)
        return f"{said}; write {form}"
    if unknown:
        return f"{said}; for the path of a UNIX socket, write ./{text}"
    if found := _MISSING.search(said):
        return f"it has no {found[1]}{advice}".replace("'", "")
    if found := _UNEXPECTED.search(said):
        return f"{found[1]}= is not understood{advice}"
    if found := _NO_NUMBER.search(said):
        return f"{found[1]} is not a number{advice}"
    return f"it has too many parts{advice}" if "positional arguments but" in said else said
