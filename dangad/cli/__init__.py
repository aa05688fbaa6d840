"""The ``dangad`` command: call a job from a shell, and see which there are.

:func:`main` is the console script. It reads the command line, connects as any other client
(:mod:`dangad.client`), learns the types of the command's arguments from the server, and writes
the answer. Words become values in :mod:`dangad.cli.arguments`, answers become text in
:mod:`dangad.cli.output`, progress becomes a bar in :mod:`dangad.cli.bar`; here are the options,
the reactor and the exit statuses.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import json
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from dangad.cli.arguments import (
    WrongUsage,
    build_arguments,
    build_typed_command,
    parse_seconds,
    read_words,
)
from dangad.cli.output import (
    answer_as_json,
    answer_as_table,
    catalogue_as_table,
    printable,
    raw_key,
    value_as_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from twisted.protocols import amp

    from dangad.cli.bar import ProgressBar
    from dangad.client import Client, Disconnected
    from dangad.errors import DangadError

OK = 0
FAILED = 1
"""The job ended with an error, or its answer could not be written."""
WRONG_USAGE = 2
NOT_CONNECTED = 3
SIGNALLED = 128
"""Added to the number of the signal that ended the command."""

MAX_PAYLOAD = 2**30
"""Bytes of the largest answer that is taken: as large as the server's limit may sensibly be."""
PRIORITIES = ("high", "normal", "low")


class Failed(Exception):
    """The command cannot do what it was asked; the text says why, in one line.

    :ivar status: the exit status that tells it.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Interrupted(Exception):
    """A signal came while the standard output was written to, where nothing else would end it.

    :ivar number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status, after everything was done and said.

    :param arguments: the words of the command line after the program's name, if not those that
        the program was started with.
    """
    try:
        options = parse_options(sys.argv[1:] if arguments is None else arguments)
        _write(options.perform(options))
        return OK
    except WrongUsage as error:
        return _say(WRONG_USAGE, str(error))
    except Failed as error:
        return _say(error.status, str(error))
    except _Interrupted as interrupted:
        return SIGNALLED + interrupted.number
    except KeyboardInterrupt:
        return SIGNALLED + signal.SIGINT


# The command line.


class _Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        raise WrongUsage(f"{message}; see {self.prog} --help")


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """What the command line says; `perform` in it is the function to call with all of it.

    :raises WrongUsage: it says nothing sensible.
    :raises SystemExit: it asked for help, which was printed.
    """
    parser = _make_parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse ends a row of words at the first option; here options may stand between them.
    words = getattr(options, "words", None)
    stray = [word for word in rest if words is None or word.startswith("-")]
    if stray:
        parser.error(f"unrecognized: {' '.join(stray)}")
    if words is not None:
        words.extend(rest)
    return options


def _make_parser() -> argparse.ArgumentParser:
    everywhere = _Parser(add_help=False)
    everywhere.add_argument(
        "--connect",
        metavar="ENDPOINT",
        default=argparse.SUPPRESS,  # or the subcommand's default would win over what was given
        help="where the server listens: a Twisted client endpoint such as tcp:HOST:7003, or the "
        "path of a UNIX socket [default: $DANGAD_CONNECT or dangad.sock]",
    )
    parser = _Parser(
        prog="dangad",
        description="Call jobs of a dangad server.",
        epilog="Exit status: 0 success, 1 the job ended with an error, 2 wrong usage, 3 no "
        "connection or connection lost, 130 interrupted.",
        parents=[everywhere],
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="{call,commands}")

    call = commands.add_parser(
        "call",
        help="have a job done, and print its answer",
        description="Have a job done, and print its answer as a table. Where no terminal is, the "
        "bytes of a response that has exactly one Blob, or is one key of bytes, are written as "
        "they are, and nothing else: first the partial results that the job sends, as they come, "
        "then what the answer holds. On a terminal, the job's progress is shown meanwhile.",
        epilog="A list is written as one key=value for each element, or as JSON, as are records. "
        "A value that begins with @ is read from that file, @- from the standard input, @@ "
        "stands for a value that begins with @. A date without a zone is local time.",
        parents=[everywhere],
        allow_abbrev=False,
    )
    call.add_argument(
        "command", metavar="Command", help="one of those that `dangad commands` lists"
    )
    call.add_argument("words", metavar="key=value", nargs="*", help="the command's arguments")
    form = call.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the answer as a line of JSON")
    form.add_argument("--raw", metavar="KEY", help="write the value of this key as it is")
    form.add_argument(
        "--stream",
        action="store_true",
        help="write the partial results as they come, and then the bytes of the answer, whatever "
        "the standard output and the response are",
    )
    call.add_argument("--priority", choices=PRIORITIES, help="which jobs go first")
    call.add_argument(
        "--deadline",
        type=_seconds,
        metavar="SECONDS",
        help="when the answer is of no use any more, waiting counted",
    )
    call.set_defaults(perform=_call)

    listing = commands.add_parser(
        "commands",
        help="list what the server performs",
        description="List what the server performs: each command with its arguments and their "
        "types (in brackets: may be left out), its response, and what it does.",
        parents=[everywhere],
        allow_abbrev=False,
    )
    listing.add_argument("--json", action="store_true", help="print the whole catalogue as JSON")
    listing.set_defaults(perform=_list_commands)
    return parser


def _seconds(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from None


def endpoint_named(text: str) -> str:
    """The Twisted endpoint description that the value of ``--connect`` stands for.

    What does not begin like one (``word:``), or is a file that exists, is a UNIX socket's path.
    """
    from twisted.internet.endpoints import quoteStringArgument

    if re.match("[A-Za-z0-9]+:", text) and not os.path.exists(text):
        return text
    return f"unix:{quoteStringArgument(text)}"


# The subcommands: each gives what is to be written to the standard output.


def _call(options: argparse.Namespace) -> bytes:
    words = read_words(options.words, _read_stdin)

    async def call(client: Client) -> bytes:
        entry = _find(await client.describe(), options.command)
        values = build_arguments(entry, words)
        keys = entry["response"]
        usual = raw_key(keys)
        plain = not (options.json or _on_terminal())
        raw = options.raw or (usual if plain or options.stream else None)
        raw_keys = [key for key in keys if key["key"] == raw]
        if raw is not None and not raw_keys:
            names = ", ".join(key["key"] for key in keys) or "none"
            raise WrongUsage(f"--raw {raw}: {entry['name']} answers with other keys: {names}")
        try:
            command = build_typed_command(entry)
        except KeyError as error:
            raise Failed(FAILED, f"{entry['name']} has a type unknown here: {error}") from None
        how: dict[str, Any] = {"priority": options.priority, "deadline": options.deadline}
        streams = options.stream or (raw is not None and raw == usual)
        if bar is not None and not (streams and _on_terminal()):
            how["progress"] = bar.show
        if streams:
            stream = client.stream(command, values, **how)
            async for chunk in stream:
                _write(chunk)
            response = await stream.result()
        else:
            response = await client.run(command, values, **how)
        if raw_keys:
            return value_as_bytes(raw_keys[0], response)
        if options.stream:
            return b""
        return _encode((answer_as_json if options.json else answer_as_table)(keys, response))

    bar = _make_bar()
    try:
        return _with_client(options, call)
    finally:
        if bar is not None:
            bar.clear()


def _make_bar() -> ProgressBar | None:
    """A bar on the standard error, if that is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    from dangad.cli.bar import ProgressBar

    return ProgressBar(sys.stderr)


def _find(catalogue: dict[str, Any], name: str) -> dict[str, Any]:
    """The catalogue's entry of this name."""
    entries: dict[str, dict[str, Any]] = {each["name"]: each for each in catalogue["commands"]}
    if name not in entries:
        alike = difflib.get_close_matches(name, entries, n=1)
        alike += [each for each in entries if each.lower() == name.lower()]
        hint = f"did you mean {alike[-1]}?" if alike else "see dangad commands"
        raise WrongUsage(f"the server has no command {name!r}; {hint}")
    return entries[name]


def _list_commands(options: argparse.Namespace) -> bytes:
    async def describe(client: Client) -> bytes:
        catalogue = await client.describe()
        if options.json:
            return _encode(json.dumps(catalogue) + "\n")
        return _encode(catalogue_as_table(catalogue))

    return _with_client(options, describe)


# Running.


def _with_client(options: argparse.Namespace, use: Callable[[Client], Awaitable[bytes]]) -> bytes:
    """What `use` gives, with a client of the server that the options name."""
    from twisted.internet.endpoints import clientFromString
    from twisted.protocols import amp

    from dangad.client import DEFAULT_ENDPOINT, Disconnected, connect
    from dangad.errors import DangadError

    named = getattr(options, "connect", None) or os.environ.get("DANGAD_CONNECT")
    where = endpoint_named(named) if named else DEFAULT_ENDPOINT

    async def work(reactor: Any) -> bytes:
        try:
            endpoint = clientFromString(reactor, where)
        except Exception as error:  # noqa: BLE001 - each kind of endpoint has its own
            raise WrongUsage(f"--connect {where}: {error}") from None
        try:
            client = await connect(reactor, endpoint, max_payload=MAX_PAYLOAD)
        except Exception as error:  # noqa: BLE001 - each kind of endpoint has its own
            raise Failed(NOT_CONNECTED, f"cannot connect to {where}: {_why(error)}") from None
        try:
            return await use(client)
        except (amp.RemoteAmpError, DangadError, Disconnected) as error:
            raise _explain(error) from error
        finally:
            await client.close()

    return _run_reactor(work)


def _run_reactor(work: Callable[[Any], Awaitable[bytes]]) -> bytes:
    """What `work` gives or raises, with the reactor running meanwhile.

    :raises Failed: a signal came first; the connection is closed by the end of the process, and
        the server cancels the job.
    """
    from twisted.internet import defer, reactor

    loop: Any = reactor
    outcome: list[Any] = []
    signals: list[int] = []

    def interrupt(number: int, _: object) -> None:
        signals.append(number)
        signal.signal(number, signal.SIG_DFL)  # the second one ends this process at once
        loop.callFromThread(_stop, loop)
        if _writing:
            raise _Interrupted(number)

    def start() -> None:
        done = defer.Deferred.fromCoroutine(_collect(work(loop), outcome))
        done.addBoth(lambda _: _stop(loop))

    # Twisted's own handlers would only stop the reactor, and not tell which signal it was.
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, interrupt)
    loop.callWhenRunning(start)
    loop.run(installSignalHandlers=False)
    for number in signals:
        raise Failed(SIGNALLED + number, "")
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    output: bytes = result
    return output


async def _collect(work: Awaitable[bytes], outcome: list[Any]) -> None:
    try:
        outcome.append(await work)
    except BaseException as error:  # noqa: BLE001 - raised again once the reactor has stopped
        outcome.append(error)


def _stop(reactor: Any) -> None:
    from twisted.internet.error import ReactorNotRunning

    with contextlib.suppress(ReactorNotRunning):  # it is being stopped already
        reactor.stop()


def _explain(error: amp.RemoteAmpError | DangadError | Disconnected) -> Failed:
    """What an error of the client's means to the user."""
    from dangad.client import Disconnected
    from dangad.errors import BadArguments, DangadError, UnhandledCommand

    if isinstance(error, Disconnected):
        return Failed(NOT_CONNECTED, str(error))
    if isinstance(error, DangadError):
        wrong = isinstance(error, (BadArguments, UnhandledCommand))
        return Failed(WRONG_USAGE if wrong else FAILED, f"{error.code.decode()}: {error}")
    code = error.errorCode.decode("ascii", "backslashreplace")
    return Failed(FAILED, f"{code}: {error.description}")


def _why(error: Exception) -> str:
    """What the system said about a connection that was not made."""
    system = getattr(error, "osError", None)
    if isinstance(system, int):
        return os.strerror(system)
    return str(getattr(error, "strerror", None) or error).rstrip(".") or type(error).__name__


# Reading and writing.


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed")
    return sys.stdin.buffer.read()


def _on_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _encode(text: str) -> bytes:
    return text.encode(getattr(sys.stdout, "encoding", None) or "utf-8", "backslashreplace")


_writing: list[None] = []
"""Not empty while the standard output is written to, which may take as long as its reader likes."""


def _write(output: bytes) -> None:
    """Write to the standard output.

    Past Python's buffer, which would be written at the exit, even if nobody reads any more.

    :raises Failed: it cannot be written to, or nobody reads it any more.
    """
    if sys.stdout is None:
        raise Failed(FAILED, "cannot write the answer: the standard output is closed")
    left = memoryview(output)
    _writing.append(None)
    try:
        while left:
            left = left[os.write(sys.stdout.fileno(), left) :]
    except BrokenPipeError:
        raise Failed(SIGNALLED + signal.SIGPIPE, "") from None
    except OSError as error:
        raise Failed(FAILED, f"cannot write the answer: {error.strerror}") from None
    finally:
        _writing.clear()


def _say(status: int, text: str) -> int:
    """Tell the user on the standard error; the exit status."""
    if text and sys.stderr is not None:
        sys.stderr.write(f"dangad: {printable(text)}\n")
    return status
