"""Endpoint descriptions: dangad reads its own words in them, and leaves the rest to Twisted.

Used by :mod:`dangad.tap` and :mod:`dangad.service`; :mod:`dangad.server.listening` opens the
endpoints. A description is one of Twisted's, like ``unix:/run/x.sock`` or ``tcp:7003``, or the path
of a UNIX socket. dangad removes its own words before Twisted sees the description.
"""

from __future__ import annotations

import contextlib
import enum
import re
import socket
import stat
from dataclasses import dataclass, replace
from ipaddress import IPv4Address as Number4
from ipaddress import IPv6Address as Number6
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    quoteStringArgument,
    serverFromString,
)
from twisted.protocols.haproxy import proxyEndpoint

from dangad.addresses import looks_described
from dangad.server.unixport import BACKLOG, MODE, AdoptedUnixEndpoint, UnixEndpoint

if TYPE_CHECKING:
    from socket import AddressFamily

    from twisted.internet.interfaces import IStreamServerEndpoint


class Auth(enum.Enum):
    """Who may connect: the values of ``auth=`` in a description."""

    USER = "user"
    """The server's own user, root, and users whom an option names."""
    NONE = "none"
    """Everybody who can connect."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A parsed description.

    :ivar text: the description as written.
    :ivar kind: its first word, in lower case.
    :ivar description: the description without dangad's own words, for Twisted.
    :ivar auth: who may connect; None if the description does not say.
    :ivar strict_priorities: whether priorities of its clients hold among all clients, and not only
        among the jobs of one client.
    :ivar inner: the endpoint within ``haproxy:``; None for other kinds.
    :ivar path: the path of the UNIX socket; None for other kinds.
    :ivar mode: the mode of the UNIX socket; None if the description does not say.
    :ivar backlog: how many connections may wait in the kernel.
    :ivar noted: whether a file beside the UNIX socket names the process that listens.
    """

    text: str
    kind: str
    description: str
    auth: Auth | None = None
    strict_priorities: bool = False
    inner: Endpoint | None = None
    path: str | None = None
    mode: int | None = None
    backlog: int = BACKLOG
    noted: bool = True

    def make(self, reactor: Any, owner: tuple[int, int] = (-1, -1)) -> IStreamServerEndpoint:
        """Twisted's endpoint for the description.

        :param owner: the ids of the user and the group that own a UNIX socket; -1 for those of this
            process.
        :raises Exception: Twisted cannot read the description; the class depends on its kind.
        """
        if self.inner is not None:
            return proxyEndpoint(self.inner.make(reactor, owner))
        if self.path is not None:
            mode = MODE if self.mode is None else self.mode
            return UnixEndpoint(reactor, self.path, mode, self.backlog, self.noted, owner)
        made = self._make_by_twisted(reactor)
        if isinstance(made, AdoptedStreamServerEndpoint):
            family: AddressFamily = made.addressFamily
            if family.name == "AF_UNIX":
                return AdoptedUnixEndpoint(reactor, made.fileno)
        return made

    def _make_by_twisted(self, reactor: Any) -> IStreamServerEndpoint:
        try:
            made: IStreamServerEndpoint = serverFromString(reactor, self.description)
        except TypeError as error:
            word = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if word is None:
                raise
            own = ", ".join(f"{name}=" for name in _OWN_WORDS)
            raise ValueError(
                f"{word[1]}= is none of Twisted's words for {self.kind}:, and none of {own}"
            ) from None
        port = self._word("port", 1) if self.kind in _INTERFACE_PLACES else ""
        if port.isdecimal() and int(port) > MAX_PORT:
            raise ValueError(f"{port} is not a port: it must be from 0 to {MAX_PORT}")
        return made

    @property
    def usual_auth(self) -> Auth:
        """Who may connect from within the machine: as the description says, or the default.

        If a mode is named, everybody whom the mode admits may connect. Users of a proxy's clients
        are not known.
        """
        if self.auth is not None:
            return self.auth
        innermost = self.inner or self
        return Auth.NONE if innermost.mode is not None or self.kind == "stdio" else Auth.USER

    @property
    def admits_anybody(self) -> bool:
        """Whether every user of this machine may connect: no mode and no check keeps one out."""
        if self.usual_auth is Auth.USER:
            return False
        innermost = self.inner or self
        mode = MODE if innermost.mode is None else innermost.mode
        return innermost.path is None or bool(mode & stat.S_IWOTH)

    @property
    def reaches_beyond(self) -> bool:
        """Whether the description shows that the endpoint can be reached from other machines.

        False if this is known only when the endpoint is open.
        """
        if self.inner is not None:
            return self.inner.reaches_beyond
        if self.kind not in _INTERFACE_PLACES:
            return False
        interface = self._word("interface", _INTERFACE_PLACES[self.kind])
        address = address_of(interface or "0.0.0.0")
        return address is not None and not address.is_loopback

    def _word(self, name: str, place: int) -> str:
        """What the description says under this name, or without a name at this place."""
        words, places = [], []
        for part in _split(self.description):
            word = _WORD.fullmatch(part)
            if word is None:
                places.append(part)
            elif _unescape(word[1]) == name:
                words.append(word[2])
        return _unescape([*words, *places[place:], ""][0])


MAX_PORT = 2**16 - 1
"""The largest number of a TCP port."""
_INTERFACE_PLACES = {"tcp": 2, "tcp6": 3, "ssl": 5}
"""Kinds of descriptions in which an interface may come without its name, each with the place of
the interface. Without one they listen on all interfaces."""

_WORD = re.compile(r"((?:\\.|[^\\=])*)=(.*)", re.DOTALL)
_OWN_WORDS = {"auth": ("user", "none"), "priorities": ("strict", "fair")}
_PATH_WITH_WORDS = re.compile(r":(auth|priorities|mode|backlog|lockfile)=")


def read_endpoint(text: str) -> Endpoint:
    """Parse a description, or the path of a UNIX socket.

    :raises ValueError: dangad's part is not valid; the text says why. The rest is not checked.
    """
    if text.isdecimal():
        raise ValueError(f"for a TCP port, write tcp:{text}:interface=127.0.0.1")
    if not looks_described(text):
        if _PATH_WITH_WORDS.search(text):
            raise ValueError(f"write unix:{text}")
        if not text:
            raise ValueError("it is empty")
        return Endpoint(text, "unix", f"unix:{quoteStringArgument(text)}", path=text)
    words: dict[str, str] = {}
    rest: list[str] = []
    for part in _split(text):
        word = _WORD.fullmatch(part)
        key = _unescape(word[1]) if word else ""
        if word is None or key not in _OWN_WORDS:
            rest.append(part)
            continue
        if key in words:
            raise ValueError(f"{key}= is there twice")
        words[key] = _unescape(word[2])
        if words[key] not in _OWN_WORDS[key]:
            raise ValueError(f"{key}={words[key]} is none of {', '.join(_OWN_WORDS[key])}")
    return replace(
        _read_rest(text, rest),
        auth=Auth(words["auth"]) if "auth" in words else None,
        strict_priorities=words.get("priorities") == "strict",
    )


def _read_rest(text: str, parts: list[str]) -> Endpoint:
    """The endpoint of these parts of a description, from which dangad's words are removed."""
    kind = parts[0].lower()
    description = ":".join(parts)
    if kind == "haproxy":
        if not parts[1:] or parts[1].lower() in ("", "haproxy", "stdio"):
            raise ValueError("haproxy: is followed by another endpoint, as in haproxy:tcp:7003")
        inner = _read_rest(text, parts[1:])
        return Endpoint(text, kind, description, inner=inner)
    if kind == "unix":
        return Endpoint(text, kind, description, **_read_unix(parts[1:]))
    return Endpoint(text, kind, description)


def _read_unix(parts: list[str]) -> dict[str, Any]:
    """The fields of a description of a UNIX socket, by name.

    :raises ValueError: the description is not valid.
    """
    names = ["path", "mode", "backlog", "lockfile"]
    said: dict[str, str] = {}
    for number, part in enumerate(parts):
        word = _WORD.fullmatch(part)
        key = _unescape(word[1]) if word else names[number] if number < len(names) else part
        if key == "address":  # as Twisted calls it
            key = "path"
        if key in said:
            raise ValueError(f"{key}= is there twice")
        if key not in names:
            words = ", ".join(f"{name}=" for name in (*names[1:], *_OWN_WORDS))
            raise ValueError(f"{part!r} is not understood; after the path there may be {words}")
        said[key] = _unescape(word[2] if word else part)
    if not said.get("path"):
        raise ValueError("it names no path")
    fields: dict[str, Any] = {"path": said["path"]}
    mode, backlog = said.get("mode"), said.get("backlog")
    if mode is not None:
        if not re.fullmatch("0?[0-7]{3}", mode):
            raise ValueError(f"mode={mode} is not like mode=660")
        fields["mode"] = int(mode, 8)
    if backlog is not None:
        if not re.fullmatch("[1-9][0-9]{0,8}", backlog):
            raise ValueError(f"backlog={backlog} is not a whole number from 1")
        fields["backlog"] = int(backlog)
    if said.get("lockfile", "1") not in ("0", "1"):
        raise ValueError(f"lockfile={said['lockfile']} is neither 0 nor 1")
    fields["noted"] = said.get("lockfile") != "0"
    return fields


def _split(text: str) -> list[str]:
    """The parts of a description between its colons, as written."""
    parts = [""]
    characters = iter(text)
    for character in characters:
        if character == ":":
            parts.append("")
        else:
            escaped = next(characters, "") if character == "\\" else ""
            parts[-1] += character + escaped
    return parts


def _unescape(part: str) -> str:
    return re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL)


def address_of(host: str) -> Number4 | Number6 | None:
    """The IP address in a text, in any form that the system accepts; None for a name."""
    with contextlib.suppress(ValueError):
        address = ip_address(host.partition("%")[0])
        return getattr(address, "ipv4_mapped", None) or address
    with contextlib.suppress(OSError, ValueError):
        return Number4(socket.inet_aton(host))
    return None
