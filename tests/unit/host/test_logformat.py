"""Events of the log as lines, whatever is in them."""

from __future__ import annotations

import datetime
import enum
import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogLevel
from twisted.python import log as legacy_log
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dangad.host.logformat import (
    LARGEST,
    LEVELS,
    MOST_DEPTH,
    MOST_FIELDS,
    MOST_ITEMS,
    MOST_TEXT,
    MOST_VALUE,
    Format,
    json_line,
)

HOSTILE = "a\n\x1b[2J\r\x00\x7f\x85\u2028\u202e\udc80{b}"
"""Characters that would deceive the reader of a log."""


class Colour(enum.Enum):
    """An enumeration."""

    RED = "red"


class Nameless:
    """An object that cannot be shown."""

    def __repr__(self) -> str:
        """Raise."""
        raise RuntimeError("no name")

    __str__ = __repr__

    def __len__(self) -> int:
        """Raise."""
        raise RuntimeError("no length")


def event_of(text: str = "{what}", level: str = "info", /, **fields: Any) -> dict[str, Any]:
    """An event as a Logger makes it."""
    events: list[dict[str, Any]] = []
    logger = Logger(namespace="dangad.some.room", observer=events.append)  # type: ignore[arg-type]
    logger.emit(LogLevel.lookupByName(level), text, **fields)
    return events[0]


def document(event: dict[str, Any], level: str = "debug") -> dict[str, Any]:
    """The event's line in JSON, read again."""
    line = Format(level).json(event)
    assert line is not None
    assert line.endswith("\n")
    assert line[:-1].isprintable(), line
    line.encode()
    read = json.loads(line, parse_constant=lambda word: 1 / 0)
    assert isinstance(read, dict)
    return read


class JSONTests(SynchronousTestCase):
    def test_event(self) -> None:
        """An object has the time in UTC, the level, the namespace, the text and the fields."""
        event = event_of("job {job} {command} done", "warn", job=7, command="Report", wait=0.5)
        event["log_time"] = 1_800_000_000.25
        self.assertEqual(
            list(document(event).items()),
            [
                ("time", "2027-01-15T08:00:00.250000Z"),
                ("level", "warn"),
                ("namespace", "dangad.some.room"),
                ("text", "job 7 Report done"),
                ("job", 7),
                ("command", "Report"),
                ("wait", 0.5),
            ],
        )

    def test_values(self) -> None:
        """A value is what JSON has, or a text; nothing is too large, and nothing is missing."""
        many = list(range(2 * MOST_ITEMS))
        deep: Any = "x"
        for _ in range(MOST_DEPTH + 3):
            deep = [deep]
        for value, expected in (
            (None, None),
            (True, True),
            (LARGEST - 1, LARGEST - 1),
            (10**5000, f"a number of {(10**5000).bit_length()} bits"),
            (math.inf, None),
            (math.nan, None),
            (b"ab\xff", "abÿ"),
            ("é", "é"),
            ("x" * 2 * MOST_VALUE, "x" * (MOST_VALUE - 3) + "..."),
            (Colour.RED, "red"),
            ((1, "a"), [1, "a"]),
            ({1: {"a": None}}, {"1": {"a": None}}),
            (many, many[:MOST_ITEMS]),
            (ValueError("no"), "ValueError('no')"),
            ("a\n\tb", "a\n\tb"),
        ):
            with self.subTest(expected=str(expected)[:40]):
                self.assertEqual(document(event_of(what=value))["what"], expected)
        self.assertIn("[[", str(document(event_of(what=deep))["what"]))
        self.assertIn("Nameless", document(event_of("text", what=Nameless()))["what"])
        fields = document(event_of("text", **{f"n{number}": 0 for number in range(99)}))
        self.assertEqual(len([name for name in fields if name[0] == "n"]), MOST_FIELDS + 1)

    def test_names(self) -> None:
        """A field never takes the place of the line's own; a part of the text is no field."""
        read = document(
            {**event_of("{_part} {text}", _part="a", text="b"), "level": "c", "time": "d"}
        )
        self.assertEqual((read["text"], read["level"]), ("a b", "info"))
        self.assertEqual((read["text_"], read["level_"], read["time_"]), ("b", "c", "d"))
        self.assertNotIn("_part", read)

    def test_hostile_texts(self) -> None:
        """Control characters and the like are escaped, before JSON escapes them again."""
        read = document(event_of(what=HOSTILE, **{HOSTILE: [{HOSTILE: HOSTILE}]}))
        escaped = "a\n\\x1b[2J\\r\\x00\\x7f\\x85\\u2028\\u202e\\x80{b}"
        self.assertEqual((read["text"], read["what"]), (escaped, escaped))
        name = escaped.replace("\n", "\\n")
        self.assertEqual(read[name], [{name: escaped}])

    def test_failure(self) -> None:
        """A failure's traceback is a field, and its end is kept if it is long."""
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            read = document(event_of("it failed", "critical", log_failure=Failure()))
        self.assertEqual(read["text"], "it failed")
        self.assertIn("builtins.ValueError: a\n\\x1b[2J", read["traceback"])
        failure = Failure(ValueError("x" * 2 * MOST_TEXT + "end"))
        read = document(event_of("it failed", "critical", log_failure=failure))
        self.assertEqual(len(read["traceback"]), MOST_TEXT)
        self.assertIn("xend", read["traceback"])

    def test_what_cannot_be_formatted(self) -> None:
        """An event that cannot be formatted is a line, too."""
        for event in (
            event_of("{missing}"),
            event_of("{what}", what=Nameless()),
            event_of("{what", what=1),
            {},
            {"log_level": None, "log_time": "x", "log_format": 5, "log_namespace": Nameless()},
            {"log_level": LogLevel.info, "log_time": 1e300, "log_format": "x"},
            {"log_format": "x", "log_failure": Nameless()},
        ):
            with self.subTest(repr(event.get("log_format"))):
                self.assertIn("text", document(event))

    def test_legacy(self) -> None:
        """So is an event of Twisted's old log, without what it says twice."""
        events: list[dict[str, Any]] = []
        publisher = legacy_log.LogPublisher()
        publisher.addObserver(events.append)
        publisher.msg("a", "b", system="HTTP,0", peer="x")
        read = document(events[0])
        self.assertEqual((read["text"], read["system"], read["peer"]), ("a b", "HTTP,0", "x"))
        self.assertEqual(read["namespace"], "twisted")
        self.assertEqual(read.keys() & {"isError", "message", "system_", "time_"}, set())

    def test_no_level(self) -> None:
        """An event without a level, or with something else in its place, informs."""
        levels: tuple[Any, ...] = (None, [], {}, "warn", float("nan"))
        for level in levels:
            event = {**event_of("text"), "log_level": level}
            self.assertEqual(document(event)["level"], "info")
            self.assertIsNone(Format("warn").json(event))

    @given(
        st.dictionaries(st.text(), st.recursive(st.text() | st.binary() | st.floats(), st.lists))
    )
    def test_any(self, fields: dict[str, Any]) -> None:
        """Whatever a peer makes of names and values, the line is one, and can be read."""
        document({**event_of("text"), **fields})

    def test_own_line(self) -> None:
        """A line that is no event has the time of now."""
        read = json.loads(json_line({"text": "x"}))
        said = datetime.datetime.fromisoformat(read["time"])
        self.assertLess(abs(datetime.datetime.now(datetime.UTC) - said).seconds, 60)


class TextTests(SynchronousTestCase):
    def test_event(self) -> None:
        """A line is as Twisted writes it; for syslog it is without the time."""
        event = event_of("job {job} done", "warn", job=7)
        line = Format("info").text(event) or ""
        self.assertRegex(
            line, r"^\d{4}-\d\d-\d\dT[\d:]{8}[+-]\d{4} \[dangad.some.room#warn\] job 7"
        )
        line = Format("info", stamped=False).text(event) or ""
        self.assertEqual(line, "[dangad.some.room#warn] job 7 done\n")
        self.assertIsNone(Format("info").text({}))

    def test_hostile_texts(self) -> None:
        """What a peer sends neither ends its line, nor controls a terminal, nor is too long."""
        line = Format("info").text(event_of(what=HOSTILE)) or ""
        self.assertTrue(line.endswith("] a\n\t\\x1b[2J\\r\\x00\\x7f\\x85\\u2028\\u202e\\x80{b}\n"))
        self.assertLess(len(Format("info").text(event_of(what="x" * 10**6)) or ""), 2 * MOST_TEXT)

    def test_failure(self) -> None:
        """A traceback is indented under its text."""
        event = event_of("it failed", "critical", log_failure=Failure(ValueError("\x1b")))
        first, *more = (Format("info").text(event) or "").splitlines()
        self.assertTrue(first.endswith("] it failed"))
        self.assertEqual(more[-2:], ["\tFailure: builtins.ValueError: \\x1b", "\t"])

    def test_what_cannot_be_formatted(self) -> None:
        """An event that cannot be formatted is a line, too."""
        for event in (
            event_of("{what}", what=Nameless()),
            {"log_format": "x", "log_system": Nameless(), "log_time": "x"},
        ):
            self.assertTrue(Format("info").text(event))


class LevelTests(SynchronousTestCase):
    def test_levels(self) -> None:
        """Of the levels those from the least important one on are logged, in both forms."""
        for number, least in enumerate(LEVELS):
            format = Format(least)
            for form in (format.text, format.json):
                logged = [level for level in LEVELS if form(event_of("x", level)) is not None]
                self.assertEqual(logged, list(LEVELS[number:]))

    def test_without_level(self) -> None:
        """An event without a level counts as information."""
        self.assertIsNotNone(Format("info").json({"log_format": "x"}))
        self.assertIsNone(Format("warn").json({"log_format": "x"}))
