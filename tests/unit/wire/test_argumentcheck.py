"""What AMP's arguments take, and what they are kept from taking."""

from __future__ import annotations

from collections import UserDict
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from dangad import Blob, Large
from dangad.wire.argumentcheck import WrongValue, check_of

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)
ROWS = amp.AmpList([(b"max-size", amp.Integer()), (b"tags", amp.ListOf(amp.Unicode(), True))])


class Five:
    """Counts as a whole number, like those of numpy."""

    def __index__(self) -> int:
        return 5


class Own(amp.Integer):
    """Somebody's own class, which takes what it takes."""


def of_numpy(value: object) -> Any:
    """What looks like a single value of numpy's."""
    return type("float32", (), {"__module__": "numpy", "shape": (), "item": lambda _: value})()


class Text(str):
    """A text that is more than that."""


class CheckTests(SynchronousTestCase):
    def test_right(self) -> None:
        """What is of the declared type passes, as a plain value of Python's."""
        for argument, value, expected in (
            (amp.Integer(), 7, 7),
            (amp.Integer(), True, 1),
            (amp.Integer(), Five(), 5),
            (amp.Float(), 2.5, 2.5),
            (amp.Float(), 3, 3.0),
            (amp.Float(), of_numpy(0.5), 0.5),
            (amp.Boolean(), False, False),
            (amp.Boolean(), of_numpy(True), True),
            (amp.String(), bytearray(b"x"), b"x"),
            (amp.Unicode(), Text("x"), "x"),
            (amp.Decimal(), Decimal("1.0"), Decimal("1.0")),
            (amp.DateTime(), NOW, NOW),
            (Blob(), memoryview(b"x"), b"x"),
            (amp.ListOf(amp.Integer()), (n for n in (1, Five())), [1, 5]),
            (Large(amp.ListOf(amp.Integer())), {3}, [3]),
            (amp.ListOf(Own()), range(2), [0, 1]),
            (ROWS, [UserDict(max_size=Five(), other=1)], [{"max_size": 5, "other": 1}]),
            (ROWS, [{"max_size": 1, "tags": None}], [{"max_size": 1, "tags": None}]),
        ):
            with self.subTest(f"{argument} {value!r}"):
                check = check_of(argument)
                assert check is not None
                found = check(value)
                self.assertEqual((found, type(found)), (expected, type(expected)))

    def test_wrong(self) -> None:
        """Anything else is refused, in words that say where it lies and what was expected."""
        for argument, value, text in (
            (amp.Integer(), 2.7, "is a float, where Integer takes a whole number"),
            (amp.Integer(), "7", "is a str, where Integer takes a whole number"),
            (amp.Float(), "2.5", "is a str, where Float takes a float"),
            (amp.Float(), True, "is a bool, where Float takes a float"),
            (amp.Float(), 2**53 + 1, "is a int, where Float takes a float"),
            (amp.Boolean(), 1, "is a int, where Boolean takes True or False"),
            (amp.Boolean(), None, "is None, where Boolean takes True or False"),
            (amp.String(), "x", "is a str, where String takes bytes"),
            (amp.Unicode(), b"x", "is a bytes, where Unicode takes a str"),
            (amp.Decimal(), 1.5, "is a float, where Decimal takes a decimal.Decimal"),
            (amp.DateTime(), date(2026, 11, 27), "is a date, where DateTime takes a datetime"),
            (amp.DateTime(), NOW.replace(tzinfo=None), "is a datetime without a time zone"),
            (Blob(), 5, "is a int, where String takes bytes"),
            (amp.ListOf(amp.Unicode()), "abc", "is a str, where ListOf takes a list"),
            (amp.ListOf(amp.Integer()), {1: 2}, "is a dict, where ListOf takes a list"),
            (amp.ListOf(amp.Integer()), [1, 2.5], "[1] is a float, where Integer takes"),
            (ROWS, {"max_size": 1}, "is a dict, where AmpList takes a list of dicts"),
            (ROWS, [("max_size", 1)], "[0] is a tuple, where AmpList takes a dict"),
            (ROWS, [{"max_size": 1}, {}], "[1] has no 'max_size'"),
            (
                Large(ROWS),
                [{"max_size": 1, "tags": ["a", 5]}],
                "[0]['tags'][1] is a int, where Unicode takes a str",
            ),
        ):
            with self.subTest(f"{argument} {value!r}"):
                check = check_of(argument)
                assert check is not None
                error = self.assertRaises(WrongValue, check, value)
                self.assertTrue(f"{error.path} {error}".lstrip().startswith(text), error)

    def test_own_classes(self) -> None:
        """An argument class of somebody's own is asked, not checked."""
        self.assertIsNone(check_of(Own()))
        self.assertIsNone(check_of(Large(Own())))
        self.assertIsNone(check_of(amp.Path()))
