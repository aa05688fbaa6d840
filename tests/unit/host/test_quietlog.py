"""What becomes of log lines that a peer causes in great number."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.logger import Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from dangad.host.quietlog import INTERVAL, MOST_PEERS, QuietLog, peer_of

if TYPE_CHECKING:
    from twisted.logger import ILogObserver, LogEvent


class QuietLogTest(SynchronousTestCase):
    def setUp(self) -> None:
        """Have a log that writes into a list."""
        self.clock = Clock()
        self.events: list[LogEvent] = []
        self.log = Logger(
            namespace="test", observer=cast("ILogObserver", lambda event: self.events.append(event))
        )
        self.quiet = QuietLog(self.clock, self.log)

    def lines(self) -> list[str]:
        """What was written since the last look."""
        events, self.events[:] = list(self.events), []
        return [formatEvent(event) for event in events]

    def test_the_first_is_written_and_the_rest_counted(self) -> None:
        """Of a flood one line is written at once, and one with the count when the time is over."""
        for number in range(7500):
            self.quiet.warn("garbage", "192.0.2.7", "request {number} is garbage", number=number)
        self.assertEqual(self.lines(), ["request 0 is garbage"])
        self.clock.advance(INTERVAL)
        self.assertEqual(
            self.lines(), ["request 7499 is garbage (and 7498 more of this kind in 10 s)"]
        )

    def test_a_flood_that_goes_on(self) -> None:
        """For as long as it lasts, one line is written in each interval; then all is forgotten."""
        for _ in range(30):
            for _ in range(100):
                self.quiet.warn("garbage", "192.0.2.7", "garbage")
            self.clock.advance(INTERVAL / 10)
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.lines()), 4)
        self.clock.advance(INTERVAL)
        self.quiet.warn("garbage", "192.0.2.7", "garbage")
        self.assertEqual(self.lines(), ["garbage"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_kinds_and_peers_are_told_apart(self) -> None:
        """One peer's flood hides neither another's line nor its own of another kind."""
        for kind, peer in (("a", "1"), ("a", "2"), ("b", "1"), ("a", "1")):
            self.quiet.warn(kind, peer, "{kind}{peer}", kind=kind, peer=peer)
        self.assertEqual(self.lines(), ["a1", "a2", "b1"])
        self.clock.advance(INTERVAL)
        self.assertEqual(self.lines(), ["a1"])

    def test_few_lines(self) -> None:
        """Lines that are far enough apart are all written, and leave nothing to the clock."""
        for _ in range(3):
            self.quiet.info("garbage", "192.0.2.7", "garbage")
            self.clock.advance(INTERVAL)
        self.assertEqual(self.lines(), ["garbage"] * 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_counted_without_a_text(self) -> None:
        """Once a line is held back, others of its kind and peer need not be made."""
        counted = []
        for _ in range(5):
            counted.append(self.quiet.count("refused", "1"))
            if not counted[-1]:
                self.quiet.warn("refused", "1", "refused")
        self.assertEqual(counted, [False, False, True, True, True])
        self.assertFalse(self.quiet.count("refused", "2"))
        self.clock.advance(INTERVAL)
        self.assertEqual(self.lines(), ["refused", "refused (and 3 more of this kind in 10 s)"])
        self.assertFalse(self.quiet.count("refused", "1"))

    def test_a_burst(self) -> None:
        """A log may write some lines in full before it counts."""
        quiet = QuietLog(self.clock, self.log, burst=3)
        for number in range(5):
            quiet.info("end", "client", "job {number} failed", number=number)
        self.assertEqual(self.lines(), ["job 0 failed", "job 1 failed", "job 2 failed"])
        self.clock.advance(INTERVAL)
        self.assertEqual(self.lines(), ["job 4 failed (and 1 more of this kind in 10 s)"])

    def test_very_many_peers(self) -> None:
        """Of more peers than are told apart, those beyond count as one."""
        for number in range(100 * MOST_PEERS):
            self.quiet.warn("garbage", number, "garbage from {number}", number=number)
        self.assertEqual(len(self.lines()), MOST_PEERS + 1)
        self.clock.advance(INTERVAL)
        [rest] = self.lines()
        self.assertIn(f"and {99 * MOST_PEERS - 2} more", rest)

    def test_flush(self) -> None:
        """A server that stops leaves no count untold, and no alarm."""
        for _ in range(3):
            self.quiet.warn("garbage", "192.0.2.7", "garbage")
        self.quiet.flush()
        self.assertEqual(self.lines(), ["garbage", "garbage (and 1 more of this kind in 10 s)"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_peers(self) -> None:
        """A host is one peer whatever its port, and so are all who come over a UNIX socket."""
        self.assertEqual(peer_of(IPv4Address("TCP", "192.0.2.7", 1)), "192.0.2.7")
        self.assertEqual(peer_of(UNIXAddress(None)), peer_of(None))
