"""The ``dangad`` command: words and tables by themselves, then the whole against a real server."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import io
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from decimal import Decimal
from importlib.metadata import version
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from twisted.protocols import amp
from twisted.python.filepath import FilePath

import dangad
from dangad import Blob, Large, cli, tap
from dangad.addresses import description_of
from dangad.cli.arguments import read_words
from dangad.cli.bar import ProgressBar
from dangad.cli.outcome import WrongUsage
from dangad.cli.output import (
    answer_as_json,
    answer_as_table,
    catalogue_as_table,
    entry_as_help,
    raw_key,
    value_as_bytes,
)
from dangad.cli.tables import Column, flow, table
from dangad.text import printable
from dangad.wire.catalogue import Policy, describe_command
from dangad.wire.catalogue import describe_keys as keys_of
from dangad.wire.words import (
    TypedText,
    WrongWord,
    build_arguments,
    build_typed_command,
    describe_keys,
    type_name,
)
from tests.realserver import alive
from tests.twistdserver import PATIENCE, ROOT, TwistdServer, wait_for
from tests.warmcommand import WarmCommand, complained, wrote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

UTC = datetime.UTC

ROW = amp.AmpList([(b"name", amp.Unicode()), (b"the-size", amp.Integer(optional=True))])


def entry(*arguments: tuple[bytes, amp.Argument]) -> dict[str, Any]:
    """A catalogue's entry of a command with these arguments."""
    command = type("Try", (amp.Command,), {"arguments": list(arguments)})
    return describe_command(command, Policy(), "")


def value_of(kind: amp.Argument, *words: str | bytes) -> Any:
    """The value that the words make of an argument."""
    return build_arguments(entry((b"it", kind)), {"it": list(words)})["it"]


# Words to values.


@pytest.mark.parametrize(
    ("kind", "words", "value"),
    [
        (amp.Integer(), ["42"], 42),
        (amp.Integer(), ["-7"], -7),
        (amp.Integer(), [b" 42\n"], 42),
        (amp.Float(), ["2"], 2.0),
        (amp.Float(), ["-1.5e3"], -1500.0),
        (amp.Boolean(), ["Yes"], True),
        (amp.Boolean(), ["0"], False),
        (amp.Boolean(), [b"true\n"], True),
        (amp.Decimal(), ["0.10"], Decimal("0.10")),
        (
            amp.DateTime(),
            ["2026-11-23T14:30Z"],
            datetime.datetime(2026, 11, 23, 14, 30, tzinfo=UTC),
        ),
        (
            amp.DateTime(),
            ["2026-11-23 14:30:01.5+02:00"],
            datetime.datetime(2026, 11, 23, 12, 30, 1, 500_000, tzinfo=UTC),
        ),
        (amp.DateTime(), ["2026-07-01T12:00"], datetime.datetime(2026, 7, 1, 12).astimezone()),
        (amp.DateTime(), ["2026-07-01"], datetime.datetime(2026, 7, 1).astimezone()),
        (amp.Path(), ["/srv/x"], FilePath("/srv/x")),
        (amp.Unicode(), ["a=b "], "a=b "),
        (amp.Unicode(), ["ü\n".encode()], "ü\n"),
        (amp.String(), ["ü"], "ü".encode()),
        (amp.String(), ["\udcff"], b"\xff"),
        (amp.String(), [b"\0\xff"], b"\0\xff"),
        (Blob(), ["x"], b"x"),
        (Large(amp.Integer()), ["1"], 1),
        (amp.ListOf(amp.Integer()), ["1"], [1]),
        (amp.ListOf(amp.Integer()), ["1", "2"], [1, 2]),
        (amp.ListOf(amp.Integer()), ["[1, 2]"], [1, 2]),
        (amp.ListOf(amp.Integer()), ["[]"], []),
        (amp.ListOf(amp.Integer()), [b"[1,\n2]\n"], [1, 2]),
        (amp.ListOf(amp.Unicode()), ["[x", "y"], ["[x", "y"]),
        (amp.ListOf(amp.Unicode()), ['["[x"]'], ["[x"]),
        (amp.ListOf(amp.String()), [b"\xff", "a"], [b"\xff", b"a"]),
        (amp.ListOf(amp.String()), ['["a", {"base64": "/w=="}]'], [b"a", b"\xff"]),
        (amp.ListOf(amp.Float()), ["[1, 2.5, 1e400]"], [1.0, 2.5, float("inf")]),
        (amp.ListOf(amp.Decimal()), ['[1, 0.10, "0.20"]'], [1, Decimal("0.10"), Decimal("0.20")]),
        (amp.ListOf(amp.Boolean()), ["[true, false]"], [True, False]),
        (amp.ListOf(amp.ListOf(amp.Integer())), ["[[1], []]"], [[1], []]),
        (amp.ListOf(amp.ListOf(amp.Integer())), ["[1]", "[2, 3]"], [[1], [2, 3]]),
        (ROW, ['[{"name": "a", "the-size": 1}]'], [{"name": "a", "the_size": 1}]),
        (ROW, ['{"name": "a"}', '{"name": "b"}'], [{"name": "a"}, {"name": "b"}]),
        (ROW, ['[{"name": "a", "the-size": null}]'], [{"name": "a"}]),
        (ROW, ["[]"], []),
    ],
)
def test_words_make_values(kind: amp.Argument, words: list[str | bytes], value: Any) -> None:
    """Each type has its own way to be written."""
    made = value_of(kind, *words)
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize(
    ("kind", "words", "text"),
    [
        (amp.Integer(), ["x"], "'x' is not a whole number"),
        (amp.Integer(), ["1.0"], "'1.0' is not a whole number"),
        (amp.Integer(), ["1_0"], "is not a whole number"),
        (amp.Integer(), [""], "'' is not a whole number"),
        (amp.Integer(), ["9" * 5000], "is not a whole number"),
        (amp.Integer(), [b"\xff"], "not UTF-8, and so not a whole number"),
        (amp.Integer(), ["1", "2"], "given 2 times, and is not a list"),
        (amp.Float(), ["1,5"], "'1,5' is not a number"),
        (amp.Boolean(), ["maybe"], "is not a boolean; write true or false, yes or no, 1 or 0"),
        (amp.Decimal(), ["x"], "'x' is not a decimal number"),
        (amp.DateTime(), ["noon"], "is not a date and a time; write ISO 8601"),
        (amp.DateTime(), ["2026-13-01"], "is not a date and a time"),
        (amp.Path(), ["a\0b", "c"], "given 2 times"),
        (amp.ListOf(amp.Integer()), ["1", "x"], "'x' is not a whole number"),
        (amp.ListOf(amp.Integer()), ["[1, x]"], "the JSON is wrong"),
        (amp.ListOf(amp.Integer()), ["[" * 100_000], "the JSON is wrong"),
        (amp.ListOf(amp.Integer()), ["[1, [2]]"], "'it'[1]: [2] is not a whole number"),
        (amp.ListOf(amp.Integer()), ["[1.5]"], "'it'[0]"),
        (amp.ListOf(amp.Integer()), ["[true]"], "true is not a whole number"),
        (amp.ListOf(amp.Boolean()), ["[1]"], "1 is not a boolean"),
        (amp.ListOf(amp.String()), ['[{"base64": "!"}]'], "is not bytes"),
        (amp.ListOf(amp.ListOf(amp.Integer())), ["[1]", "[x]"], "the JSON is wrong"),
        (ROW, ["x"], "a list of {name: text, [the-size: integer]}: write a JSON list of objects"),
        (ROW, ["[1]"], "'it'[0]: 1 is not an object"),
        (ROW, ['[{"name": "a"}, {}]'], "'it'[1]: key 'name' (text) is missing"),
        (ROW, ['[{"name": "a", "x": 1}]'], "'it'[0] has no key 'x'; its keys: name: text"),
        (ROW, ['[{"name": "a", "the-size": "b"}]'], "'it'[0].the-size: 'b' is not a whole number"),
    ],
)
def test_words_that_make_no_value(kind: amp.Argument, words: list[str | bytes], text: str) -> None:
    """What is wrong is said with the argument's name and type, in one line of bearable length."""
    with pytest.raises(WrongWord) as raised:
        value_of(kind, *words)
    assert "argument 'it'" in str(raised.value)
    assert text in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.fixture
def in_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the zone of the clock on the wall."""

    def set_zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


def test_a_naive_date_is_local_time(in_zone: Callable[[str], None]) -> None:
    """A date without a zone means the time on the user's wall, in winter and in summer."""
    in_zone("Europe/Vienna")
    for date, zone in (("2026-01-01T12:00", "+01:00"), ("2026-07-01T12:00", "+02:00")):
        assert value_of(amp.DateTime(), date).isoformat() == f"{date}:00{zone}"


def test_which_arguments() -> None:
    """Arguments are named as in the catalogue, with dashes or not; Python gets its own names."""
    declared = entry(
        (b"max-width", amp.Integer()), (b"from", amp.Unicode()), (b"o", amp.Float(optional=True))
    )
    for spelling in ("max-width", "max_width"):
        words: dict[str, list[str | bytes]] = {spelling: ["3"], "from": ["x"]}
        assert build_arguments(declared, words) == {"max_width": 3, "From": "x"}
    for wrong, text in (
        ({"from": ["x"]}, "argument 'max-width' (integer) of Try is missing"),
        ({"max-width": ["1"], "max_width": ["1"], "from": ["x"]}, "given twice"),
        (
            {"max-width": ["1"], "from": ["x"], "to": ["y"]},
            "no argument 'to'; its arguments: max-width: integer, from: text, [o: number]",
        ),
    ):
        with pytest.raises(WrongWord) as raised:
            build_arguments(declared, wrong)
        assert text in str(raised.value)


def test_words_from_files(tmp_path: Path) -> None:
    """@file and @- are read as they are, @@ stands for @, and a repeated key keeps its order."""
    file = tmp_path / "file=1"
    file.write_bytes(b"\0\xff\r\n")
    pairs = [f"a=@{file}", "b=@-", "c=@@home", "d=", "e=x=y", "d=2", "f=a@b"]
    assert read_words(pairs, lambda: b"in\xff") == {
        "a": [b"\0\xff\r\n"],
        "b": [b"in\xff"],
        "c": ["@home"],
        "d": ["", "2"],
        "e": ["x=y"],
        "f": ["a@b"],
    }


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        (["x"], "'x' is not an argument: write key=value"),
        (["=x"], "'=x' is not an argument"),
        (["a=@/nonexistent"], "cannot read '/nonexistent': No such file or directory"),
        (["a=@/"], "Is a directory"),
        (["a=@"], "written @@"),
        (["a=@x\0y"], "cannot read"),
        (["a=@-", "b=@-"], "read only once, for a=@-"),
    ],
)
def test_words_that_cannot_be_read(pairs: list[str], text: str) -> None:
    """What is no pair, and a file that cannot be read, is named."""
    with pytest.raises(WrongUsage) as raised:
        read_words(pairs, lambda: b"")
    assert text in str(raised.value)


def test_types_in_words() -> None:
    """Types are named in plain words, whatever they are made of."""
    kinds: list[tuple[bytes, amp.Argument]] = [
        (b"a", Large(amp.ListOf(amp.Float()))),
        (b"b", amp.Boolean(optional=True)),
        (b"c", amp.AmpList([(b"x", Blob())])),
    ]
    assert describe_keys(keys_of(kinds)) == "a: list of number, [b: boolean], c: list of {x: bytes}"
    assert type_name({"name": "ComplexOfANewerServer"}) == "ComplexOfANewerServer"


def test_text_that_is_not_utf_8() -> None:
    """Text that was typed in another encoding is sent as it was typed, at any depth."""
    kinds = [(b"a", amp.Unicode()), (b"b", Large(amp.Unicode())), (b"c", amp.ListOf(amp.Unicode()))]
    command = build_typed_command(entry(*kinds))
    values = {"a": "\udcff", "b": "\udcfe", "c": ["ü"]}
    strings = command.makeArguments(values, None)
    assert strings == {b"a": b"\xff", b"b": b"\xfe", b"c": b"\0\2" + "ü".encode()}
    assert command.parseArguments(strings, None) == values
    ((_, rows),) = build_typed_command(entry((b"r", ROW))).arguments
    assert isinstance(rows, amp.AmpList)
    assert type(dict(rows.subargs)[b"name"]) is TypedText


# Values to text.


@given(st.text())
def test_printable(text: str) -> None:
    """Whatever a text holds, printing it moves no cursor and breaks no line."""
    shown = printable(text)
    assert shown.isprintable()
    assert text.isprintable() == (shown == text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë 漢字", "Zoë 漢字"),
        ("\x1b[31mred\a\n", r"\x1b[31mred\x07\n"),
        ("\x9b1m", r"\x9b1m"),
        ("evil\u202etxt.exe", r"evil\u202etxt.exe"),
        ("\udcff", r"\xff"),
        ("\ud800", r"\ud800"),
    ],
)
def test_escapes(text: str, shown: str) -> None:
    """Control characters, invisible ones and bytes that are no UTF-8 are escaped."""
    assert printable(text) == shown


WHEN = datetime.datetime(2026, 11, 23, 14, 30, 5, 123_456, tzinfo=UTC)


ANSWERS: list[tuple[list[tuple[bytes, amp.Argument]], dict[str, Any], str, Any]] = [
    ([], {}, "", {}),
    ([(b"count", amp.Integer())], {"count": 4}, "count  4\n", {"count": 4}),
    (
        [
            (b"yes", amp.Boolean()),
            (b"ratio", amp.Float()),
            (b"price", amp.Decimal()),
            (b"at-last", amp.DateTime()),
            (b"path", amp.Path()),
            (b"gone", amp.Integer(optional=True)),
        ],
        {
            "yes": True,
            "ratio": 0.5,
            "price": Decimal("1.50"),
            "at_last": WHEN,
            "path": FilePath("/srv/x"),
            "gone": None,
        },
        (
            "yes      true\n"
            "ratio    0.5\n"
            "price    1.50\n"
            "at-last  2026-11-23 14:30:05+00:00\n"
            "path     /srv/x\n"
            "gone     -\n"
        ),
        {
            "yes": True,
            "ratio": 0.5,
            "price": "1.50",
            "at-last": "2026-11-23T14:30:05.123456+00:00",
            "path": "/srv/x",
            "gone": None,
        },
    ),
    (
        [(b"name", amp.String()), (b"text", amp.Unicode())],
        {"name": b"\xff\x1b", "text": "Zo\u00eb\t\x07"},
        "name  \\xff\\x1b\ntext  Zoë\\t\\x07\n",
        {"name": {"base64": "/xs="}, "text": "Zo\u00eb\t\x07"},
    ),
    (
        [(b"size", amp.Integer()), (b"data", Blob())],
        {"size": 3, "data": "a\n\tü\x1b\n".encode()},
        "size  3\n\ndata:\n  a\n          ü\\x1b\n",
        {"size": 3, "data": "a\n\tü\x1b\n"},
    ),
    (
        [(b"data", Blob())],
        {"data": b"\xff\n\n\n"},
        "data  \\xff\\n\\n\\n\n",
        {"data": {"base64": "/woKCg=="}},
    ),
    (
        [(b"rows", ROW)],
        {"rows": [{"name": "a\nb", "the_size": 7}, {"name": "漢字", "the_size": None}]},
        "NAME  THE-SIZE\na\\nb         7\n漢字         -\n",
        {"rows": [{"name": "a\nb", "the-size": 7}, {"name": "漢字", "the-size": None}]},
    ),
    ([(b"rows", Large(ROW))], {"rows": []}, "NAME  THE-SIZE\n", {"rows": []}),
    (
        [(b"total", amp.Integer()), (b"primes", amp.ListOf(amp.Integer())), (b"rows", ROW)],
        {"total": 2, "primes": [2, 13], "rows": [{"name": "x", "the_size": 1}]},
        (
            "total  2\n\n"
            "primes:\n  PRIMES\n       2\n      13\n\n"
            "rows:\n  NAME  THE-SIZE\n  x            1\n"
        ),
        {"total": 2, "primes": [2, 13], "rows": [{"name": "x", "the-size": 1}]},
    ),
    (
        [(b"grid", amp.ListOf(amp.ListOf(amp.Float())))],
        {"grid": [[1.0, float("nan")], []]},
        'GRID\n[1.0, "nan"]\n[]\n',
        {"grid": [[1.0, "nan"], []]},
    ),
    (
        [(b"maybe", amp.ListOf(amp.Integer(), optional=True))],
        {"maybe": None},
        "maybe  -\n",
        {"maybe": None},
    ),
]


@pytest.mark.parametrize(("kinds", "response", "table", "document"), ANSWERS)
def test_answers(
    in_zone: Callable[[str], None],
    kinds: list[tuple[bytes, amp.Argument]],
    response: dict[str, Any],
    table: str,
    document: Any,
) -> None:
    """Answers of all types, as a table and as JSON."""
    in_zone("UTC")
    assert answer_as_table(keys_of(kinds), response) == table
    line = answer_as_json(keys_of(kinds), response)
    assert line.endswith("\n")
    assert line.isascii()
    assert json.loads(line) == document


def test_json_comes_back() -> None:
    """What --json prints of a list can be given as an argument again."""
    rows = amp.AmpList([(b"data", amp.String()), (b"at", amp.DateTime()), (b"sum", amp.Decimal())])
    response = {"rows": [{"data": b"\xff", "at": WHEN, "sum": Decimal("0.10")}]}
    document = json.loads(answer_as_json(keys_of([(b"rows", rows)]), response))
    assert value_of(rows, json.dumps(document["rows"])) == response["rows"]


def test_times_at_the_end_of_time(in_zone: Callable[[str], None]) -> None:
    """A time that no local clock can show is shown as it came."""
    in_zone("Pacific/Auckland")
    last = datetime.datetime.max.replace(tzinfo=UTC)
    shown = answer_as_table(keys_of([(b"t", amp.DateTime())]), {"t": last})
    assert shown == "t  9999-12-31 23:59:59+00:00\n"


@pytest.mark.parametrize(
    ("kinds", "raw"),
    [
        ([(b"data", Blob())], "data"),
        ([(b"data", amp.String())], "data"),
        ([(b"data", Blob()), (b"size", amp.Integer())], "data"),
        ([(b"digest", amp.String()), (b"data", Blob())], "data"),
        ([(b"digest", amp.String()), (b"size", amp.Integer())], None),
        ([(b"a", Blob()), (b"b", Blob())], None),
        ([(b"text", amp.Unicode())], None),
        ([(b"text", Large(amp.Unicode()))], None),
        ([(b"names", amp.ListOf(amp.String()))], None),
        ([], None),
    ],
)
def test_which_answers_are_raw(kinds: list[tuple[bytes, amp.Argument]], raw: str | None) -> None:
    """The one Blob of a response, or its one key of bytes, goes into files as it is."""
    assert raw_key(keys_of(kinds)) == raw


@pytest.mark.parametrize(
    ("kind", "value", "written"),
    [
        (Blob(), b"\0\xff", b"\0\xff"),
        (Blob(optional=True), None, b""),
        (amp.Unicode(), "Zo\u00eb\x1b\udcff", "Zo\u00eb\x1b".encode() + b"\xff"),
        (amp.Integer(), 7, b"7"),
        (amp.ListOf(amp.Integer()), [1, 2], b"[1, 2]"),
    ],
)
def test_raw_values(kind: amp.Argument, value: Any, written: bytes) -> None:
    """A raw value is nothing but the value."""
    (key,) = keys_of([(b"a-b", kind)])
    assert value_as_bytes(key, {"a_b": value}) == written


def test_catalogue_table() -> None:
    """The list of commands has types, brackets for what is optional, and one line of the doc."""
    command = type(
        "Make",
        (amp.Command,),
        {"arguments": [(b"a", Blob()), (b"b", amp.Float(optional=True))], "response": []},
    )
    described = describe_command(command, Policy(), "Make it.\n\nAt length.")
    assert catalogue_as_table({"commands": [described]}) == (
        "COMMAND  ARGUMENTS              RESPONSE  WHAT IT DOES\n"
        "Make     a: bytes, [b: number]  -         Make it.\n"
    )
    assert SEQUENCE.sub("", catalogue_as_table({"commands": [described]}, 50)) == (
        "Make  Make it.\n  takes  a: bytes, [b: number]\n  gives  -\n"
    )


# The command line.


@pytest.mark.parametrize(
    "words",
    [
        "",
        "fly",
        "call",
        "call C --prio low",
        "call C --priority urgent",
        "call C --deadline soon",
        "call C --deadline -1",
        "call C --deadline nan",
        "call C --json --raw k",
        "call --raw",
        "commands extra",
        "commands --raw k",
        "help fly",
        "call -xyz",
    ],
)
def test_wrong_options(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line is answered in one line, with status 2, and without connecting."""
    assert cli.main(words.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("dangad: ")
    assert captured.err.count("\n") == 1


def test_endpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever does not begin like an endpoint, or exists, is the path of a UNIX socket."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:name").touch()
    for text, endpoint in (
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("tcp:localhost:7003", "tcp:localhost:7003"),
        ("/run/x.sock", "unix:/run/x.sock"),
        ("./a:b/x.sock", r"unix:./a\:b/x.sock"),
        ("x.sock", "unix:x.sock"),
        ("odd:name", r"unix:odd\:name"),
        ("10.0.0.1:7003", "10.0.0.1:7003"),
        ("./my.host:7003", r"unix:./my.host\:7003"),
        (r"a\b", r"unix:a\\b"),
    ):
        assert description_of(text) == endpoint


# The whole, against a real server.

JOBS = '''
import datetime, os, pathlib, signal, time
from twisted.protocols import amp
from dangad import Blob, current_job, job

ALL = [
    (b"integer", amp.Integer()),
    (b"number", amp.Float()),
    (b"truth", amp.Boolean()),
    (b"price", amp.Decimal()),
    (b"at-last", amp.DateTime()),
    (b"where", amp.Path()),
    (b"text", amp.Unicode()),
    (b"data", amp.String()),
    (b"numbers", amp.ListOf(amp.Integer())),
    (b"rows", amp.AmpList([(b"name", amp.Unicode()), (b"size", amp.Integer(optional=True))])),
    (b"maybe", amp.Integer(optional=True)),
]

class All(amp.Command):
    """Take one of each type, and give it back."""
    arguments = ALL
    response = ALL

@job(All)
def all_(**arguments):
    return arguments

class Fail(amp.Command):
    """Fail in the way that is asked for."""
    arguments = [(b"how", amp.Unicode())]
    errors = {KeyError: b"NO_SUCH_KEY"}

@job(Fail)
def fail(how):
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    raise {"declared": KeyError, "other": ValueError}[how]("too\\nbad \\x1b[31m")

class Hang(amp.Command):
    """Leave this process's id in a file, and stay."""
    arguments = [(b"mark", amp.Unicode())]

@job(Hang)
def hang(mark):
    path = pathlib.Path(mark)
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").rename(path)
    time.sleep(600)

class Parts(amp.Command):
    """Send partial results."""
    arguments = [(b"how", amp.Unicode())]
    response = [(b"sent", amp.Integer()), (b"summary", amp.String())]

@job(Parts)
def parts(how):
    for number, letter in enumerate("abc", 1):
        current_job().progress(number, 3, f"chunk {letter}\\x1b")
        yield letter.encode()
    if how == "badly":
        raise ValueError(how)
    return {"sent": 3, "summary": b"abc"}

class Evil(amp.Command):
    """Answer with what would play tricks on a terminal."""
    response = [(b"text", amp.Unicode()), (b"name", amp.String())]

@job(Evil)
def evil():
    return {"text": "\\x1b]0;owned\\x07", "name": b"\\xff\\x9b1m"}

class Short(amp.Command):
    """Take a short value."""
    arguments = [(b"data", amp.String())]

@job(Short)
def short(data):
    return {}
'''


class Server:
    """A server of the examples and of JOBS, and the command to call them."""

    def __init__(self, folder: Path, warm: WarmCommand) -> None:
        self.folder = folder
        self.warm = warm
        self.socket = folder / "dangad.sock"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DANGAD_")},
            "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
            "TZ": "UTC",
        }

    def command(self, *words: str) -> list[str]:
        """The words that run the command."""
        return [sys.executable, "-m", "dangad.cli", *words]

    def dangad(
        self, *words: str, stdin: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """What the command did, run in the server's directory."""
        return self.warm.run(
            *words, folder=self.folder, environment=self.environment | environment, stdin=stdin
        )

    def start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """The command itself, running."""
        return subprocess.Popen(
            self.command(*words), cwd=self.folder, env=self.environment, **options
        )

    def output(self, *words: str, stdin: bytes = b"", **environment: str) -> bytes:
        """What the command wrote, successfully and without complaint."""
        return wrote(self.dangad(*words, stdin=stdin, **environment))

    def complaint(self, status: int, *words: str, **environment: str) -> str:
        """The one line that the command complained in, ending with this status."""
        return complained(status, self.dangad(*words, stdin=b"", **environment))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server, the same for all tests of this module."""
    warm = WarmCommand()
    server = Server(tmp_path_factory.mktemp("cli"), warm)
    (server.folder / "cli_jobs.py").write_text(JOBS)
    listed = server.folder / "listed"
    listed.mkdir()
    (listed / "a.txt").write_text("hello\n")
    (listed / "sub").mkdir()
    os.utime(listed / "a.txt", (0, 0))
    os.utime(listed / "sub", (0, 0))
    with open(os.fsencode(listed) + b"/\xff\x1b", "wb"):
        pass
    os.utime(os.fsencode(listed) + b"/\xff\x1b", (0, 0))
    options = ("--jobs=dangad.examples", "--jobs=cli_jobs", "--max-workers=2", "--drain=1")
    running = TwistdServer(str(server.folder), *options, environment=server.environment)
    with contextlib.closing(warm):
        yield server
    running.stop()


def test_list_directory(server: Server) -> None:
    """A directory is listed as a table, names that are no UTF-8 and the like escaped.

    For machines the same comes as JSON, on which nothing is lost. A path may be in any bytes.
    """
    lines = server.output("call", "ListDirectory", "path=listed").decode().splitlines()
    assert [line.split() for line in lines] == [
        ["NAME", "KIND", "SIZE", "MODIFIED"],
        ["a.txt", "file", "6", "1970-01-01", "00:00:00+00:00"],
        ["sub", "directory", lines[2].split()[2], "1970-01-01", "00:00:00+00:00"],
        ["\\xff\\x1b", "file", "0", "1970-01-01", "00:00:00+00:00"],
    ]
    assert len({line.index("19") for line in lines[1:]}) == 1
    document = json.loads(server.output("call", "ListDirectory", "path=listed", "--json"))
    assert document["entries"][0] == {
        "name": "a.txt",
        "kind": "file",
        "size": 6,
        "modified": "1970-01-01T00:00:00+00:00",
    }
    assert document["entries"][2]["name"] == {"base64": "/xs="}
    typed = os.fsdecode(b"path=listed/\xff\x1b")
    assert server.output("call", "ReadFile", "--raw", "size", typed) == b"0"


def test_bytes_from_a_file_to_a_file(server: Server) -> None:
    """Bytes come out as they went in, from a file and from the standard input."""
    data = os.urandom(300_000)
    (server.folder / "random").write_bytes(data)
    assert server.output("call", "Echo", "data=@random") == data
    assert server.output("call", "Echo", "data=@-", stdin=data) == data
    assert server.output("call", "Echo", "data=@@x\n") == b"@x\n"
    assert server.output("call", "Echo", "data=") == b""


ALL = [
    "integer=-5",
    "number=1e3",
    "truth=no",
    "price=0.10",
    "at-last=2026-11-23T14:30",
    "where=/srv/x",
    "text=Zoë",
    "data=@-",
    "numbers=3",
    "numbers=4",
    'rows=[{"name": "a"}, {"name": "b", "size": 2}]',
]


def test_all_types(server: Server) -> None:
    """Values of all types get to the job and back."""
    document = json.loads(server.output("call", "All", "--json", *ALL, stdin=b"\xff\n"))
    assert document == {
        "integer": -5,
        "number": 1000.0,
        "truth": False,
        "price": "0.10",
        "at-last": "2026-11-23T14:30:00+00:00",
        "where": "/srv/x",
        "text": "Zoë",
        "data": {"base64": "/wo="},
        "numbers": [3, 4],
        "rows": [{"name": "a", "size": None}, {"name": "b", "size": 2}],
        "maybe": None,
    }


def test_commands(server: Server) -> None:
    """The commands are listed with types and the first line of what they say of themselves."""
    lines = server.output("commands").decode().splitlines()
    assert lines[0].split() == ["COMMAND", "ARGUMENTS", "RESPONSE", "WHAT", "IT", "DOES"]
    (line,) = [line for line in lines if line.startswith("ReadFile ")]
    assert "path: text, [offset: integer], [length: integer]" in line
    document = json.loads(server.output("commands", "--json"))
    assert {"All", "Echo"} < {entry["name"] for entry in document["commands"]}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["call", "sleep"], "no command 'sleep'; did you mean Sleep? `dangad commands` lists"),
        (["call", "Slep", "--help"], "did you mean Sleep?"),
        (["call", "Xyzzy"], "the server has no command 'Xyzzy'; `dangad commands` lists them"),
        (["call", "Sleep"], "of Sleep is missing; see dangad call Sleep --help"),
        (["call", "Sleep", "--seconds", "1"], "as in seconds=1; see dangad call Sleep --help"),
        (["call", "Sleep", "seconds=1", "--name=a b"], "as in 'name=a b'; see dangad call Sleep"),
        (["call", "Sleep", "--jsn"], "there is no option --jsn; did you mean --json?"),
        (["call", "Sleep", "--prio", "high"], "no option --prio; did you mean --priority?"),
        (["comands"], "did you mean `dangad commands`? see dangad --help"),
        (["st"], "did you mean `dangad status` or `dangad stack`? see dangad --help"),
        (["stop"], "`dangad shutdown` stops the server, `dangad drain` also"),
        (["PS"], "`dangad workers` lists the worker processes"),
        (["comm"], "did you mean `dangad commands`? see dangad --help"),
        (["Sleep"], "to call a command of the server: `dangad call Sleep`"),
        (["scale", "-1"], "-1 is negative; see dangad scale --help"),
        (["commands", "--prioriti"], "no option --prioriti; see dangad commands --help"),
        (["commands", "all"], "unexpected extra argument (all); see dangad commands --help"),
        (["call", "Sleep", "seconds=1", "x=1"], "Sleep has no argument 'x'"),
        (["call", "Sleep", "seconds=soon"], "argument 'seconds': 'soon' is not a number"),
        (["call", "Sleep", "seconds"], "'seconds' is not an argument: write key=value"),
        (["call", "Sleep", "seconds=0", "--raw", "x"], "other keys: slept"),
        (["call", "Short", "data=@big"], "declare it as dangad.Blob()"),
        (
            ["--connect", "nosuch:x", "commands"],
            "'nosuch'; for the path of a UNIX socket, write ./nosuch",
        ),
        (["--connect", "localhost:7003", "commands"], "; write tcp:localhost:7003"),
        (["--connect", "10.0.0.1:7003", "commands"], "; write tcp:10.0.0.1:7003"),
        (["--connect", "[::1]:7003", "commands"], r"; write tcp:\:\:1:7003"),
    ],
)
def test_wrong_usage(server: Server, words: list[str], text: str) -> None:
    """What is asked for wrongly is said in one line, with status 2."""
    (server.folder / "big").write_bytes(bytes(70_000))
    assert text in server.complaint(2, *words)


def test_closed_streams(server: Server) -> None:
    """A standard input that is closed or not for reading is missed only if it is asked for.

    A closed standard output is an error.
    """
    needed = "dangad: data=@-: cannot read the standard input:"
    for redirection, data, status, output, complaint in (
        ("<&-", "x", 0, b"x", ""),
        ("<&-", "@-", 2, b"", f"{needed} it is closed\n"),
        ("0>/dev/null", "x", 0, b"x", ""),
        ("0>/dev/null", "@-", 2, b"", f"{needed} Bad file descriptor\n"),
    ):
        done = redirected(server, redirection, "call", "Echo", f"data={data}")
        assert (done.returncode, done.stdout, done.stderr.decode()) == (status, output, complaint)
    done = redirected(server, ">&-", "commands")
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)


def redirected(server: Server, redirection: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    """What the command did when a shell has redirected its streams so."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *server.command(*words)],
        cwd=server.folder,
        env=server.environment,
        capture_output=True,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["Fail", "how=declared"], r"NO_SUCH_KEY: 'too\nbad \x1b[31m'"),
        (["Fail", "how=other"], r"JOB_FAILED: ValueError: too\nbad \x1b[31m"),
        (["Fail", "how=die"], "WORKER_LOST: worker "),
        (["ListDirectory", "path=none"], "NOT_FOUND: nothing is at 'none'"),
    ],
)
def test_job_errors(server: Server, words: list[str], text: str) -> None:
    """A job's error is told by its code and text, with status 1."""
    assert server.complaint(1, "call", *words).startswith(text)


def test_options_between_words(server: Server) -> None:
    """Options may stand before, between and after the arguments."""
    for words in (
        "--connect dangad.sock call ReadFile --json path=listed/a.txt --priority low offset=4",
        "call --connect dangad.sock --json --deadline 30 ReadFile path=listed/a.txt offset=4",
        "call ReadFile path=listed/a.txt offset=4 --json --deadline=30 --connect=dangad.sock",
    ):
        answer = json.loads(server.output(*words.split(), DANGAD_CONNECT="/nowhere"))
        assert answer["data"] == "o\n", words


def test_where_to_connect(server: Server, tmp_path: Path) -> None:
    """The server is named by an option, the environment, or is where servers are by default."""
    words = ["call", "Echo", "data=x"]
    for option in (str(server.socket), f"unix:{server.socket}", "./dangad.sock", "dangad.sock"):
        assert server.output("--connect", option, *words) == b"x"
    assert server.output(*words, DANGAD_CONNECT=str(server.socket)) == b"x"
    nowhere = str(tmp_path / "nowhere")
    assert server.output(*words, "--connect", "dangad.sock", DANGAD_CONNECT=nowhere) == b"x"
    text = server.complaint(3, *words, DANGAD_CONNECT=nowhere)
    nobody = "no server listens there now: it does not run, is stopping, or is elsewhere"
    assert text == f"cannot connect to unix:{nowhere}: {nobody}"


def test_wrong_door(server: Server) -> None:
    """An operator's question where clients connect gets no UNHANDLED, but what is wrong."""
    text = server.complaint(2, "status", "--control", "dangad.sock")
    hint = "--control or $DANGAD_CONTROL says where operators do"
    assert text == f"unix:dangad.sock is where clients connect; {hint}"


def test_nobody_listens(server: Server, tmp_path: Path) -> None:
    """A port, or a dead server's socket, is told from one that is not there, with status 3."""
    dead = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(dead))
    text = server.complaint(3, "commands", DANGAD_CONNECT=str(dead))
    why = "the socket is there, but its server has died: start it again"
    assert text == f"cannot connect to unix:{dead}: {why}"
    plain = tmp_path / "plain"
    plain.touch()
    text = server.complaint(3, "commands", "--connect", str(plain))
    assert f"unix:{plain}: {plain} is not a socket" in text
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    text = server.complaint(3, "commands", "--connect", f"tcp:127.0.0.1:{port}")
    nobody = "no server listens there now: it does not run, or is stopping"
    assert text == f"cannot connect to tcp:127.0.0.1:{port}: {nobody}"


@pytest.mark.parametrize(
    ("says", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak AMP"),
        (b"", "whether it ran is unknown (Connection was closed cleanly)"),
    ],
)
def test_wrong_server(server: Server, tmp_path: Path, says: bytes, text: str) -> None:
    """A server that speaks something else, or nothing, is no connection: status 3."""
    path = str(tmp_path / "wrong")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(PATIENCE)
        with server.start("--connect", path, "commands", stderr=subprocess.PIPE) as process:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(says)
            _, complaint = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3
    assert text in complaint.decode()
    assert complaint.count(b"\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(server: Server, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C ends the command without a word, and its job; the shell sees that it did."""
    mark = tmp_path / "mark"
    with server.start("call", "Hang", f"mark={mark}", stderr=subprocess.PIPE) as process:
        wait_for(mark.exists, "the job")
        process.send_signal(number)
        _, complaint = process.communicate(timeout=PATIENCE)
    assert (process.returncode, complaint) == (-number, b"")
    wait_for(lambda: not alive(int(mark.read_text())), "the end of the job's worker")


PEAK = """
import sys
from dangad.cli import main
status = main(sys.argv[1:])
with open("/proc/self/status") as file:
    (line,) = [line for line in file if line.startswith("VmHWM:")]
sys.stderr.write(line.split()[1])
sys.exit(status)
"""
"""The command, which tells the most memory that it had, in KiB."""


def test_large_file(server: Server) -> None:
    """A file of any size is written as it comes, in memory that does not grow with it."""
    size = 128 * 2**20
    with (server.folder / "big").open("wb") as file:
        file.truncate(size)
    with (
        (server.folder / "copy").open("wb") as copy,
        subprocess.Popen(
            [sys.executable, "-c", PEAK, "call", "ReadFile", "path=big"],
            cwd=server.folder,
            env=server.environment,
            stdout=copy,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        _, memory = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, memory
    assert (server.folder / "copy").stat().st_size == size
    assert int(memory) * 1024 < size / 2
    (server.folder / "copy").unlink()
    text = server.complaint(1, "call", "ReadFile", "path=big", "--json")
    assert text.startswith("BAD_RANGE: ")
    text = server.complaint(1, "call", "ReadFile", "path=nothing")
    assert text.startswith("NOT_FOUND: ")


def test_stream(server: Server) -> None:
    """Partial results are written where the bytes of the answer are, and where it is asked for."""
    data = os.urandom(1_000_003)
    (server.folder / "random").write_bytes(data)
    for words in ([], ["--stream"], ["--raw", "data"]):
        assert server.output("call", "ReadFile", "path=random", *words) == data
    assert server.output("call", "ReadFile", "path=random", "--raw", "size") == b"1000003"
    assert server.output("call", "Parts", "how=well") == b"sent     3\nsummary  abc\n"
    assert server.output("call", "Parts", "how=well", "--stream") == b"abc"
    assert server.output("call", "Parts", "how=well", "--raw", "summary") == b"abc"
    assert server.output("call", "Echo", "data=x", "--stream") == b"x"
    done = server.dangad("call", "Parts", "how=badly", "--stream")
    assert (done.returncode, done.stdout) == (1, b"abc")
    assert done.stderr.startswith(b"dangad: JOB_FAILED: ")
    assert "not allowed with" in server.complaint(
        2, "call", "Parts", "how=well", "--stream", "--json"
    )


def test_progress(server: Server) -> None:
    """A terminal is shown a bar, which is gone at the end; nothing else is.

    No bar disturbs partial results that are shown there. It is on the standard error, and so is
    there when the output goes to a file.
    """
    assert on_a_terminal(server, "call", "Parts", "how=well", "--stream") == b"abc"
    output = on_a_terminal(server, "call", "Parts", "how=well")
    *bars, last = output.split(b"\x1b[2K")
    assert b" 33% 1/3 chunk a\\x1b " in SEQUENCE_OF_BYTES.sub(b"", bars[1])
    assert last == b"sent     3\nsummary  abc\n"
    assert server.dangad("call", "Parts", "how=well").stderr == b""
    copy = server.folder / "copy"
    with copy.open("wb") as file:
        shown = on_a_terminal(server, "call", "Parts", "how=well", "--stream", stdout=file)
    assert b" 33% 1/3 chunk" in SEQUENCE_OF_BYTES.sub(b"", shown)
    assert shown.endswith(b"\x1b[2K")
    assert copy.read_bytes() == b"abc"


@pytest.fixture
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 60 columns without colours."""
    monkeypatch.setenv("TERM", "vt100")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")


SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""What moves a cursor or changes colours."""
SEQUENCE_OF_BYTES = re.compile(SEQUENCE.pattern.encode())


@pytest.mark.usefixtures("plain_terminal")
@pytest.mark.parametrize(
    ("news", "line"),
    [
        ((1, 4, "half of a half"), " 25% 1/4 half of a half"),
        ((0, 12345, ""), "  0% 0/12,345"),
        ((9, 4, ""), "100% 9/4"),
        ((-1, 4, ""), "  0% -1/4"),
        ((10**400, 10**400 + 1, ""), "100%"),
        ((7, 0, "so far"), " 7 so far"),
        ((1, 4, "x" * 100), " 25% 1/4 xxxx"),
        ((1, 4, "\u65e5" * 100), " 25% 1/4 \u65e5\u65e5"),
        ((1, 4, "\n\x1b[2J"), " 25% 1/4 \\n\\x1b[2J"),
        ((1, 4, "[red]1[/red] :smile: [/]"), " 25% 1/4 [red]1[/red] :smile: [/]"),
    ],
)
def test_bar(news: tuple[int, int, str], line: str) -> None:
    """A bar fits its line, whatever a job tells, and nothing of it is taken for markup."""
    terminal = io.StringIO()
    ProgressBar(terminal).show(*news)
    (shown,) = SEQUENCE.sub("", terminal.getvalue()).strip("\r").split("\r")[-1:]
    assert line in shown
    assert shown.isprintable()
    assert cell_len(shown) <= 60


@pytest.mark.usefixtures("plain_terminal")
def test_bar_is_redrawn() -> None:
    """What is drawn covers what stood there, and clearing leaves an empty line and a cursor."""
    terminal = io.StringIO()
    bar = ProgressBar(terminal)
    bar.clear()
    assert terminal.getvalue() == ""
    for done in range(3):
        bar.show(done, 3, "")
        assert "\n" not in terminal.getvalue()
    bar.clear()
    bar.clear()
    erase_line, up, show_cursor = "\x1b[2K", "\x1b[1A", "\x1b[?25h"
    assert terminal.getvalue().endswith(f"\n{show_cursor}\r{up}{erase_line}")
    bar.show(1, 3, "")
    terminal.close()
    bar.show(2, 3, "")
    bar.clear()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_nobody_reads(server: Server, number: signal.Signals) -> None:
    """Ctrl-C ends the command, and its job, while the output waits for its reader."""
    with (server.folder / "big").open("wb") as file:
        file.truncate(2**30)
    reader, writer = os.pipe()
    words = ("call", "ReadFile", "path=big")
    with server.start(*words, stdout=writer, stderr=subprocess.PIPE) as process:
        os.close(writer)
        assert os.read(reader, 1) == b"\0"
        # A chunk is more than a pipe holds: when that is full, the command waits in the write.
        wait_for(lambda: waiting(reader) > 60_000, "the full pipe")
        process.send_signal(number)
        _, complaint = process.communicate(timeout=PATIENCE)
    os.close(reader)
    assert (process.returncode, complaint) == (-number, b"")


def waiting(reader: int) -> int:
    """How many bytes are in a pipe."""
    (count,) = struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))
    return int(count)


@pytest.mark.parametrize("words", [["call", "ReadFile", "path=big"], ["commands"]])
def test_reader_leaves(server: Server, words: list[str]) -> None:
    """When the reader of a stream, or of all output, has gone, the command ends without a word."""
    reader, writer = os.pipe()
    with server.start(*words, stdout=writer, stderr=subprocess.PIPE) as process:
        os.close(writer)
        if "big" in words[-1]:
            os.read(reader, 1)
        os.close(reader)
        _, complaint = process.communicate(timeout=PATIENCE)
    assert (process.returncode, complaint) == (-signal.SIGPIPE, b"")


def test_full_disk(server: Server) -> None:
    """An answer that cannot be written is an error."""
    with (
        open("/dev/full", "wb") as full,
        server.start("commands", stdout=full, stderr=subprocess.PIPE) as process,
    ):
        _, complaint = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert complaint == b"dangad: cannot write the answer: No space left on device\n"


def on_a_terminal(server: Server, *words: str, **streams: Any) -> bytes:
    """What the command writes to a terminal."""
    main, terminal = pty.openpty()
    with server.start(*words, **{"stdout": terminal, "stderr": terminal} | streams) as process:
        os.close(terminal)
        output = b""
        with contextlib.suppress(OSError):  # how Linux tells that the terminal was closed
            while piece := os.read(main, 65_536):
                output += piece
    os.close(main)
    assert process.returncode == 0, output
    return output.replace(b"\r\n", b"\n")


def test_on_a_terminal(server: Server) -> None:
    """On a terminal there are tables only, and nothing that a terminal would obey."""
    assert on_a_terminal(server, "call", "Evil") == (
        b"text  \\x1b]0;owned\\x07\nname  \\xff\\x9b1m\n"
    )
    assert on_a_terminal(server, "call", "Echo", "data=a\x1b") == b"data  a\\x1b\n"
    listing = on_a_terminal(server, "call", "ReadFile", "path=listed/a.txt")
    assert listing == b"size  6\n\ndata:\n  hello\n"


def test_bytes_on_a_terminal(server: Server) -> None:
    """Of more than a few bytes that are not text, the size is shown, and how to save them."""
    (server.folder / "listed" / "b").write_bytes(b"\xff" * 2048)
    try:
        shown = on_a_terminal(server, "call", "ReadFile", "path=listed/b")
    finally:
        (server.folder / "listed" / "b").unlink()
    assert shown == (
        b"data  2.0 KiB that are not text; to save them: --raw data > FILE\nsize  2048\n"
    )


@pytest.mark.usefixtures("plain_terminal")
def test_fitted_table() -> None:
    """A table that is too wide wraps its texts, and says which columns it leaves out."""
    columns = [Column("PID", True), Column("DUE"), Column("COMMAND"), Column("AGE", True)]
    rows = [["1", "-", "so many words that they wrap", "5 s"], ["2", "-", "x" * 28, "6 s"]]
    whole = table(columns, rows)
    assert drawn(columns, rows, 43) == whole
    assert drawn(columns, rows, 30, [0, 3, 2, 1]) == [
        "PID  COMMAND               AGE",
        "  1  so many words that    5 s",
        "     they wrap",
        "  2  xxxxxxxxxxxxxxxxxxxx  6 s",
        "     xxxxxxxx",
        "left out: DUE; a wider",
        "terminal or --json shows them",
    ]
    narrow = drawn(columns, rows, 26, [0, 2, 3, 1])
    assert narrow[0] == "PID  COMMAND"
    assert narrow[-3:] == ["left out: DUE, AGE; a", "wider terminal or --json", "shows them"]
    assert all(len(line) <= 10 for line in drawn(columns, rows, 10))
    assert drawn([Column("N", True)], [["1" * 12]], 10) == ["         N", "111111111…"]
    markup = [["[bold]x[/bold] :smile: [/] [link=file:///]"]]
    assert drawn([Column("A")], markup, 80)[1:] == markup[0]


@pytest.mark.usefixtures("plain_terminal")
@given(
    st.lists(st.tuples(st.text(max_size=80), st.integers(0, 10**9)), max_size=5),
    st.integers(60, 70),
)
def test_nothing_is_lost_in_a_table(rows: list[tuple[str, int]], room: int) -> None:
    """Whatever is in a table, at any width each row has all its characters, in their order."""
    texts = [[printable(text), str(number)] for text, number in rows]
    columns = [Column("TEXT"), Column("N", True)]
    lines = drawn(columns, texts, room)
    assert all(line.isprintable() for line in lines)
    assert all(cell_len(line) <= room for line in lines)
    whole = "".join(lines).replace(" ", "")
    assert sorted(whole) == sorted("".join(["TEXTN", *chain(*texts)]).replace(" ", ""))


def drawn(
    columns: list[Column], rows: list[list[str]], room: int, worth: Sequence[int] = ()
) -> list[str]:
    """The lines of a table on a terminal, without the bold of its head."""
    return [SEQUENCE.sub("", line) for line in table(columns, rows, room, worth)]


@pytest.mark.usefixtures("plain_terminal")
def test_flow() -> None:
    """Text is broken between words, or else where the line ends, and keeps its indent."""
    assert flow(["three short words"], None) == ["three short words"]
    assert flow(["three short words"], 11) == ["three short", "words"]
    assert flow(["  three short words", "", "x"], 11) == ["  three", "  short", "  words", "", "x"]
    assert flow(["abcdefgh x"], 3) == ["abc", "def", "gh", "x"]
    assert flow(["日本語 x"], 5) == ["日本", "語 x"]


def test_columns_are_drawn_as_they_are_written() -> None:
    """A table that fits is the same on a terminal and in a file, whatever is in it."""
    columns = [Column("A"), Column("N", True), Column("B")]
    rows = [["漢字", "1", "-"], ["a", "-", "Zoë"], ["", "22", "x\u0301"], ["", "", ""]]
    assert drawn(columns, rows, 80) == table(columns, rows)


@pytest.mark.usefixtures("plain_terminal")
def test_narrow_terminal() -> None:
    """What is said of commands is broken between words, its lists and examples kept as they are."""
    kind = {"name": "Unicode"}
    keys = [{"key": key, "type": kind, "optional": False} for key in ("path", "name", "more")]
    doc = "Do ``some`` things and\nothers.\n\n- one\n- two"
    policy = {"time_limit": 60, "retries": None, "isolate": True}
    entry = {"name": "Do", "arguments": keys, "response": [], "doc": doc, "policy": policy}
    listing = SEQUENCE.sub("", catalogue_as_table({"commands": [entry]}, 24))
    assert listing.splitlines() == [
        "Do  Do some things and",
        "  takes  path: text,",
        "         name: text,",
        "         more: text",
        "  gives  -",
    ]
    lines = SEQUENCE.sub("", entry_as_help(entry, 24)).splitlines()
    assert lines[2:7] == ["Do some things and", "others.", "", "- one", "- two"]
    assert "response:\n  none\n" in "\n".join(lines)
    assert lines[-2:] == ["  time limit  60 s", "  isolate     true"]


@pytest.mark.parametrize(
    "words", [["--help"], ["help"], ["commands", "--help"], ["help", "status"], ["help", "--help"]]
)
def test_help(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """Help is printed, and is a success."""
    assert cli.main(words) == 0
    assert "--help" in capfd.readouterr().out


def test_help_on_a_command(server: Server) -> None:
    """After a command, help is on that, as the server describes it."""
    assert b"key=value" in server.output("call", "--help")
    assert server.output("help", "call") == server.output("call", "--help")
    text = server.output("call", "ListDirectory", "--help").decode()
    assert text.startswith("usage: dangad call ListDirectory path=...\n")
    assert "\narguments:\n  path  text\n" in text
    assert "\nresponse:\n  entries  list of {" in text
    assert "no command 'Lst'" in server.complaint(2, "call", "Lst", "--help")


def test_version(server: Server) -> None:
    """The version is that of the package, whoever is asked."""
    assert server.output("--version").decode() == f"dangad {dangad.__version__}\n"
    done = subprocess.run(
        [sys.executable, "-m", "dangad", "--version"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"dangad {version('dangad')}\n"


def test_reference(server: Server) -> None:
    """The page on the command line has every option, of the server and of the command."""
    page = (ROOT / "docs" / "reference" / "command-line.md").read_text()
    server_page, own_page = page.split("## dangad\n")
    options = tap.Options()
    for option in options.longOpt:
        assert f"`--{option.rstrip('=')}" in server_page, option
    help_text = "".join(
        server.output(command, "--help").decode() for command in ("call", "commands")
    )
    for option in set(re.findall("--[a-z]+", help_text)) - {"--help"}:
        assert f"`{option}" in own_page, option
