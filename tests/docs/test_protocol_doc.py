"""The protocol document, replayed against real servers byte for byte; the list of errors."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from dangad import errors, tap
from dangad.limits import DEFAULTS
from dangad.scheduler import endings, state
from dangad.server import boxwatch, factory, owncommands, refusal, stallwatch
from dangad.server.connection import MAX_TAG
from dangad.wire import boxes, commands
from dangad.worker import context
from tests.blockingpeer import BlockingPeer, code_of
from tests.real.test_hostile import Server
from tests.twistdserver import wait_for

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference"
PROTOCOL = (REFERENCE / "protocol.md").read_text()
ERRORS = (REFERENCE / "errors.md").read_text()

FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"([CS])(\d?): +(.*)")
TOKEN = re.compile(
    r'(?P<byte>[0-9a-f]{2})|"(?P<text>[^"]*)"(?:\*(?P<times>\d+))?|(?P<varies>\.\.)|<(?P<hole>[^>]+)>'
)
CLOSES = "closes"


def blocks(document: str, language: str) -> list[str]:
    """The document's code blocks in this language."""
    return [
        textwrap.dedent(block) for _, info, block in FENCE.findall(document) if info == language
    ]


def tokens(text: str) -> Iterator[re.Match[str]]:
    """The tokens of a line, which has nothing else."""
    place = 0
    while place < len(text):
        token = TOKEN.match(text, place)
        if token is None:
            raise AssertionError(f"{text[place:]!r} is neither bytes nor text nor a place for them")
        yield token
        place = token.end() + len(text[token.end() :]) - len(text[token.end() :].lstrip(" "))


def literal(token: re.Match[str]) -> bytes | None:
    """The bytes that a token stands for, None if they may vary."""
    if token["byte"] is not None:
        return bytes.fromhex(token["byte"])
    if token["text"] is not None:
        return token["text"].encode("ascii") * int(token["times"] or 1)
    return None


class Conversation:
    """The connections of one example, by number, and what was found where bytes may vary."""

    def __init__(self, server: Server) -> None:
        self.found: dict[str, bytes] = {}
        self._server = server
        self._stack = contextlib.ExitStack()
        self._sockets: dict[str, socket.socket] = {}
        self._sockets[""] = self._connect_to_idle_server()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _connect_to_idle_server(self) -> socket.socket:
        """A connection to a server whose worker is idle and that has no other client."""
        wait_for(lambda: self._server.performs(self._server.unix))
        for _ in range(1000):
            connection = self._server.unix()
            with contextlib.suppress(EOFError):
                if code_of(BlockingPeer(connection).call(b"dangad.Ping")) == "ok":
                    return self._stack.enter_context(connection)
            connection.close()
        raise AssertionError("the server takes no connection")

    def play(self, line: str) -> None:
        """Send what the line says, or compare with what comes."""
        match = LINE.fullmatch(line)
        if match is None:
            raise AssertionError(f"{line!r} begins with neither C nor S")
        who, number, what = match.groups()
        if number not in self._sockets:
            self._sockets[number] = self._stack.enter_context(self._server.unix())
        connection = self._sockets[number]
        if what == CLOSES:
            self._expect_close(number)
        elif who == "C":
            connection.sendall(b"".join(literal(token) or b"" for token in tokens(what)))
        else:
            self._expect(connection, what)

    def _expect(self, connection: socket.socket, what: str) -> None:
        read = b""
        for token in tokens(what):
            expected = literal(token)
            if expected is not None:
                came = self._read(connection, len(expected))
                if came != expected:
                    raise AssertionError(f"{came[:200]!r} came instead of {expected[:200]!r}")
                read = came
            elif token["varies"]:
                read = read[-1:] + self._read(connection, 1)
            else:
                read = self._read(connection, int.from_bytes(read, "big"))
                self.found[token["hole"]] = read

    def _read(self, connection: socket.socket, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = connection.recv(length - len(data))
            if not more:
                raise AssertionError(f"the server closed after {data[:200]!r}")
            data += more
        return data

    def _expect_close(self, number: str) -> None:
        connection = self._sockets.pop(number)
        with contextlib.suppress(ConnectionResetError):
            rest = connection.recv(100)
            if rest:
                raise AssertionError(f"{rest!r} came instead of the end")

    def finish(self) -> None:
        """See that nothing was sent that the example does not show."""
        for connection in self._sockets.values():
            connection.sendall(boxes.pack([(b"_ask", b"end"), (b"_command", b"dangad.Ping")]))
            expected = boxes.pack([(b"_answer", b"end")])
            came = self._read(connection, len(expected))
            if came != expected:
                raise AssertionError(f"{came!r} came that the example does not show")


class ProtocolTest(SynchronousTestCase):
    servers: dict[str, Server]

    @classmethod
    def setUpClass(cls) -> None:
        """Start servers when examples need them."""
        cls.servers = {}

    @classmethod
    def tearDownClass(cls) -> None:
        """Stop them."""
        for running in cls.servers.values():
            running.stop()

    def server(self, command: str = "$ twistd dangad") -> Server:
        """A server that was started by this command, with one worker."""
        if command not in self.servers:
            prompt, program, name, *options = shlex.split(command)
            self.assertEqual((prompt, program, name), ("$", "twistd", "dangad"))
            workers = ["--min-workers=1", "--max-workers=1"]
            self.servers[command] = Server(*workers, *options)
            Path(self.servers[command].socket).with_name("hello.txt").write_text("hello")
        return self.servers[command]

    def test_examples(self) -> None:
        """Every example of the protocol document is what a real server does."""
        examples = blocks(PROTOCOL, "text")
        self.assertGreater(len(examples), 12)
        for example in examples:
            command, *lines = example.splitlines()
            with Conversation(self.server(command)) as conversation:
                try:
                    for line in lines:
                        conversation.play(line)
                    conversation.finish()
                except (AssertionError, OSError) as problem:
                    raise AssertionError(f"{problem} in:\n\n{example}") from problem

    def test_catalogue(self) -> None:
        """The entry of the catalogue that the document shows is the third that a server sends."""
        [shown] = [json.loads(block) for block in blocks(PROTOCOL, "json")]
        [example] = [block for block in blocks(PROTOCOL, "text") if "Describe" in block]
        with Conversation(self.server()) as conversation:
            for line in example.splitlines()[1:]:
                conversation.play(line)
            catalogue = json.loads(conversation.found["catalogue"])
        self.assertEqual(list(catalogue), ["commands"])
        self.assertEqual(catalogue["commands"][2], shown)
        names = [entry["name"] for entry in catalogue["commands"]]
        self.assertEqual(names, sorted(names))

    def test_the_client_in_forty_lines(self) -> None:
        """The document's own client works, with values of all sizes and with errors."""
        names: dict[str, Any] = {}
        for block in blocks(PROTOCOL, "python"):
            exec(compile(block, "protocol.md", "exec"), names)
        codec = blocks(PROTOCOL, "python")[0]
        self.assertLess(sum(bool(line.strip()) for line in codec.splitlines()), 45)
        for size in (0, 1, 65535, 65536, 200_000):
            data = bytes(itertools.islice(itertools.cycle(range(251)), size))
            with self.server().unix() as connection:
                answer = names["call"](connection, b"Echo", data=data)
            self.assertEqual(names["gather"](b"data", answer), data)
            self.assertEqual(
                names["lay"](b"data", data),
                {key: value for key, value in answer.items() if key != b"_answer"},
            )
        with self.server().unix() as connection:
            error = self.assertRaises(RuntimeError, names["call"], connection, b"Nope")
        self.assertEqual(error.args[0], b"UNHANDLED")

    def test_half_closed(self) -> None:
        """As the document says, the end of what a client sends is the end of the connection."""
        with self.server().unix() as connection:
            request = [(b"_ask", b"1"), (b"_command", b"Sleep"), (b"seconds", b"0.2")]
            connection.sendall(boxes.pack(request))
            connection.shutdown(1)
            self.assertEqual(connection.recv(100), b"")

    def test_limits(self) -> None:
        """The numbers in the table of limits are those of the code."""
        table = {
            row[0].strip(): row[1]
            for row in re.findall(r"^\| ([^|]+) \| ([^|]+) \|", PROTOCOL, re.MULTILINE)
        }
        defaults = {option[0]: option[2] for option in tap.Options.optParameters}
        for limit, numbers in (
            ("a key", [boxes.MAX_KEY]),
            ("a value", [boxes.MAX_VALUE]),
            ("a tag", [MAX_TAG]),
            ("a request, an answer", [defaults["max-payload"] // 2**20]),
            ("a request for one of the server's own commands", [owncommands.MAX_OWN_COMMAND]),
            ("unanswered requests of a connection", [defaults["max-in-flight"]]),
            ("unread answers of a connection", [2**16]),
            ("patience with answers left unread", [stallwatch.STALL_TIME]),
            ("patience with a request that is not whole", [boxwatch.BOX_TIME]),
            ("waiting jobs", [defaults["max-queued"]]),
            ("bytes of their requests", [DEFAULTS.max_queued_bytes // 2**30]),
            ("progress of a job", [round(1 / context.REPORT_INTERVAL), 1000]),
            ("the end of a job that is stopped", [endings.GRACE]),
            ("connections", [defaults["max-connections"]]),
            ("connections being refused", [factory.MAX_REFUSALS, int(refusal.REFUSAL_TIME)]),
        ):
            said = [
                int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", table[limit])
            ]
            self.assertEqual(said, numbers, limit)

    def test_reserved_keys(self) -> None:
        """The document names every reserved key and every command of the server's own."""
        for key in {*boxes.REQUEST_KEYS, boxes.ERROR_CODE, boxes.ERROR_DESCRIPTION}:
            self.assertIn(f"`{key.decode()}`", PROTOCOL)
        headings = re.findall(r"^### (dangad\.\w+)$", PROTOCOL, re.MULTILINE)
        named = [commands.Ping, commands.Describe, commands.Cancel]
        named += [commands.Progress, commands.Chunk]
        self.assertEqual(headings, [command.commandName.decode() for command in named])

    def test_ageing(self) -> None:
        """So does the row about priorities tell the time after which they take turns."""
        [row] = re.findall(r"^\| `_priority` .*", PROTOCOL, re.MULTILINE)
        self.assertIn(f"has waited for {state.AGEING:g} seconds", row)


class ErrorsTest(SynchronousTestCase):
    def test_codes(self) -> None:
        """The page of errors has a section for each code, and for no other; then the client's."""
        *sections, last = re.split(r"^## ", ERRORS, flags=re.MULTILINE)[1:]
        self.assertIn("client itself", last.partition("\n")[0])
        classes = {kind.__name__: code for kind, code in errors.ERRORS.items()}
        classes["UnhandledCommand"] = errors.UnhandledCommand.code
        self.assertEqual(
            sorted(section.split("\n")[0] for section in sections),
            sorted(code.decode() for code in classes.values()),
        )
        for section in sections:
            [name] = re.findall(r"\A\w+\s+\{py:class\}`dangad\.(\w+)`", section)
            self.assertEqual(f"{classes[name].decode()}", section.split("\n")[0])

    def test_table(self) -> None:
        """The table of what may have run has each code once."""
        table = re.findall(r"^\| .* \| (.*) \|$", ERRORS, re.MULTILINE)
        codes = re.findall(r"`(\w+)`", " ".join(table))
        expected = {*errors.ERRORS.values(), errors.UnhandledCommand.code}
        self.assertEqual(sorted(codes), sorted(code.decode() for code in expected))
