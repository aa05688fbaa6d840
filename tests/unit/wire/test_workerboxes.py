"""The heads of the boxes between parent and worker: what one end writes, the other reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dangad.wire import boxes, workerboxes
from dangad.wire.boxes import Garbage

NUMBERS = st.integers(0, 10**18 - 1)
SECONDS = st.none() | st.floats(0, allow_nan=False, allow_infinity=False)
BODIES = st.lists(
    st.tuples(st.binary(min_size=1, max_size=255), st.binary(max_size=300)), max_size=5
).map(boxes.pack)
NOT_HEADS = st.lists(
    st.tuples(
        st.sampled_from([b"_run", b"_stop", b"_done", b"_report", b"_"])
        | st.binary(min_size=1, max_size=9).filter(lambda key: not key.startswith(b"data")),
        st.sampled_from(
            [b"", b"1", b"1 1", b"1 1 nan", b"-1 1", b"1  1", b"1 1 1", b"1 why", b"boom"]
        )
        | st.binary(max_size=9),
    ),
    min_size=1,
    max_size=3,
).map(boxes.pack)


def read(box: bytes) -> boxes.Box:
    """The box as the other end's reader has it."""
    reader = boxes.BoxReader(len(box), ())
    reader.feed(box)
    whole = reader.next()
    assert whole is not None
    return whole


class RoundTripTests(SynchronousTestCase):
    @given(NUMBERS, NUMBERS, SECONDS, BODIES)
    def test_job(self, job_id: int, attempt: int, seconds: float | None, body: bytes) -> None:
        """A job's head comes through as it was, and what follows it byte for byte."""
        box = workerboxes.job_head(job_id, attempt, seconds) + body
        self.assertEqual(read(box).raw, box)
        *head, left, start = workerboxes.read_job(box)
        self.assertEqual((head, box[start:]), ([job_id, attempt], body))
        if seconds is None or left is None:
            self.assertEqual(left, seconds)
        else:
            self.assertAlmostEqual(left, seconds, places=6)

    @given(NUMBERS, st.booleans(), NUMBERS, NUMBERS, NUMBERS, st.integers(0, 3), BODIES)
    def test_answer(
        self, job_id: int, failed: bool, cpu: int, peak: int, total: int, marks: int, body: bytes
    ) -> None:
        """So does an answer's."""
        usage = b"%d %d %d" % (cpu, peak, total)
        box = workerboxes.answer_head(job_id, failed, usage, marks) + body
        key, value, start = workerboxes.split(box)
        self.assertEqual(key, workerboxes.FAILED if failed else workerboxes.DONE)
        self.assertEqual(
            workerboxes.read_answer(value), (b"%d" % job_id, b"%b %d" % (usage, marks))
        )
        self.assertEqual(box[start:], body)

    @given(NUMBERS, BODIES)
    def test_news(self, job_id: int, body: bytes) -> None:
        """So do those of progress and of parts."""
        for head, kind in (
            (workerboxes.report_head, workerboxes.REPORT),
            (workerboxes.part_head, workerboxes.PART),
        ):
            box = head(job_id) + body
            key, value, start = workerboxes.split(box)
            self.assertEqual((key, value, box[start:]), (kind, b"%d" % job_id, body))

    @given(NUMBERS, st.sampled_from([b"time", b"cancelled"]))
    def test_stop(self, job_id: int, why: bytes) -> None:
        """A box that stops a job says which, and why."""
        self.assertEqual(workerboxes.read_stop(workerboxes.stop(job_id, why)), (job_id, why))

    @given(NOT_HEADS)
    def test_something_else(self, box: bytes) -> None:
        """Any other box is read as what it is, or as garbage, and nothing else is raised."""
        for read_box in (workerboxes.read_job, workerboxes.read_stop):
            try:
                read_box(box)
            except Garbage:
                continue
            self.assertIn(workerboxes.split(box)[0], (workerboxes.RUN, workerboxes.STOP))
        _, value, start = workerboxes.split(box)
        for check in (workerboxes.check_report, workerboxes.check_part):
            with self.assertRaises(Garbage):
                check(box, start)
        with self.assertRaises(Garbage):
            workerboxes.read_answer(value)
