"""What every subcommand of ``dangad`` needs: a connection, and a reactor that runs meanwhile.

:mod:`dangad.cli.calling` and :mod:`dangad.cli.operators` say here where to connect and what to do
with the connection. What goes wrong is a :class:`~dangad.cli.outcome.Failed` with one of the exit
statuses.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
from typing import TYPE_CHECKING, Any

from dangad.cli.options import DOORS
from dangad.cli.outcome import (
    FAILED,
    NOT_CONNECTED,
    SIGNALLED,
    WRONG_USAGE,
    Failed,
    WrongUsage,
)
from dangad.cli.streams import is_writing
from dangad.host.lean import WITHOUT_TLS, import_network

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from twisted.protocols import amp

    from dangad.client import Client, Disconnected
    from dangad.errors import DangadError

_OTHER_DOOR = {"connect": "control", "control": "connect"}
_PARTIES = {"connect": "clients", "control": "operators"}
"""Who connects where these options say."""
MAX_PAYLOAD = 2**30
"""Bytes of the largest answer that is taken: as large as the server's limit may sensibly be."""


# Connecting.


def endpoint_named(text: str) -> str:
    """The Twisted endpoint description that the value of ``--connect`` or ``--control`` stands for.

    What does not begin like one (``word:``), or is a file that exists, is a UNIX socket's path.
    """
    if re.match("[A-Za-z0-9]+:", text) and not os.path.exists(text):
        return text
    return "unix:" + re.sub(r"([\\:])", r"\\\1", text)


def with_client(name: str, given: str | None, use: Callable[[Client], Awaitable[bytes]]) -> bytes:
    """What `use` gives, with a client that is connected meanwhile.

    :param name: which of the options in `DOORS` says where to connect.
    :param given: what it says; None for the default.
    :raises WrongUsage: that is no endpoint.
    :raises Failed: there is no connection, or `use` met an error of the server's.
    """
    where = endpoint_named(given or DOORS[name])
    if where.startswith(WITHOUT_TLS):
        import_network()
    from twisted.internet.endpoints import clientFromString
    from twisted.protocols import amp

    from dangad.client import Disconnected, connect
    from dangad.errors import DangadError, UnhandledCommand

    variable = f"DANGAD_{name.upper()}"

    async def work(reactor: Any) -> bytes:
        try:
            endpoint = clientFromString(reactor, where)
        except Exception as error:  # noqa: BLE001 - each kind of endpoint has its own
            raise WrongUsage(f"--{name} {where}: {error}") from None
        try:
            client = await connect(reactor, endpoint, max_payload=MAX_PAYLOAD)
        except Exception as error:  # noqa: BLE001 - each kind of endpoint has its own
            text, is_there = _why(error, where)
            if given is None and not is_there:
                text += f"; say where {_PARTIES[name]} connect by --{name} or ${variable}"
            raise Failed(NOT_CONNECTED, f"cannot connect to {where}: {text}") from None
        try:
            return await use(client)
        except (amp.RemoteAmpError, DangadError, Disconnected) as error:
            if isinstance(error, UnhandledCommand) and await _is_wrong_door(client, name):
                wrong = f"{where} is where {_PARTIES[_OTHER_DOOR[name]]} connect"
                text = f"--{name} or ${variable} says where {_PARTIES[name]} do"
                raise Failed(WRONG_USAGE, f"{wrong}; {text}") from None
            raise _explain(error) from error
        finally:
            await client.close()

    return _run_reactor(work)


async def _is_wrong_door(client: Client, name: str) -> bool:
    """Whether a server that does not know a command was asked at the wrong endpoint."""
    from dangad.wire import commands

    try:
        await client.run(commands.Ping if name == "control" else commands.Status)
    except Exception:  # noqa: BLE001 - then there is something else to be said
        return False
    return True


def _run_reactor(work: Callable[[Any], Awaitable[bytes]]) -> bytes:
    """What `work` gives or raises, with the reactor running meanwhile.

    :raises Failed: a signal came first; the connection is closed by the end of the process, and
        the server cancels the job.
    """
    from twisted.internet import defer, reactor

    loop: Any = reactor
    outcome: list[bytes | BaseException] = []
    signals: list[int] = []

    def interrupt(number: int, _: object) -> None:
        signals.append(number)
        signal.signal(number, signal.SIG_DFL)  # the second one ends this process at once
        loop.callFromThread(_stop, loop)
        if is_writing():
            raise Failed(SIGNALLED + number)

    async def collect() -> None:
        try:
            outcome.append(await work(loop))
        except BaseException as error:  # noqa: BLE001 - raised again once the reactor has stopped
            outcome.append(error)
        _stop(loop)

    # Twisted's own handlers would only stop the reactor, and not tell which signal it was.
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, interrupt)
    loop.callWhenRunning(lambda: defer.Deferred.fromCoroutine(collect()))
    loop.run(installSignalHandlers=False)
    for number in signals:
        raise Failed(SIGNALLED + number)
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result


def _stop(reactor: Any) -> None:
    from twisted.internet.error import ReactorNotRunning

    with contextlib.suppress(ReactorNotRunning):  # it is being stopped already
        reactor.stop()


def _explain(error: amp.RemoteAmpError | DangadError | Disconnected) -> Failed:
    """What an error of the client's means to the user."""
    from dangad.client import Disconnected
    from dangad.errors import BadArguments, DangadError, Forbidden, UnhandledCommand

    if isinstance(error, Disconnected):
        return Failed(NOT_CONNECTED, str(error))
    if isinstance(error, Forbidden):
        return Failed(NOT_CONNECTED, f"{error.code.decode()}: {error}")
    if isinstance(error, DangadError):
        wrong = isinstance(error, (BadArguments, UnhandledCommand))
        return Failed(WRONG_USAGE if wrong else FAILED, f"{error.code.decode()}: {error}")
    code = error.errorCode.decode("ascii", "backslashreplace")
    return Failed(FAILED, f"{code}: {error.description}")


def _why(error: Exception, where: str) -> tuple[str, bool]:
    """Why a connection was not made, and whether a server is, or was, at this endpoint."""
    number = getattr(error, "osError", None)
    is_socket = where.startswith("unix:")
    if number == errno.ENOENT and is_socket:
        return "no server listens there now: it does not run, is stopping, or is elsewhere", False
    if number == errno.ECONNREFUSED and is_socket:
        return "the socket is there, but its server has died: start it again", True
    if number == errno.ECONNREFUSED:
        return "no server listens there now: it does not run, or is stopping", False
    if number == errno.EACCES:
        return "Permission denied; it may be open to the server's own user only", True
    if isinstance(number, int):
        return os.strerror(number), False
    said = str(getattr(error, "strerror", None) or error).rstrip(".")
    return said or type(error).__name__, False
