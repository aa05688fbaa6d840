"""Runs a subcommand of ``dangad`` with a connection to the server, and the reactor.

Called by :mod:`dangad.cli.calling` and :mod:`dangad.cli.operators`, with the endpoint and a
function that uses the connection. Every failure is a :class:`~dangad.cli.outcome.Failed` with an
exit status.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import re
import signal
import stat
from typing import TYPE_CHECKING, Any

from dangad.addresses import description_of
from dangad.cli.options import DOORS
from dangad.cli.outcome import (
    FAILED,
    NOT_CONNECTED,
    WRONG_USAGE,
    Failed,
    Signalled,
    WrongUsage,
)
from dangad.cli.streams import is_waiting
from dangad.host.lean import WITHOUT_TLS, import_network

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from twisted.protocols import amp

    from dangad.client import Client, Disconnected
    from dangad.errors import DangadError

_OTHER_DOOR = {"connect": "control", "control": "connect"}
_PARTIES = {"connect": "clients", "control": "operators"}
"""For each option, who connects to its endpoint."""
MAX_PAYLOAD = 2**30
"""Bytes of the largest answer that is accepted: the largest sensible limit of a server."""


# Connecting.


def with_client(name: str, given: str | None, use: Callable[[Client], Awaitable[bytes]]) -> bytes:
    """Connect a client, call `use` with it, and return the result.

    :param name: the option in `DOORS` that says where to connect.
    :param given: the option's value; None for the default.
    :raises WrongUsage: the value is not an endpoint.
    :raises Failed: there is no connection, or `use` got an error from the server.
    """
    where = description_of(given or DOORS[name])
    if where.startswith(WITHOUT_TLS):
        import_network()
    from twisted.protocols import amp

    from dangad.client import Disconnected, connect
    from dangad.client.factory import endpoint_of
    from dangad.errors import DangadError, UnhandledCommand

    variable = f"DANGAD_{name.upper()}"

    async def work(reactor: Any) -> bytes:
        try:
            endpoint = endpoint_of(reactor, where)
        except ValueError as error:
            raise WrongUsage(f"--{name} {where}: {error}") from None
        try:
            client = await connect(reactor, endpoint, max_payload=MAX_PAYLOAD)
        except Exception as error:  # noqa: BLE001 - each kind of endpoint has its own
            text, is_there = why_not_connected(error, where)
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

    gc.freeze()  # the modules live to the end of the process: no collection need look at them
    return _run_reactor(work)


async def _is_wrong_door(client: Client, name: str) -> bool:
    """Whether a server that does not know a command was asked at the wrong endpoint."""
    from dangad.wire import commands

    try:
        await client.run(commands.Ping if name == "control" else commands.Status)
    except Exception:  # noqa: BLE001 - then the first error is the one to report
        return False
    return True


def _run_reactor(work: Callable[[Any], Awaitable[bytes]]) -> bytes:
    """Run the reactor until `work` has ended; return its result, or raise its exception.

    :raises Signalled: a signal came first. The connection closes with the process, and the server
        cancels the job.
    """
    from twisted.internet import defer, reactor

    loop: Any = reactor
    outcome: list[bytes | BaseException] = []
    signals: list[int] = []

    def interrupt(number: int, _: object) -> None:
        signals.append(number)
        signal.signal(number, signal.SIG_DFL)  # the second one ends this process at once
        loop.callFromThread(_stop, loop)
        if is_waiting():
            raise Signalled(number)

    async def collect() -> None:
        try:
            outcome.append(await work(loop))
        except BaseException as error:  # noqa: BLE001 - raised again once the reactor has stopped
            outcome.append(error)
        _stop(loop)

    # Twisted's own handlers would stop the reactor without telling which signal it was.
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, interrupt)
    loop.callWhenRunning(lambda: defer.Deferred.fromCoroutine(collect()))
    loop.run(installSignalHandlers=False)
    for number in signals:
        raise Signalled(number)
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result


def _stop(reactor: Any) -> None:
    from twisted.internet.error import ReactorNotRunning

    with contextlib.suppress(ReactorNotRunning):  # it is being stopped already
        reactor.stop()


def _explain(error: amp.RemoteAmpError | DangadError | Disconnected) -> Failed:
    """The failure to report for an error of the client: text and exit status."""
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


def _is_socket(path: str) -> bool:
    """Whether a socket is at the end of `path`, or nothing can be told."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return True


def why_not_connected(error: Exception, where: str) -> tuple[str, bool]:
    """Why there is no connection, and whether a server is or was at this endpoint."""
    number = getattr(error, "osError", None)
    is_socket = where.startswith("unix:")
    path = re.sub(r"\\(.)", r"\1", where.removeprefix("unix:"))
    if number == errno.ECONNREFUSED and is_socket and not _is_socket(path):
        return f"{path} is not a socket", False
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
