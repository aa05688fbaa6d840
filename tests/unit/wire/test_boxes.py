"""The box reader against every split, size and lie; writing boxes; values over several keys."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from dangad.wire import boxes, values
from dangad.wire.boxes import BoxReader, Garbage
from dangad.wire.values import Blob, Large

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Pairs = list[tuple[bytes, bytes]]

NO_LIMIT = 2**40
MIB = 2**20

SMALL = [(b"_ask", b"\x01\x00"), (b"x", bytes(300)), (b"_command", b"Echo"), (b"y", b"")]
LATE_KEYS = [*[(b"data", bytes(65535))] * 3, (b"_ask", b"7"), (b"_command", b"Echo")]

keys = st.one_of(
    st.sampled_from(sorted(boxes.REQUEST_KEYS)),
    st.sampled_from([b"_", b"_as", b"_askk", b"a", b"\xff" * 255]),
    st.binary(min_size=1, max_size=12),
)
any_values = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([0, 255, 256, 257, 1000, 65535]).map(bytes),
)
many_boxes = st.lists(st.lists(st.tuples(keys, any_values), min_size=1, max_size=6), max_size=6)
cuts = st.lists(st.integers(0, 10**6), max_size=30)


def split(stream: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """The stream cut at these places, taken modulo its length."""
    start = 0
    for place in sorted({place % (len(stream) + 1) for place in places}):
        yield stream[start:place]
        start = place
    yield stream[start:]


def read(
    pieces: Iterable[bytes],
    max_size: int = NO_LIMIT,
    wanted: frozenset[bytes] = boxes.REQUEST_KEYS,
    views: bool = False,
) -> list[tuple[boxes.Raw | None, dict[bytes, bytes], int]]:
    """All boxes that a reader finds in these pieces."""
    reader = BoxReader(max_size, wanted, views)
    found = []
    for piece in pieces:
        reader.feed(piece)
        while (box := reader.next()) is not None:
            found.append((box.raw, box.keys, box.size))
    return found


def expect(
    many_boxes: Iterable[Pairs], max_size: int = NO_LIMIT
) -> list[tuple[bytes | None, dict[bytes, bytes], int]]:
    """What a reader must find in these boxes, told in the simplest way."""
    found = []
    for pairs in many_boxes:
        raw = boxes.pack(pairs)
        noted = {key: value for key, value in pairs if key in boxes.REQUEST_KEYS}
        found.append((raw if len(raw) <= max_size else None, noted, len(raw)))
    return found


def single_bytes(stream: bytes) -> Iterator[bytes]:
    """The stream, byte by byte."""
    return (stream[place : place + 1] for place in range(len(stream)))


class SplitTest(SynchronousTestCase):
    @given(many_boxes, cuts)
    def test_any_split_gives_the_same_boxes(self, many_boxes: list[Pairs], cuts: list[int]) -> None:
        """However the bytes are cut, each box comes whole, byte for byte, with its keys."""
        stream = b"".join(map(boxes.pack, many_boxes))
        self.assertEqual(read(split(stream, cuts)), expect(many_boxes))

    @given(many_boxes, cuts, st.integers(0, 3000))
    @example([[(b"a", bytes(65535))] * 3, [(b"_ask", b"1")]], [1, 2, 65542, 70000], 0)
    @example([SMALL, SMALL[:1], SMALL], list(range(2000)), 0)  # byte by byte
    @example([SMALL, SMALL[:1], SMALL], list(range(2000)), 100)
    @example([SMALL] * 2, list(range(2000)), len(boxes.pack(SMALL)))
    @example([SMALL] * 2, list(range(2000)), len(boxes.pack(SMALL)) - 1)
    @example([LATE_KEYS, SMALL, LATE_KEYS], list(range(0, 400_000, 4096)), 100_000)
    @example([[(b"_ask", b"1"), (b"_command", b"A"), (b"_ask", b"2")]], [], 1000)  # the last counts
    def test_any_split_and_any_limit(
        self, many_boxes: list[Pairs], cuts: list[int], limit: int
    ) -> None:
        """A limit turns the larger boxes into notes of their size and keys, and no others."""
        stream = b"".join(map(boxes.pack, many_boxes))
        self.assertEqual(read(split(stream, cuts), limit), expect(many_boxes, limit))

    @given(many_boxes)
    def test_twisted_reads_the_same(self, many_boxes: list[Pairs]) -> None:
        """Twisted's own parser finds the same boxes in the same bytes."""
        stream = b"".join(map(boxes.pack, many_boxes))
        theirs = [dict(box) for box in amp.parseString(stream)]
        ours = [boxes.unpack(bytes(raw)) for raw, _, _ in read([stream]) if raw is not None]
        self.assertEqual(ours, theirs)

    def test_views(self) -> None:
        """Large boxes, if they are had without being copied, are the same, and stay so.

        Small ones are bytes, and so is what is kept of the stream: it can be added to.
        """
        large, small = [(b"%d" % n, bytes([n]) * 65535) for n in range(1, 4)], [(b"_ask", b"7")]
        sent = [small, large, large, small, large]
        stream = b"".join(map(boxes.pack, sent))
        for size in (1000, 2**16, 2**18, len(stream)):
            found = read(split(stream, range(0, len(stream), size)), views=True)
            self.assertEqual(found, expect(sent))
            kinds = [type(raw) for raw, _, _ in found]
            self.assertEqual(kinds, [bytes, memoryview, memoryview, bytes, memoryview])

    def test_many_boxes_in_one_piece_are_taken_one_by_one(self) -> None:
        """The reader gives one box at a time, and keeps the others for later."""
        many_boxes = [[(b"_ask", b"%d" % number)] for number in range(100)]
        reader = BoxReader(NO_LIMIT, boxes.REQUEST_KEYS)
        reader.feed(b"".join(map(boxes.pack, many_boxes)))
        first = reader.next()
        assert first is not None
        self.assertEqual(first.raw, boxes.pack(many_boxes[0]))
        reader.feed(boxes.pack([(b"_ask", b"last")]))
        tags = []
        while (box := reader.next()) is not None:
            tags.append(box.keys[b"_ask"])
        self.assertEqual(tags, [*(b"%d" % number for number in range(1, 100)), b"last"])
        self.assertEqual(reader.held, 0)

    def test_only_the_wanted_keys_are_noted(self) -> None:
        """Keys that merely begin with an underscore, or were not asked for, are not."""
        pairs = [(b"_ask", b"1"), (b"_asker", b"2"), (b"_", b"3"), (b"ask", b"4"), (b"_x", b"5")]
        found = read([boxes.pack(pairs)], wanted=frozenset({b"_x", b"_y"}))
        self.assertEqual(found[0][1], {b"_x": b"5"})


class LimitTest(SynchronousTestCase):
    def test_memory_over_the_limit(self) -> None:
        """However long a box grows, no more is held than the limit, a pair and a piece."""
        limit, piece = 100_000, 10_000
        reader = BoxReader(limit, boxes.REQUEST_KEYS)
        stream = boxes.pack([(b"data", bytes(65535))] * 200)[:-2]
        for part in split(stream, range(0, len(stream), piece)):
            reader.feed(part)
            self.assertIsNone(reader.next())
            self.assertLessEqual(reader.held, limit + 65535 + 300 + piece)
            self.assertLessEqual(len(reader._buffer), limit + 65535 + 300 + 2 * piece)
        reader.feed(boxes.END)
        box = reader.next()
        assert box is not None
        self.assertEqual((box.raw, box.size), (None, len(stream) + 2))
        self.assertEqual(reader.held, 0)

    def test_endless_reserved_keys(self) -> None:
        """Reserved-looking keys without end take no memory: only those wanted are noted."""
        reader = BoxReader(1000, boxes.REQUEST_KEYS)
        for number in range(20_000):
            reader.feed(boxes.pair(b"_%d" % number, b"x"))
            reader.feed(boxes.pair(b"_ask", b"%d" % number))
            self.assertIsNone(reader.next())
        self.assertEqual(reader._keys, {b"_ask": b"19999"})
        self.assertEqual(reader.held, 0)


class GarbageTest(SynchronousTestCase):
    def test_garbage(self) -> None:
        """Other protocols, and boxes with nothing in them, are told from AMP, in any pieces."""
        large = boxes.pack([(b"x", bytes(5000))])[:-2]
        for stream, text in (
            (b"GET / HTTP/1.1\r\n\r\n", "a key of 18245 bytes where AMP allows 255"),
            (b"\x16\x03\x01\x02\x00\x01\x00", "a key of 5635 bytes where AMP allows 255"),
            (b"SSH-2.0-x\r\n", "a key of 21331 bytes where AMP allows 255"),
            (b"\x01\x00", "a key of 256 bytes where AMP allows 255"),
            (large + b"\xff\xff", "a key of 65535 bytes where AMP allows 255"),
            (bytes(2), "an empty box"),
            (boxes.pack([(b"_ask", b"1")]) + bytes(1000), "an empty box"),
        ):
            for pieces in ([stream], list(single_bytes(stream))):
                with self.assertRaises(Garbage) as caught:
                    read(pieces, 1000)
                self.assertIn(text, str(caught.exception))

    def test_boxes_before_garbage_are_read(self) -> None:
        """What came before the garbage counts."""
        reader = BoxReader(NO_LIMIT, boxes.REQUEST_KEYS)
        reader.feed(boxes.pack([(b"_ask", b"1")]) + b"\x01\x00rest")
        box = reader.next()
        assert box is not None
        self.assertEqual(box.keys, {b"_ask": b"1"})
        self.assertRaises(Garbage, reader.next)

    @given(st.binary(max_size=2000), cuts, st.integers(0, 500))
    def test_random_bytes(self, stream: bytes, cuts: list[int], limit: int) -> None:
        """Any bytes give boxes, garbage or a wait for more, and the split does not matter."""

        def outcome(pieces: Iterable[bytes]) -> tuple[list[Any], str | None]:
            reader = BoxReader(limit, boxes.REQUEST_KEYS)
            found = []
            try:
                for piece in pieces:
                    reader.feed(piece)
                    while (box := reader.next()) is not None:
                        found.append((box.raw, box.keys, box.size))
            except Garbage as garbage:
                return found, str(garbage)
            return found, None

        self.assertEqual(outcome(split(stream, cuts)), outcome([stream]))


class CostTest(SynchronousTestCase):
    def lines_run(self, stream: bytes, piece: int) -> int:
        """How many lines of the reader are run for the stream in pieces of this size."""
        count = 0

        def trace(frame: Any, event: str, argument: object) -> Any:
            nonlocal count
            if frame.f_code.co_filename != boxes.__file__:
                return None
            count += event == "line"
            return trace

        pieces = list(split(stream, range(0, len(stream), piece)))
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            found = read(pieces)
        finally:
            sys.settrace(before)
        self.assertEqual(found[0][0], stream)
        return count

    def test_steps_are_linear_in_pieces_and_pairs(self) -> None:
        """Four times the bytes take about four times the steps, in pieces of 1 byte and more."""
        for pair, piece in ((300, 1), (5000, 1), (40, 7), (5000, 1000), (65535, 65536)):
            size = max(20 * piece, pair, 4000)
            once, four_times = (
                self.lines_run(
                    boxes.pack([(b"data", bytes(pair))] * (factor * size // pair)), piece
                )
                for factor in (1, 4)
            )
            self.assertLess(four_times, 6 * once, f"pairs of {pair} in pieces of {piece}")

    def test_copying_is_linear_in_bytes(self) -> None:
        """Eight times the bytes in pieces of one size take nowhere near 64 times the work.

        The bound leaves room for what memory costs: beyond the processor's cache, three times.
        """

        def cost(size: int) -> float:
            stream = boxes.pack([(b"data", bytes(65535))] * (size // 65535))
            pieces = list(split(stream, range(0, len(stream), 2048)))
            best = float("inf")
            for _ in range(3):
                start = time.process_time()
                found = read(pieces)
                best = min(best, time.process_time() - start)
                self.assertEqual(found[0][2], len(stream))
            return best

        self.assertLess(cost(16 * MIB), 40 * cost(2 * MIB))

    def test_a_box_of_64_mib(self) -> None:
        """The largest box of the default settings comes through whole, in pieces of any size."""
        block = bytes(range(256)) * 255
        pairs = [(b"_ask", b"1"), *((b"data.%d" % n, block) for n in range(64 * MIB // 65536 + 1))]
        stream = boxes.pack(pairs)
        for piece in (5000, 65536, MIB):
            [(raw, _, size)] = read(split(stream, range(0, len(stream), piece)))
            self.assertEqual((raw == stream, size), (True, len(stream)))


class PackTest(SynchronousTestCase):
    @given(st.dictionaries(keys, any_values, max_size=8))
    def test_round_trip(self, pairs: dict[bytes, bytes]) -> None:
        """What is packed is unpacked the same, as Twisted would have packed it."""
        raw = boxes.pack(pairs.items())
        self.assertEqual(boxes.unpack(raw), pairs)
        self.assertEqual(amp.parseString(raw), [pairs])
        self.assertEqual(boxes.pack(sorted(pairs.items())), amp.AmpBox(pairs).serialize())

    @given(keys, any_values)
    def test_a_pair_before_a_box(self, key: bytes, value: bytes) -> None:
        """A pair may be put before a packed box, and the rest be unpacked from behind it."""
        rest = boxes.pack([(b"a", b"1")])
        self.assertEqual(boxes.pair(key, value) + rest, boxes.pack([(key, value), (b"a", b"1")]))
        self.assertEqual(
            boxes.unpack(boxes.pair(key, value) + rest, 4 + len(key) + len(value)), {b"a": b"1"}
        )

    def test_bounds(self) -> None:
        """Keys of 1 to 255 bytes and values of up to 65,535 pass; all others are too long."""
        for pairs in ([(b"k" * 255, bytes(65535))], [(b"k", b"")]):
            self.assertEqual(amp.parseString(boxes.pack(pairs)), [dict(pairs)])
        for key, value, about_key in (
            (b"k" * 256, b"", True),
            (b"", b"", True),
            (b"k", bytes(65536), False),
        ):
            error = self.assertRaises(amp.TooLong, boxes.pack, [(b"a", b"1"), (key, value)])
            self.assertEqual((error.isKey, error.isLocal), (about_key, True))
            self.assertEqual(error.keyName, None if about_key else key)


class ErrorTextTest(SynchronousTestCase):
    def text(self, text: str) -> bytes:
        """The error's text as it is sent."""
        (_, code), (_, description) = boxes.error_pairs(b"CODE", text)
        self.assertEqual(code, b"CODE")
        return description

    def test_short(self) -> None:
        """A text that fits is sent in UTF-8, with what that cannot say spelled out."""
        for text in ("", "no", "schön 🙂", "x" * 65535, "ö" * 32767 + "x"):
            self.assertEqual(self.text(text), text.encode())
        self.assertEqual(self.text("a\udcffb"), b"a\\udcffb")

    def test_long(self) -> None:
        """A longer text is cut between two characters and marked, and fits."""
        for character in "xö€🙂":
            for shift in range(4):
                sent = self.text("x" * shift + character * 65536)
                self.assertLessEqual(len(sent), 65535)
                self.assertGreater(len(sent), 65535 - 4)
                kept = sent.decode().removesuffix("...")
                self.assertEqual(kept.lstrip("x").strip(character), "")
                self.assertEqual(sent, kept.encode() + b"...")

    @given(st.text(alphabet=st.characters(), max_size=50), st.integers(1, 5000))
    def test_any_text(self, text: str, times: int) -> None:
        """Every text gives one value of readable UTF-8 that an AMP box can carry."""
        pairs = boxes.error_pairs(b"CODE", text * times)
        self.assertEqual(amp.parseString(boxes.pack(pairs)), [dict(pairs)])
        pairs[1][1].decode()


class SecondsTest(SynchronousTestCase):
    def test_readable(self) -> None:
        """Decimal numbers, with or without fraction and exponent, are seconds."""
        for text, seconds in (
            (b"0", 0.0),
            (b"5", 5.0),
            (b"007", 7.0),
            (b"0.25", 0.25),
            (b"1e-3", 0.001),
            (b"1.5E+2", 150.0),
        ):
            self.assertEqual(values.read_seconds(text), seconds)

    @given(st.floats(0, allow_infinity=False, allow_nan=False))
    def test_python_floats(self, seconds: float) -> None:
        """What Python writes for a number that is not negative is read as that number."""
        self.assertEqual(values.read_seconds(repr(abs(seconds)).encode()), seconds)

    def test_unreadable(self) -> None:
        """All else is refused, also what Python's own float() takes."""
        for text in (
            *(b"", b"abc", b"-1", b"-0", b"+1", b"nan", b"inf", b"-inf", b"Infinity", b"1e999"),
            *(b" 1", b"1 ", b"1\n", b"1_000", b"1,5", b".5", b"5.", b"0x10", b"1e", b"9" * 400),
            "٣".encode(),
        ):
            self.assertRaises(ValueError, values.read_seconds, text)


class NameTest(SynchronousTestCase):
    def test_twisted_agrees(self) -> None:
        """An argument has the name that AMP itself gives it in Python, keywords included."""
        for name in (
            *(b"path", b"a-b", b"a-b-c", b"class", b"from", b"print", b"exec"),
            *(b"async", b"await", b"with", b"as", b"None", b"nonlocal", b"x.1"),
        ):
            theirs: dict[str, Any] = {}
            amp.String().fromBox(name, {name: b""}, theirs, None)
            self.assertEqual([values.python_name(name)], list(theirs))


class Fetch(amp.Command):
    """Something with values of any size on both sides."""

    arguments = [(b"data", Blob()), (b"note", Blob(optional=True)), (b"from", Large(amp.Unicode()))]
    response = [
        (
            b"rows",
            Large(amp.AmpList([(b"name", amp.Unicode()), (b"content", Blob(optional=True))])),
        )
    ]


def through_amp(command: type[amp.Command], objects: dict[str, Any]) -> dict[str, Any]:
    """The objects after a way through the boxes of stock AMP, as a command's arguments."""
    [box] = amp.parseString(command.makeArguments(objects, None).serialize())
    arguments: dict[str, Any] = command.parseArguments(box, None)
    return arguments


class LargeTest(SynchronousTestCase):
    def lay(self, argument: amp.Argument, value: object) -> dict[bytes, bytes]:
        """The keys over which the value is laid under the name ``x``."""
        strings: dict[bytes, bytes] = {}
        argument.toBox(b"x", strings, {"x": value}, None)
        return strings

    def gather(self, argument: amp.Argument, strings: dict[bytes, bytes]) -> Any:
        """The value under the name ``x`` from these keys."""
        objects: dict[str, Any] = {}
        argument.fromBox(b"x", strings, objects, None)
        return objects["x"]

    def test_number_of_keys(self) -> None:
        """A value takes no more keys than it fills, and always its own."""
        for size, lengths in (
            (0, [0]),
            (1, [1]),
            (65535, [65535]),
            (65536, [65535, 1]),
            (131070, [65535, 65535]),
            (131071, [65535, 65535, 1]),
        ):
            value = bytes(n % 251 for n in range(size))
            strings = self.lay(Blob(), value)
            self.assertEqual([len(part) for part in strings.values()], lengths)
            self.assertEqual(list(strings), [b"x", b"x.1", b"x.2"][: len(lengths)])
            self.assertEqual(self.gather(Blob(), strings), value)
            self.assertEqual(strings, {}, "the keys were taken out, as AMP does it")

    def test_small_values_look_like_any_other(self) -> None:
        """Who declares a plain String can send to, and read from, who declares a Blob."""
        self.assertEqual(self.lay(Blob(), b"small"), self.lay(amp.String(), b"small"))
        self.assertEqual(self.gather(Blob(), {b"x": b"small"}), b"small")

    @given(st.binary(max_size=100), st.integers(1, 2000))
    def test_round_trip_of_bytes(self, unit: bytes, times: int) -> None:
        """Bytes of any size come back as they were, through boxes of stock AMP."""
        objects = {"data": unit * times, "note": None, "From": ""}
        self.assertEqual(through_amp(Fetch, objects.copy()), objects)

    def test_all_kinds_through_stock_amp(self) -> None:
        """Text, an optional value and a Python keyword for a name pass stock AMP."""
        for note in (None, b"", bytes(200_000)):
            objects = {"data": bytes(10**6), "note": note, "From": "€" * 100_000}
            self.assertEqual(through_amp(Fetch, objects.copy()), objects)

    def test_text_is_cut_anywhere_and_joined(self) -> None:
        """A character may lie across two keys."""
        text = "x" + "€" * 30_000
        strings = self.lay(Large(amp.Unicode()), text)
        self.assertRaises(UnicodeDecodeError, strings[b"x"].decode)
        self.assertEqual(self.gather(Large(amp.Unicode()), strings), text)

    def test_a_list_with_large_values_inside(self) -> None:
        """A Large list of boxes carries any number of them, and Blobs of any size in them."""
        rows: list[dict[str, Any]] = [{"name": f"n{n}", "content": None} for n in range(20_000)]
        rows.append({"name": "large", "content": bytes(300_000)})
        box = Fetch.makeResponse({"rows": rows}, None)
        [read] = amp.parseString(box.serialize())
        self.assertEqual(Fetch.parseResponse(read, None), {"rows": rows})

    def test_a_plain_list_stays_bounded(self) -> None:
        """A Blob does not free the plain AmpList around it: that is one value of the box."""
        plain = amp.AmpList([(b"content", Blob())])
        strings = self.lay(plain, [{"content": bytes(70_000)}])
        self.assertEqual(self.gather(plain, dict(strings)), [{"content": bytes(70_000)}])
        self.assertRaises(amp.TooLong, boxes.pack, strings.items())
        self.assertRaises(amp.TooLong, amp.AmpBox(strings).serialize)

    def test_parts(self) -> None:
        """Parts of any length are joined up to the first number that is not there."""
        for strings, value in (
            ({b"x": b"a", b"x.1": b"b", b"x.3": b"d"}, b"ab"),
            ({b"x": b"", b"x.1": b"a", b"x.2": b"", b"x.3": b"b"}, b"ab"),
        ):
            self.assertEqual(self.gather(Blob(), strings), value)
        self.assertIsNone(self.gather(Blob(optional=True), {b"x.1": b"rest"}))
        self.assertRaises(KeyError, self.gather, Blob(), {b"x.1": b"rest"})
        self.assertRaises(KeyError, Blob().toBox, b"x", {}, {}, None)
        self.assertRaises(ValueError, self.gather, Large(amp.Integer()), {b"x": b"seven"})
        self.assertRaises(AttributeError, self.lay, Large(amp.Unicode()), 7)

    def test_long_names(self) -> None:
        """A name that leaves no room for a number fails when the box is packed, not silently."""
        name = b"n" * 255
        strings: dict[bytes, bytes] = {}
        Blob().toBox(name, strings, {name.decode(): bytes(65536)}, None)
        self.assertRaises(amp.TooLong, boxes.pack, strings.items())
