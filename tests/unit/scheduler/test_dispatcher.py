"""Every event of the dispatcher, and what follows from it: most of it told in short stories."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel, capturedLogs, formatEvent

from dangad.errors import NoWorkers, QueueFull, ShuttingDown
from dangad.scheduler.chores import PART
from dangad.scheduler.dispatcher import Dispatcher
from dangad.scheduler.endings import GRACE
from dangad.scheduler.record import END_STATES, Death, Job, JobState
from dangad.scheduler.retries import FIRST_RETRY, LONGEST_RETRY
from dangad.scheduler.state import LOGGED_ENDS
from dangad.wire import boxes
from tests.fakes import FakeClient, FakeWorker, catalogue, make_job
from tests.unit.scheduler.dispatching import ECHO, MAX_QUEUED, DispatcherTestCase

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


STARTS = {
    "a job starts at once if a worker is idle": """
        ready w, ann: a, w runs a, running a, a attempt 1, a waited 0, busy 1, idle 0, demanded
    """,
    "without an idle worker it waits, workers are asked for, and the next gets it": """
        ann: a, queued a, waiting 1, demanded 1, wait 2.5, ready w, w runs a, a waited 2.5
    """,
    "as many run at once as there are workers": "ready w1-3, ann: a1-5, running a1-3, queued a4-5",
    "the worker that was idle for the shortest time gets the job": """
        ready x y z, ann: a b, z runs a, y runs b, x runs nothing
        z answers, y answers, ann: c, y runs c
    """,
    "a worker has its next job before the answer goes out: it never pauses": """
        ready w, ann: a, bob: b, ann reacts: w runs b, w answers
    """,
    "waiting jobs start by priority, and in turns between clients": """
        ready w, ann: a low/low b c, bob: d high/high, 6x w answers, w ran high b d c low
    """,
}
ANSWERS = {
    "an answer reaches the client of the job, and nobody else": """
        ready w, ann: a, w answers, ann answered a, bob answered, done a, ended done=1, idle 1
    """,
    "an error is an answer like any other, and counts as failed": """
        ready w, ann: a, w fails, ann answered a, ended failed=1
    """,
    "a client may submit its next job while it is told of an answer": """
        ready w, ann: a, bob: b, ann reacts: ann: c, w answers, w runs b, w answers, w runs c
    """,
    "it may go to the worker whose answer is being told": """
        ready w, ann: a, ann reacts: ann: b, w answers, w runs b, w answers
    """,
}
FULL = "QUEUE_FULL: 20 jobs wait already, which is --max-queued"
REFUSALS = {
    "a job that finds as many waiting as may is refused; those that wait stay": f"""
        bob: b1-20, ann: a, a told "{FULL}", refused 1, waiting 20, ready w, ann: b, refused 1
    """,
    "jobs of clients that do not read keep no idle worker from the others": f"""
        ready w, hold bob, bob: b1-20, ann: a, w runs a, ann: b, b told "{FULL}"
    """,
    "a client that does not read is refused when the queue is full, idle worker or not": f"""
        ready w, hold ann, ann: a1-21, a21 told "{FULL}"
    """,
    "jobs that leave an idle worker to others wait, and no more of them may than of any": """
        server max_queued=2, ready w x, ann: a, x dies, bob: b, w answers, ann: c1-3
        idle 1, waiting 2, c3 told QUEUE_FULL
    """,
    "with room for none to wait, a job runs if a worker is idle": """
        server max_queued=0, ready w, ann: a b, w runs a, b told QUEUE_FULL
    """,
    "a command that no worker performs is refused with AMP's own error": """
        ready w, ann: a/Nope, a told "UNHANDLED: no worker performs Nope", refused 1, idle 1
    """,
    "what the workers perform stays known while there is none": """
        ready w, w dies, ann: a/Nope b, a told "UNHANDLED: no worker performs Nope", waiting 1
    """,
    "before any worker has told what it performs a job waits, and is refused if it must": """
        ann: a b/Nope, waiting 2, ready w, w runs a, ended failed=1
        b told "UNHANDLED: no worker performs Nope"
    """,
    "a client that cancels one job when told of another's end is told of each once": """
        ann: a1-3/Nope, ann reacts: cancel a1-3, ready w, ann failures 3
    """,
    "while workers perform different commands, each job goes to one that performs its own": """
        types Echo Old, ready w, ann: a b/Old, types Echo New, ready x, x runs nothing
        ann: c/New d/New, x runs c, w answers, w runs b, w answers, w runs nothing
        x answers, x runs d
    """,
    "with the last worker that performs a command go the jobs that wait for it": """
        types Echo Old, ready w, ann: a b/Old, types Echo New, ready x, ann failures 0, w dies
        ann: c/Old, b told "UNHANDLED: no worker performs Old", c told "UNHANDLED", refused 1
    """,
    "a limit holds for a command that some workers perform, too": """
        ready w, types Echo Few:max_running=1, ready x y, ann: a/Few b/Few, y runs a
        x runs nothing, y answers, running b
    """,
    "when no worker can be had, what waits and what comes is refused, with the reason": """
        ann: a, no_workers "worker 4711 exited (status 1)", ann: b, waiting 0, refused 1
        a told "NO_WORKERS: no worker can be started: worker 4711 exited (status 1)"
        b told "NO_WORKERS: no worker can be started: worker 4711 exited (status 1)"
    """,
    "as soon as a worker is there, jobs are accepted again": """
        no_workers "no memory", ready w, ann: a, w runs a
    """,
    "a client may try again while it is told of a refusal": """
        ann: a, ann reacts: ann: b, no_workers "no memory", failed a, refused 1, waiting 0
    """,
    "a job that is cancelled while another is refused for want of workers ends once": """
        ann: a1-3, ann reacts: cancel a1-3, no_workers "no memory", ended failed=3
    """,
    "a server that drains takes no new job, whatever it has to do it with": """
        ready w, drain 10, ann: a
        a told "SHUTTING_DOWN: the server is stopping and takes no new jobs", refused 1
    """,
}
DEATHS = {
    "a worker that dies in the middle of a job costs that job, and says how and when": """
        ready w x, bob: b, ann: a, wait 0.84, w dies "was killed by SIGSEGV", x runs b, lost a
        a told "WORKER_LOST: worker {w} was killed by SIGSEGV 0.8 s into Echo", ended lost=1
    """,
    "a worker that dies idle costs no job, and gets none any more": """
        ready w, w dies, ann: a, waiting 1, idle 0
    """,
    "a client may submit the job again while it is told of its loss": """
        ready w, ann: a, ann reacts: ann: b, w dies, demanded 1, ready x, x runs b
    """,
}
CANCELS = {
    "cancelling a job that has ended does nothing, even to the next job of its worker": """
        ready w, ann: a, bob: b, w answers, cancel a, w undisturbed, w runs b
    """,
    "a client may cancel its other jobs while it is told of an answer": """
        ready w, ann: a b c, ann reacts: cancel b c, w answers, w runs b, w interrupted cancelled
        c told "never ran"
    """,
    "cancelling a job that was refused does nothing": "drain 1, ann: a, cancel a, ann failures 1",
    "an answer that crosses with a cancel is dropped: cancelled is told, once, at the end": """
        ready w, ann: a, bob: b, cancel a, w answers, w runs nothing, ann failures 0, busy 1
        cancel a, w dies, a told CANCELLED, ready x, x runs b
    """,
    "a worker whose writing is held back goes on when it is stopped, so that it can end": """
        ready w, ann: a/parts, hold ann, paused w, cancel a, paused, hold ann, paused
        w answers, w dies
    """,
}
DISCONNECTS = {
    "the waiting jobs of a client that disconnects are gone, and only its": """
        ready w, bob: a, ann: b, bob: c, ann: d/low, ann leaves, w answers, w runs c
        ended done=1 cancelled=2
    """,
    "with on_disconnect=finish the running job goes on; what only waits is gone": """
        types Echo:on_disconnect=finish, ready w, ann: a b, ann leaves, w undisturbed, w tells
        w answers, ended done=1 cancelled=1, w runs nothing
    """,
    "a client that never submitted anything may go, too, and twice": "ann leaves, ann leaves",
    "a client that goes while on hold leaves nothing behind": """
        ready w, hold ann, ann: a, ann leaves, waiting 0, idle 1
    """,
    "a client that goes while another is told of a loss is told nothing any more": """
        bob: b, ann: a, bob reacts: ann leaves, no_workers "no memory", ended failed=2
    """,
}
HOLDS = {
    "while a client is on hold none of its jobs starts, idle workers or not": """
        ready w x, hold ann, ann: a, bob: b, x runs b, w runs nothing
    """,
    "when a client is released its jobs start at once, as far as workers are idle": """
        hold ann, ready w x, ann: a b c, release ann, x runs a, w runs b, waiting 1, demanded 1
    """,
    "being put on hold does not touch a job that runs, nor its answer": """
        ready w, ann: a, hold ann, w answers, ann answered a
    """,
    "a client that is put on hold while it takes an answer gets no further start": """
        ready w, ann: a b c, ann reacts: hold ann, 2x w answers, w runs nothing, waiting 1, idle 1
    """,
}
DRAINS = {
    "a death while draining costs its job; those that wait go to the replacement": """
        ready w, ann: a b, drain 10, w dies, ready x, x runs b, x answers
    """,
    "a second drain with a later limit takes the place of the first": """
        ready w, ann: a, drain 1, drain 100, wait 50, w undisturbed, w answers
    """,
}
DEADLINES = {
    "a deadline of 0 is one that nothing can meet, idle worker or not": """
        ready w, ann: a/0s, w runs nothing, refused 1
        a told "DEADLINE_PASSED: Echo came with a deadline of 0 s"
    """,
    "a deadline that was met is forgotten": "ready w, ann: a/5s, wait 4.9, w answers",
    "a job does not start after its deadline even if the reactor is late with the alarm": """
        ready w, bob: a, ann: b/5s, bob: c d, lag 5, w answers, b told DEADLINE_PASSED, w runs c
        turns 1, ann failures 1
    """,
    "a client may submit again while it is told of a deadline": """
        ann: a/1s, ann reacts: ann: b/1s, wait 1, timed_out a, wait 1, timed_out b, ann failures 2
    """,
    "deadlines of a client that has gone are gone with it": """
        ready w, ann: a/5s b/5s, ann leaves, w dies
    """,
}
TIME_LIMITS = {
    "what an interrupted job answers is not delivered: its worker goes, and then it ends": """
        ready w, ann: a, wait 10, w answers, w killed "was stopped: Echo ran for its time limit"
        ann failures 0, idle 0, w dies, a told TIMED_OUT
    """,
    "a worker that takes its time to die after a kill is nobody's for that time": """
        ready w, ann: a b, wait 10, wait 1, wait 100, busy 1, ann failures 0, w dies
        ready x, x runs b
    """,
    "of a time limit and a deadline, the one that comes first counts, and only it": """
        ready w, ann: a/7s, wait 7, w interrupted time, 2x wait 1, w dies, a told DEADLINE_PASSED
        ready w, ann: b/12s, wait 10, w interrupted time, 2x wait 1, w dies, b told TIMED_OUT
        ready w, ann: c/10.5s, wait 10, w interrupted time, 2x wait 1, w dies, c told TIMED_OUT
    """,
    "a time limit and a deadline at the same moment stop the job once": """
        ready w, ann: a/10s, wait 10, w interrupted time, w dies, ann failures 1
    """,
    "a limit that was met is forgotten, and does not hit the worker's next job": """
        ready w, ann: a, wait 9, ann: b/Free, w answers, wait 100, w runs b, w undisturbed
    """,
    "the time limit begins anew with each attempt": """
        types Echo:time_limit=10.0:retries=1, ready w, ann: a, wait 9, w dies, ready x, rest
        x runs a, wait 9, x undisturbed, wait 1, x interrupted time, x dies
    """,
    "a job that waits for its client to read has its time limit all the same": """
        ready w, ann: a/parts, hold ann, wait 10, paused, w interrupted time, w answers, w dies
        a told TIMED_OUT
    """,
}
RETRIES = {
    "a job runs again with the same request, as often as its type allows": """
        ann: a/100B, ready w, w runs a, w dies, queued a, waiting 1, busy 0
        ready x, rest, x runs a, a attempt 2, x dies, ready y, rest, a attempt 3, y answers
        ended done=1, ann answered a, w read 100, x read 100, y read 100, a keeps 0
    """,
    "the request of a job that might have run again is let go when it is answered": """
        ready w, ann: a/100B, a keeps 100, w answers, a keeps 0
    """,
    "a job of a type without retries runs once, whatever becomes of it": """
        ready w, ann: a/Once/100B, a keeps 0, w dies, a told WORKER_LOST
    """,
    "an error that the job answers is its answer": "ready w, ann: a, w fails, ended failed=1",
    "a job that is tried again waits behind its client's other jobs": """
        ready w, ann: a b c, w dies, rest, ready x, 3x x answers, x ran b c a
    """,
    "nobody's job is not tried again, resting or running": """
        types Echo:retries=5:on_disconnect=finish, ready w x y, ann: a b c, w dies, x dies
        waiting 2, ann leaves, waiting 0, y dies, ended cancelled=2 lost=1
    """,
    "a client that goes takes only its own resting jobs with it": """
        ready w x y, ann: a, bob: b, ann: c, w dies, x dies, y dies, ann leaves, ready z, rest
        z runs b, z answers
    """,
    "a job of a client on hold rests, and then waits for the release": """
        ready w, ann: a, hold ann, w dies, ready x, rest, x runs nothing, release ann, x runs a
        x answers
    """,
    "jobs that rest are among those that wait, for every bound": """
        server max_queued=1, ready w, ann: a/100B, w dies, bob: b, b told QUEUE_FULL
        server max_queued=2 max_queued_bytes=150, bob: c/51B d/50B, c told "have 100 bytes"
        queued d, cancel a
    """,
    "a job whose command comes into quarantine while it rests is lost, and so is told": """
        server quarantine_after=1, ready w, ann: a, w dies, ready x, rest, a told WORKER_LOST
    """,
    "a job whose request was dropped is not tried again, whatever new code would allow": """
        types Echo, ready w, ann: a, types Echo:retries=2, ready x, w dies, a told WORKER_LOST
    """,
    "new code that allows fewer attempts is obeyed by the jobs that run already": """
        ready w, ann: a, types Echo, ready x, w dies, a told WORKER_LOST
    """,
    "a job that has sent a part of its result is not tried again: it would come twice": """
        ready w, ann: a/parts, w sends, w dies, a told WORKER_LOST
    """,
    "a job that has told how far it is may be tried again": """
        ready w, ann: a, w tells, w dies, queued a, cancel a
    """,
}
BROKEN_END = 'a told "JOB_FAILED: the server failed while it dealt with job {a} Echo", logged 1'
GOES_ON = "ready z, ann: next, z runs next, z answers, ended done=1 failed=1"
BROKEN = {
    "a job that could not be queued ends": f"""
        break state.queue.push, ann: a, {BROKEN_END}, {GOES_ON}
    """,
    "a job that could not be started ends, when the worker that may have it is gone": f"""
        ready w, break state.queue.started, ann: a, ann failures 0, w killed, w dies
        {BROKEN_END}, {GOES_ON}
    """,
    "so does a job that could not be started when its turn came": f"""
        ann: a, break admission.obstacle, ready w, dismiss w, {BROKEN_END}, {GOES_ON}
    """,
    "an answer is told, though its worker could be given nothing after it": """
        ready w, ann: a, break state.queue.ended, w answers, ann answered a, logged 1, w killed
    """,
    "a job whose loss could not be dealt with ends none the less": f"""
        ready w, ann: a, break state.quarantine.worker_lost, w dies, {BROKEN_END}, {GOES_ON}
    """,
    "a worker that could not be killed is given nothing any more, and is killed again": """
        ready w, ann: a/parts, bob: b, break w.pause, break w.kill, hold ann, w answers
        w runs nothing, queued b, released w, logged 2, wait 5, w killed
    """,
}
FOUR_LOST = "bob: b1-4/Bad, lose 4"
QUARANTINES = {
    "the command that kills the fifth worker in a row is refused for a while; others run": f"""
        {FOUR_LOST}, ready w, bob: c/Bad, w dies, refused 0, ann: a/Bad, ready x, ann: b, x runs b
        a told "NO_WORKERS: Bad has killed too many workers in a row, and is refused for
        another 30 s"
    """,
    "when it is over the command is tried again, and one loss sends it back": """
        bob: b1-5/Bad, lose 5, wait 29.5, ann: a/Bad, a told "for another 1 s"
        wait 0.5, ann: b/Bad, lose 1, ann: d/Bad, d told "for another 30 s"
    """,
    "a worker that survives the command clears its name": f"""
        {FOUR_LOST}, ready w, ann: a/Bad, w fails, dismiss, {FOUR_LOST}, refused 0
    """,
    "a job that was running when its command came into quarantine, and succeeds, ends it": f"""
        ready w, ann: a/Bad, {FOUR_LOST}, bob: c/Bad, lose 1, w answers, ann: b/Bad, w runs b
    """,
    "with a threshold of 0 nothing is ever refused for its losses": f"""
        server quarantine_after=0, {FOUR_LOST}, {FOUR_LOST}, {FOUR_LOST}, refused 0
    """,
    "workers that were killed to stop a job are no losses": """
        ready w1-9, ann: a1-9/Bad, cancel a1-9, w1 dies, w2 dies, w3 dies, w4 dies, w5 dies
        w6 dies, ann: a/Bad, ready x, x runs a
    """,
    "waiting jobs of a quarantined command are ended, and cost no workers; others run": """
        ann: a1-8/Bad good, lose 5
        ready w, w runs good, lost a1-5, failed a6-8, a8 told NO_WORKERS, w answers
    """,
}
LIMITS = {
    "no more jobs of a type run than may; the next starts when one has ended": """
        ready w x y z, ann: a1-4/Few, running a1-2, queued a3-4, idle 2, z answers, running a3
        performing Few 2
    """,
    "while a type's jobs are kept back all others go on, of the same client, too": """
        ready w x y, ann: a1-5/Few b, running b, bob: c, queued c, w answers, performing Few 2
        waiting 3, cancel a3-5
    """,
    "a death, a cancel and a time limit make room for the next of the type": """
        types Few:max_running=1:time_limit=1.0, ann: a1-4/Few, ready w x, w runs a1, w dies
        x runs a2, ready y, cancel a2, y runs nothing, wait 1, x dies, y runs a3, ready z, wait 1
        z runs nothing, y interrupted time, wait 1, y dies, z runs a4, z answers
    """,
    "the last job of a worker makes room that others use at once": """
        types Few:max_running=1, ready w x y, ann: a/Few b/Few c/Few, call_back y, y answers
        x runs b, x spoils, released y x, w runs c, w answers
    """,
    "a job that rests before its next attempt does not count as running": """
        types Few:max_running=1:retries=1, ready w x, ann: a/Few b/Few, w runs nothing, x dies
        w runs b, rest, ready y, y runs nothing, w answers, running a, performing Few 1
    """,
    "a client with jobs of many types gets no more turns than one with jobs of one": """
        types Echo Few:max_running=2 Rare:max_running=2, ready w, bob: a
        ann: f1-3/Few r1-3/Rare e1-3, bob: b1-4, 8x w answers
        w served ann bob ann bob ann bob ann bob
    """,
    "a limit that becomes known when its jobs wait already holds for them": """
        ann: a1-3/Few b, ready w x y z, running a1-2, queued a3, running b, z runs nothing
    """,
    "a limit that new code brings counts the jobs that run already": """
        types Few, ready w x y, ann: a1-5/Few, types Echo Few:max_running=2, ready z
        performing Few 3, y answers, performing Few 2, waiting 2, x answers
        performing Few 2, waiting 1, cancel a4-5
    """,
    "a higher limit starts more at once, a lower one lets the surplus end, none frees all": """
        ready v1-5, ann: a1-6/Few, types Few:max_running=4, ready w, performing Few 4
        types Few:max_running=1, ready x, v5 answers, v4 answers, v3 answers, performing Few 1
        waiting 2, x dies, types Few, ready y, performing Few 3, waiting 0
    """,
    "the death of the last worker of the old code makes room for one job, not for two": """
        ready w, ann: a/Few, types Few:max_running=2, ready x y z, ann: b1-3/Few, performing Few 2
        w dies, performing Few 2, waiting 1, cancel b1-3
    """,
    "a type that only some workers performed, and then all do, is not kept back any more": """
        types Echo, ready w, types Echo New:max_running=1, ready x, ann: a, x runs a, w dies
        x answers, ann: b/New, x runs b, x answers
    """,
    "nor is one that needed unused workers, and does not in new code": """
        types Echo Few:isolate=yes:max_running=1, ready w, ann: a, w runs a, w dies
        types Echo Few:max_running=1, ready x, ann: b/Few, x runs b, x answers
    """,
    "jobs that are kept back go with their client": """
        types Few:max_running=1, ready w, bob: b/Few, ann: a1-3/Few, ann leaves, waiting 0
        w answers
    """,
}
ISOLATED = {
    "an isolated job waits for a worker that has had no job; others go on meanwhile": """
        ready w, ann: a, w answers, bob: b/Alone, ann: c, w runs c, w answers, ready x, x runs b
    """,
    "after it its worker gets no other job, whoever waits": """
        ready w, bob: b/Alone, ann: a, w runs b, w answers, bob answered b, released w, queued a
        w dies, ready x, x runs a, x answers
    """,
    "other jobs leave an unused worker to it, as long as another is idle": """
        ready w, ann: a, w answers, ready x, ann: c, w runs c, bob: b/Alone, x runs b, w answers
        x answers
    """,
    "a worker that is there for no other job is asked for": """
        ready w, ann: a, w answers, bob: b/Alone, demanded 1, cancel b
    """,
}
STOPPABLE = {
    "after a stoppable job that ends when it is stopped its worker goes on with others": """
        ready w, ann: a/Soft, bob: b, cancel a, w interrupted cancelled, w answers, w runs b
        w undisturbed, a told CANCELLED, w answers
    """,
    "so it is if its time is up, or its client has gone": """
        ready w, ann: a/Soft/5s, wait 5, w interrupted time, w answers, a told DEADLINE_PASSED
        ann: b/Soft, ann leaves, w answers, bob: c, w runs c, w answers
    """,
    "one that does not end is killed like any other": f"""
        ready w, ann: a/Soft, cancel a, wait {GRACE}, w killed "was killed: Soft was cancelled"
        ann failures 0, w dies, a told CANCELLED
    """,
    "whether its worker goes on is settled when it is stopped, whatever new code says then": """
        ready w, ann: a/Soft b/Echo, cancel a, types Echo Soft, ready x, x runs b, w answers, idle 1
        a told CANCELLED, x dies, w dies, ready y, ann: c/Soft, cancel c
        types Echo Soft:stoppable=yes, ready z, y answers, y killed "was stopped: Soft", y dies
    """,
}
BYTES = {
    "a job that would have the waiting requests exceed their bytes is refused at once": """
        ann: a/600B, bob: b/401B c/400B, cancel a, bob: d/600B, bob failures 1, b told "QUEUE_FULL:
        the jobs that wait have 600 bytes, and with this one would have more than
        --max-queued-bytes 1000"
    """,
    "the bytes of jobs that start, are cancelled, too late or lose their client are free": """
        ann: a1-3/300B, ready w, cancel a2, bob: b/1s/700B, ann leaves, wait 1, queued_bytes 0
        w dies
    """,
    "a job that an idle worker takes does not wait, whatever its size": """
        ready w, ann: a/5000B, w runs a
    """,
}
REPORTS = {
    "what a job reports reaches its client, in order, and nobody else": """
        ready w x, bob: b, ann: a, w tells, w sends, x tells, ann news a a, bob news b
    """,
    "nothing is told of a job that is being stopped but its end": """
        ready w, ann: a, cancel a, w tells, ann news, w dies
    """,
    "a client that has too much to read is put on hold while it is told, and the job waits": """
        ready w, ann: a/parts, ann reacts: hold ann, w sends, paused w, release ann, paused
        w answers
    """,
    "only the workers of the held client's jobs that send parts of their results wait": """
        ready w x y, bob: b/parts, ann: a c/parts, hold ann, paused w, release bob, paused w
    """,
    "a job that waits for a client to read goes on, to be stopped or to finish, without it": """
        types Stop Finish:on_disconnect=finish, ready w, ann: a/Finish/parts, ready x
        ann: b/Stop/parts, hold ann, ann leaves, paused, w undisturbed, x interrupted cancelled
        w answers, x dies
    """,
}


class StoryTests(DispatcherTestCase):
    """What is told in stories."""

    def test_stories(self) -> None:
        """They are true."""
        self.tell(STARTS, ANSWERS, REFUSALS, DEATHS, CANCELS, DISCONNECTS, HOLDS, DRAINS, DEADLINES)
        self.tell(BROKEN, REPORTS)
        self.tell(TIME_LIMITS, prelude="types Free Echo:time_limit=10.0")
        self.tell(RETRIES, prelude="types Once Echo:retries=2")
        self.tell(QUARANTINES, prelude="types Echo Bad")
        self.tell(LIMITS, prelude="types Echo Few:max_running=2")
        self.tell(ISOLATED, prelude="types Echo Alone:isolate=yes")
        self.tell(STOPPABLE, prelude="types Echo Soft:stoppable=yes")
        self.tell(BYTES, prelude="server max_queued_bytes=1000")


class DispatcherTests(DispatcherTestCase):
    def test_no_client(self) -> None:
        """A job that nobody will be told about is a mistake."""
        with self.assertRaises(AssertionError):
            self.dispatcher.submit(make_job(None))

    def test_works_without_a_supervisor(self) -> None:
        """A dispatcher that has no supervisor lets jobs wait for whoever comes."""
        dispatcher = Dispatcher(self.clock, 5)
        dispatcher.submit(make_job(self.ann))
        self.assertEqual(dispatcher.waiting, 1)

    def test_bodies(self) -> None:
        """Answers and news reach the client byte for byte, as parts or as news."""
        self.play("ready w, ann: a, w tells, w sends")
        self.answer(self.named["w"], body=b"\0\1kvalue\0\0")
        job = self.jobs["a"]
        self.assertEqual(self.ann.answers, [(job, False, b"\0\1kvalue\0\0")])
        self.assertEqual(self.ann.reports, [(job, b"news", False), (job, b"part", True)])
        self.assertEqual((job.state, job.worker, job.client), (JobState.DONE, None, None))

    def test_never_started_worker(self) -> None:
        """The death of a worker that never was ready concerns no job."""
        self.dispatcher.worker_gone(FakeWorker(), Death("exited (status 1)"))

    def test_seconds_told_to_the_job(self) -> None:
        """A job is told the seconds that it has: what is left of its deadline, or its limit."""
        for deadline, left in (("", 4), ("/5s", 2), ("/50s", 4)):
            self.play(f"types Echo:time_limit=4.0, ann: a{deadline}, wait 3, ready w")
            self.assertEqual(self.jobs["a"].seconds, left)
            self.play("w answers, dismiss")

    def test_dismissed(self) -> None:
        """The worker that was idle longest is let go first, gets no job, and is no loss."""
        self.play("ready w x, wait 10, ready y")
        dismissed = [self.dispatcher.dismiss_idle(1000) for _ in range(3)]
        self.assertEqual(dismissed, [self.named["w"], self.named["x"], None])
        self.play("idle 1, dismiss, ann: a, queued a, y dies, waiting 1")

    def test_pardon(self) -> None:
        """A quarantine that is lifted is over at once; what is in none cannot be pardoned."""
        self.play("server quarantine_after=1")
        self.assertFalse(self.dispatcher.pardon(b"Echo"))
        self.play("ann: a, ready w, w dies, wait 10")
        self.assertEqual(self.dispatcher.kept_away(), {b"Echo": 20.0})
        self.assertTrue(self.dispatcher.pardon(b"Echo"))
        self.assertEqual(self.dispatcher.kept_away(), {})
        self.play("ready x, ann: b, x runs b")

    def test_drained(self) -> None:
        """A drain is over when the last job's client has been told, whatever the job's end."""
        for story, end in (
            ("ready w", ""),
            ("ready w, ann: a", "w answers, ann answered a"),
            ("ann: a1-3", "wait 10, ann failures 3"),
            ("ann: a1-3", 'no_workers "no memory", ann failures 3'),
            ("ann: a1-3", "ann leaves, ended cancelled=3"),
            ("ready w, ann: a", "drain 1, wait 1, w killed, w dies"),
        ):
            with self.subTest(story=story, end=end):
                self.begin_anew()
                self.play(story)
                seen = self.dispatcher.drain(10).addCallback(lambda _: len(self.ann.told))
                if end:
                    self.assertNoResult(seen)
                self.play(end)
                told = len(self.jobs) if not self.ann.gone else 0
                self.assertEqual(self.successResultOf(seen), told)
                self.successResultOf(self.dispatcher.drain(1))
                self.assertEqual(self.clock.getDelayedCalls(), [])


class LogTests(DispatcherTestCase):
    def test_log_of_jobs(self) -> None:
        """If all jobs are logged, each end has the job's id, its wait and its runtime."""
        self.serve(log_jobs="all")
        self.play("ann: a, wait 2, ready w, wait 3")
        with capturedLogs() as events:
            self.play("w answers")
        text = f"job {self.jobs['a'].id} Echo done worker={self.named['w'].pid} wait=2.000000"
        text += " runtime=3.000000 cpu=0.250000 peak_memory=2048000"
        self.assertEqual([formatEvent(event) for event in events], [text])
        self.submit(self.ann)
        waits = self.submit(self.ann)
        with capturedLogs() as events:
            self.dispatcher.cancel(waits)
        self.assertRegex(formatEvent(events[0]), r"cancelled wait=0\.0+ runtime=0\.0+ CANCELLED: ")

    def test_log_of_what_went_wrong(self) -> None:
        """So the line of a job that ends without a result has its code and its text."""
        self.serve(log_jobs="all")
        error = boxes.error_pairs(b"NO_SUCH_WORD", "no\x1bsuch word " + 1000 * "x")
        with capturedLogs() as events:
            self.play("ready w, ann: a")
            self.answer(self.named["w"], failed=True, body=boxes.pack(error))
            self.play("ann: b, w dies")
        declared, lost = [formatEvent(event) for event in events if event.get("code")]
        self.assertRegex(
            declared, r"Echo failed .* NO_SUCH_WORD: no\\x1bsuch word x{200,290}\.\.\.$"
        )
        self.assertRegex(lost, r"Echo lost .* WORKER_LOST: worker \d+ was killed by SIGKILL 0.0 s")

    def test_recent(self) -> None:
        """Of a job that has ended it is known who asked for it, and what went wrong."""
        worker = self.ready()
        for failed in (False, True):
            self.submit(self.ann)
            error = boxes.pack(boxes.error_pairs(b"BAD_RESPONSE", "no word"))
            self.answer(worker, failed, error if failed else b"\0\0")
        self.play("bob: a b, bob leaves")
        self.die(worker)
        ended = [(job.asker, job.ended_for) for job in self.dispatcher.counters.recent]
        self.assertEqual(ended[:2], [("ann", None), ("ann", ("BAD_RESPONSE", "no word"))])
        self.assertEqual([asker for asker, _ in ended[2:]], ["bob", "bob"])
        self.assertEqual({reason[0] for _, reason in ended[2:] if reason}, {"CANCELLED"})

    def test_log_of_very_many_failures(self) -> None:
        """Of very many jobs of one client that end badly a few are logged, and the rest counted."""
        worker = self.ready()
        with capturedLogs() as events:
            for _ in range(50 * LOGGED_ENDS):
                self.submit(self.ann)
                self.submit(self.bob, deadline=1e-9)
                self.clock.advance(0.001)
                self.answer(worker)
            self.submit(self.ann)
            self.die(worker)
            self.clock.advance(11)
        texts = [formatEvent(event) for event in events]
        self.assertEqual(len([text for text in texts if "timed out" in text]), LOGGED_ENDS + 1)
        self.assertIn(f"(and {49 * LOGGED_ENDS - 1} more of this kind", texts[-1])
        self.assertEqual(len([text for text in texts if "lost" in text]), 1)

    def test_log_of_failures_only(self) -> None:
        """By default an answer is not logged, and a job that is lost is."""
        with capturedLogs() as events:
            self.play("ready w, ann: a, w answers")
            self.assertEqual(events, [])
            self.play("ann: b, w dies")
        self.assertEqual([event["job"] for event in events], [self.jobs["b"].id])

    def test_log_of_a_full_queue(self) -> None:
        """By default refusals are logged as warnings: a few, and the number of all others."""
        with capturedLogs() as events:
            for _ in range(MAX_QUEUED + 50 * LOGGED_ENDS):
                self.submit(self.ann)
            self.clock.advance(11)
        texts = [formatEvent(event) for event in events]
        self.assertEqual(len(texts), LOGGED_ENDS + 1)
        self.assertRegex(texts[0], "Echo was refused: 20 jobs wait already, which is --max-queued$")
        self.assertIn(f"(and {49 * LOGGED_ENDS - 1} more of this kind", texts[-1])
        fields = [events[0][name] for name in ("command", "client", "worker", "code")]
        self.assertEqual(fields, ["Echo", "ann", None, "QUEUE_FULL"])
        self.assertEqual({event["log_level"] for event in events}, {LogLevel.warn})

    def test_levels(self) -> None:
        """Lost jobs, and those that ran out of time, are warnings; a cancelled one is not."""
        self.play("types Echo:time_limit=1, ready w")
        with capturedLogs() as events:
            self.play("ann: a, wait 1, w dies, ready x, ann: b, x dies, ann: c, cancel c")
        texts = [formatEvent(event) for event in events]
        self.assertRegex(texts[0], "timed out: TIMED_OUT|timed out: Echo ran for its time limit")
        levels = [event["log_level"] for event in events]
        self.assertEqual(levels, [LogLevel.warn, LogLevel.warn, LogLevel.info])

    def test_no_log(self) -> None:
        """With log_jobs="none" the end of a job has no line, nor has another attempt."""
        for log_jobs, lines in (("none", 0), ("failed", 2)):
            self.serve(log_jobs=log_jobs)
            with capturedLogs() as events:
                self.play("types Echo:retries=1, ready w, ann: a, w dies, rest, ready x, x dies")
            self.assertEqual(len(events), lines)

    def test_log_of_a_life(self) -> None:
        """If all jobs are logged, each step has a line, and all lines the same four fields."""
        self.serve(log_jobs="all")
        with capturedLogs() as events:
            self.play("ann: a, wait 2, ready w, w answers")
        worker, job = self.named["w"].pid, self.jobs["a"].id
        self.assertEqual(
            [formatEvent(event).partition(" runtime")[0] for event in events],
            [
                f"job {job} Echo accepted client=ann priority=normal",
                f"job {job} Echo started worker={worker} attempt=1 wait=2.000000",
                f"job {job} Echo done worker={worker} wait=2.000000",
            ],
        )
        for event, pid in zip(events, (None, worker, worker), strict=True):
            fields = [event[name] for name in ("job", "command", "client", "worker")]
            self.assertEqual(fields, [job, "Echo", "ann", pid])

    def test_log_of_refusals(self) -> None:
        """A refused request has a line, too; so has a job that is tried again."""
        self.serve(log_jobs="all")
        with capturedLogs() as events:
            self.play("types Echo:retries=1, ready w, ann: a, w dies")
            refused = self.submit(self.ann, "Nothing").id
        texts = [formatEvent(event) for event in events]
        self.assertRegex(texts[2], "Echo is tried again: attempt 1: worker .* was killed by SIGK")
        self.assertRegex(texts[3], f"^job {refused} Nothing refused client=ann UNHANDLED: ")


ENDINGS: dict[str, dict[str, str]] = {
    "waits": {
        "nothing": "done",
        "cancel": "CANCELLED: Echo was cancelled while it waited; it never ran",
        "cancel twice": "CANCELLED: Echo was cancelled while it waited; it never ran",
        "leave": "",
        "deadline": "DEADLINE_PASSED: Echo waited for its deadline, 5 s",
        "drain": "done",
        "give up": "SHUTTING_DOWN: the server stopped; the job had not ended after 2.5 s",
        "no workers": "NO_WORKERS: no worker can be started: bad luck",
        "other code": "UNHANDLED: no worker performs Echo",
        "hold and give up": "SHUTTING_DOWN: the server stopped",
    },
    "runs": {
        "nothing": "done",
        "cancel": "CANCELLED: Echo was cancelled 1.0 s into its run",
        "cancel twice": "CANCELLED: Echo was cancelled 1.0 s into its run",
        "leave": "",
        "deadline": "DEADLINE_PASSED: Echo reached its deadline, 5 s, after 5.0 s of its run",
        "drain": "done",
        "give up": "SHUTTING_DOWN: the server stopped; the job had not ended after 2.5 s",
        "no workers": "done",
        "other code": "WORKER_LOST: worker PID was killed by SIGKILL 1.0 s into Echo",
        "death": "done",
        "two deaths": "WORKER_LOST: worker PID was killed by SIGKILL 0.0 s into Echo",
        "hold and give up": "SHUTTING_DOWN: the server stopped",
    },
    "rests": {
        "nothing": "done",
        "cancel": "CANCELLED: Echo was cancelled while it waited; it had run once",
        "cancel twice": "CANCELLED: Echo was cancelled while it waited; it had run once",
        "leave": "",
        "deadline": "DEADLINE_PASSED: Echo waited for its deadline, 5 s; it had run once",
        "drain": "done",
        "give up": "SHUTTING_DOWN: the server stopped; the job had not ended after 2.5 s",
        "no workers": "WORKER_LOST: worker PID was killed by SIGKILL 0.0 s into Echo; it is not "
        "tried again: no worker can be started: bad luck",
        "other code": "UNHANDLED: no worker performs Echo",
        "death": "WORKER_LOST: worker PID was killed by SIGKILL 0.0 s into Echo",
    },
    "stops": {
        "nothing": "CANCELLED: Echo was cancelled 0.0 s into its run",
        "cancel": "CANCELLED: Echo was cancelled 0.0 s into its run",
        "leave": "",
        "deadline": "CANCELLED: Echo was cancelled 0.0 s into its run",
        "give up": "CANCELLED: Echo was cancelled 0.0 s into its run",
        "no workers": "CANCELLED: Echo was cancelled 0.0 s into its run",
        "other code": "CANCELLED: Echo was cancelled 0.0 s into its run",
        "death": "CANCELLED: Echo was cancelled 0.0 s into its run",
    },
    "out of time": {
        "nothing": "TIMED_OUT: Echo ran for its time limit, 4.0 s, after it had waited 0.0 s",
        "cancel": "TIMED_OUT: Echo ran for its time limit, 4.0 s, after it had waited 0.0 s",
        "deadline": "TIMED_OUT: Echo ran for its time limit, 4.0 s",
        "death": "TIMED_OUT: Echo ran for its time limit, 4.0 s",
        "leave": "",
    },
}
"""What the client of a job is told, by where its job is, and what happens then."""


SITUATIONS = {
    "waits": "",
    "runs": "ready w",
    "rests": "ready w",
    "stops": "ready w",
    "out of time": "types Echo:retries=1:time_limit=4.0, ready w",
}
THEN = {"rests": "w dies", "stops": "cancel a", "out of time": "wait 4"}
HAPPENINGS = {
    "nothing": "",
    "cancel": "wait 1, cancel a",
    "cancel twice": "wait 1, cancel a, cancel a",
    "leave": "ann leaves",
    "deadline": "wait 5",
    "death": "a begins, a loses",
    "two deaths": "a begins, a loses, a begins, a loses",
    "other code": "types Other, ready o, wait 1, a loses",
    "drain": "drain 60",
    "give up": "drain 2.5, wait 2.5",
    "hold and give up": "hold ann, drain 2.5, wait 2.5",
    "no workers": 'no_workers "bad luck"',
}


class EndTests(DispatcherTestCase):
    """A job of Ann's, wherever it may be, and something happens."""

    performs = catalogue(Echo={"retries": 1})

    def do_begins(self, job: Job) -> None:
        """A worker comes for the job, if it has none."""
        if job.worker is None:
            self.ready(self.performs)
            self.clock.advance(LONGEST_RETRY if job.rest_alarm else 0)

    def do_loses(self, job: Job) -> None:
        """The job's worker dies, if it has one."""
        if isinstance(job.worker, FakeWorker):
            self.die(job.worker)

    def end(self, job: Job) -> None:
        """Have workers do what they are told, until the job has ended."""
        for _ in range(4):
            if job.state in END_STATES:
                return
            self.do_begins(job)
            worker = job.worker
            assert isinstance(worker, FakeWorker)
            if not (worker.interrupts or worker.killed):
                self.answer(worker)
                continue
            self.assertEqual(self.ann.failures, [])
            if worker.killed is None:
                self.assertIn(worker.interrupts, ([b"cancelled"], [b"time"]))
                self.clock.advance(GRACE)
            self.assertRegex(worker.killed or "", "^was killed: ")
            self.die(worker)

    def test_every_end(self) -> None:
        """A job ends for the first reason that there is, which its client is told once."""
        for situation, row in ENDINGS.items():
            for happens, told in row.items():
                with self.subTest(situation=situation, happens=happens):
                    self.begin_anew()
                    deadline = "/5s" if happens == "deadline" else ""
                    self.play(f"{SITUATIONS[situation]}, ann: a{deadline}")
                    self.play(f"{THEN.get(situation, '')}, {HAPPENINGS[happens]}")
                    self.end(job := self.jobs["a"])
                    if told == "done":
                        self.play("ann answered a")
                    elif told:
                        text = "^" + re.escape(told).replace("PID", r"\d+")
                        self.assertRegex(self.ann.failure_of(job), text)
                    self.assertEqual(len(self.ann.told), bool(told))
                    self.assertIn(job.state, END_STATES)
                    self.assertEqual(sum(self.ended().values()), 1)
                    if self.dispatcher.draining:
                        self.successResultOf(self.dispatcher.drain(60))
                    self.tearDown()


class DescribeTests(DispatcherTestCase):
    def test_at_once(self) -> None:
        """The catalogue is what the workers said, word for word."""
        self.ready()
        self.assertEqual(self.successResultOf(self.dispatcher.describe()), ECHO)

    def test_before_the_first_worker(self) -> None:
        """Whoever asks before a worker is there is told when one is, and one is asked for."""
        waiting = [self.dispatcher.describe(), self.dispatcher.describe()]
        self.assertEqual(self.supervisor.demands, [1, 1])
        self.assertNoResult(waiting[0])
        self.ready()
        self.assertEqual([self.successResultOf(asked) for asked in waiting], [ECHO, ECHO])

    def test_without_workers(self) -> None:
        """If no worker can be had, whoever asks is told so."""
        waiting = self.dispatcher.describe()
        self.dispatcher.no_workers("no memory")
        for asked in (waiting, self.dispatcher.describe()):
            failure = self.failureResultOf(asked, NoWorkers)
            self.assertIn("no memory", str(failure.value))

    def test_known_although_no_workers(self) -> None:
        """What the workers last said can be asked for when they are gone."""
        self.die(self.ready())
        self.dispatcher.no_workers("no memory")
        self.assertEqual(self.successResultOf(self.dispatcher.describe()), ECHO)

    def test_bounded(self) -> None:
        """No more may wait for the catalogue than may wait for a worker, besides the server."""
        waiting = [self.dispatcher.describe() for _ in range(MAX_QUEUED)]
        self.failureResultOf(self.dispatcher.describe(), QueueFull)
        waiting.append(self.dispatcher.describe(by_server=True))
        self.ready()
        for asked in waiting:
            self.successResultOf(asked)

    def test_shutting_down(self) -> None:
        """If the server stops before a worker was there, whoever asks is told so."""
        waiting = self.dispatcher.describe()
        self.dispatcher.drain(1)
        self.failureResultOf(waiting, ShuttingDown)
        self.failureResultOf(self.dispatcher.describe(), ShuttingDown)

    def test_cancelled_question(self) -> None:
        """Whoever no longer wants to know does not disturb the others."""
        first, second = self.dispatcher.describe(), self.dispatcher.describe()
        first.cancel()
        self.failureResultOf(first)
        self.ready()
        self.assertEqual(self.successResultOf(second), ECHO)

    def test_asked_again_while_told(self) -> None:
        """Whoever is told may ask again at once."""
        again: list[Deferred[str]] = []
        self.dispatcher.describe().addCallback(lambda _: again.append(self.dispatcher.describe()))
        self.ready()
        self.assertEqual(self.successResultOf(again[0]), ECHO)


class RetryTests(DispatcherTestCase):
    @settings(max_examples=20)
    @given(seed=st.integers(0, 2**32))
    def test_delays(self, seed: int) -> None:
        """Each rest is twice the last, up to the longest, times between a half and one and a half.

        However often it is: no number of attempts is too many for the arithmetic.
        """
        self.begin_anew()
        self.serve(quarantine_after=0, chance=random.Random(seed))
        self.play("types Echo:retries=1000000, ann: a")
        for attempt in range(1, 12):
            self.play("lose 1")
            (alarm,) = self.clock.getDelayedCalls()
            base = min(LONGEST_RETRY, FIRST_RETRY * 2 ** (attempt - 1))
            delay = alarm.getTime() - self.clock.seconds()
            self.assertTrue(0.5 * base - 1e-6 <= delay <= 1.5 * base + 1e-6, (attempt, delay))
            self.clock.advance(delay)
        self.jobs["a"].attempt = 5000
        self.play("lose 1, cancel a")


class QuarantineBatchTests(DispatcherTestCase):
    """The queue has more quarantined jobs than end at once."""

    performs = catalogue("Echo", "Bad")

    def begin_anew(self) -> None:
        """Have them wait."""
        super().begin_anew()
        self.ann.watch = None  # a worker is idle then, and goes on in the next turn
        self.play(f"server max_queued=1000, ann: b1-{3 * PART}/Bad, lose 5")

    def test_ends_in_batches(self) -> None:
        """However many of its jobs wait, only so many end in one turn of the reactor."""
        self.play("ann: good, ready w")
        before = -1
        while self.named["w"].job is None:
            self.assertLessEqual(len(self.ann.failures), before + PART + 6)
            before = len(self.ann.failures)
            self.clock.advance(0)
        self.play(f"w runs good, ann failures {3 * PART}")

    def test_nobody_jumps_the_queue_between_batches(self) -> None:
        """A job that comes while a worker waits for the next batch waits for its turn, too."""
        self.play("ann: g1-2, ready w, ann: late, w runs nothing, turns 5, 2x w answers")
        self.play("w ran g1 g2 late")

    def test_submit_from_the_end_of_a_batch(self) -> None:
        """A client may submit more while it is told that its job is refused for its command."""
        left = [PART]

        def submit_another(job: Job) -> None:
            left[0] -= 1
            if left[0] > 0:
                self.submit(self.ann)

        self.ann.when_told = submit_another
        self.play("ready w, turns 5")
        while self.named["w"].job is not None:
            self.play("w answers")
        self.play("waiting 0, idle 1")

    def test_many_clients_submit_from_the_end_of_a_batch(self) -> None:
        """However many clients react to the end of their jobs at once, the stack stays flat."""
        self.serve()
        self.dispatcher.admission.max_queued = 10_000
        clients = [FakeClient(str(number)) for number in range(500)]
        for client in clients:
            self.submit(client, "Bad")
        self.play("lose 5")
        for client in clients:
            client.when_told = lambda job, client=client: self.submit(client)
        self.play("ready w, turns 6, waiting 494, busy 1")
