from __future__ import annotations

import itertools

from twisted.trial.unittest import SynchronousTestCase

from dangad.scheduler.record import END_STATES, TRANSITIONS, Event, Job, JobState


class LifeTests(SynchronousTestCase):
    def job(self, state: JobState) -> Job:
        """A job in this state."""
        job = Job(1, None, None, b"Echo", b"\0\0")
        job.state = state
        return job

    def test_begins_queued(self) -> None:
        """A job's life begins in the queue."""
        self.assertIs(Job(1, None, None, b"Echo", b"\0\0").state, JobState.QUEUED)

    def test_every_event_in_every_state(self) -> None:
        """Each event leads where the table says, and what is not in the table is a mistake."""
        for state, event in itertools.product(JobState, Event):
            job = self.job(state)
            if (state, event) in TRANSITIONS:
                self.assertIs(job.live(event), TRANSITIONS[state, event])
                self.assertIs(job.state, TRANSITIONS[state, event])
            else:
                with self.assertRaises(KeyError):
                    job.live(event)
                self.assertIs(job.state, state)

    def test_ends_have_no_way_out(self) -> None:
        """What has ended stays as it is."""
        self.assertEqual([state for state, _ in TRANSITIONS if state in END_STATES], [])

    def test_every_other_state_can_end(self) -> None:
        """From each state that is no end there are ways to an end."""
        ways: dict[JobState, set[JobState]] = {state: set() for state in JobState}
        for (since, _), to in TRANSITIONS.items():
            ways[since].add(to)
        ways[JobState.PREFETCHED] |= ways[JobState.QUEUED]  # it is reclaimed, or begun, before
        for state in set(JobState) - set(END_STATES):
            self.assertTrue(ways[state] & set(END_STATES), state)

    def test_everything_is_used(self) -> None:
        """Each state can be reached, and each event can happen."""
        self.assertEqual({JobState.QUEUED, *TRANSITIONS.values()}, set(JobState))
        self.assertEqual({event for _, event in TRANSITIONS}, set(Event))

    def test_ends(self) -> None:
        """The ends are all states but the three of a job that is under way."""
        under_way = {JobState.QUEUED, JobState.PREFETCHED, JobState.RUNNING}
        self.assertEqual(set(END_STATES), set(JobState) - under_way)


class NameTests(SynchronousTestCase):
    def test_any_bytes(self) -> None:
        """Whatever bytes a client sends for a command, its name is short and fits in one line."""
        job = Job(7, None, None, b"\xff\n" * 200, b"\0\0")
        self.assertTrue(job.name.isprintable())
        self.assertLessEqual(len(job.name), 400)
        self.assertIn("queued", repr(job))
