"""Situations that others met with job servers and process pools: what a job does, and what then.

Each row is a job that does something odd, and how it ends; and after it an innocent job, which
runs in the same worker, or in the one that has taken its place, and must notice nothing. Whoever
finds a situation that is not here adds a row, with the public report where there is one.
:mod:`tests.real.test_situations` goes through them, on real workers.
"""

import os
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Situation:
    """A job that does something, and what is to be seen of it and after it."""

    name: str
    """What happens, in a few words."""
    code: str
    """What the job runs; `out` in it is the answer. See :mod:`tests.textjobs`."""
    code_says: str = "ok"
    """The code of the error with which it ends, or "ok"."""
    says: str = ""
    """A pattern, somewhere in the error's text, or all of the answer's ``repr``."""
    command: bytes = b"Python"
    """Its command, of :mod:`tests.textjobs`."""
    options: tuple[tuple[str, bytes], ...] = ()
    """Reserved keys of its request and their values, as in ``(("_progress", b"1"),)``."""
    then: str = "out = 6 * 7"
    """What the job after it runs, for a client of its own, which must be told no news."""
    then_says: str = "42"
    """A pattern: all of the ``repr`` of its answer."""
    logs: str = ""
    """A pattern, somewhere in the log from the job's start on."""
    reports: str = ""
    """Where others met it, as in "gunicorn 1709"."""


RUN_REACTOR = """
from twisted.internet import reactor
reactor.callLater(0, reactor.crash)
reactor.run()
out = 42
"""
"""What an asynchronous job needs of its worker."""

SITUATIONS = (
    Situation("an ordinary job", "out = 'fine'", says="'fine'"),
    Situation("raises", "raise ValueError('no')", "JOB_FAILED", "ValueError: no"),
    Situation("raises what is declared", "raise Declared('no')", "DECLARED", "no"),
    Situation(
        "calls sys.exit(0)",
        "import sys; sys.exit(0)",
        "JOB_FAILED",
        "SystemExit: 0",
        reports="ampoule: a worker that exits 0 takes the queue with it",
    ),
    Situation("ends its process", "import os; os._exit(0)", "WORKER_LOST", r"exited \(status 0\)"),
    Situation(
        "kills itself",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "WORKER_LOST",
        "was killed by SIGKILL",
        reports="concurrent.futures: BrokenProcessPool for all jobs",
    ),
    Situation(
        "exits from a fork that it has made",
        "import os\npid = os.fork()\nif not pid: os._exit(7)\nout = os.waitpid(pid, 0)[1] >> 8",
        says="7",
    ),
    Situation(
        "leaves a thread",
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
    ),
    Situation(
        "leaves a thread that speaks for it, when it has ended",
        """\
import threading
job, go, seen = current_job(), threading.Event(), []
def late():
    go.wait()
    seen.append(current_job().id)
    job.progress(1, 2)
    current_job().progress(1, 2)
    current_job().send(b"late")
    try:
        job.send(b"late")
    except RuntimeError as error:
        seen.append(str(error).rpartition(": ")[2])
thread = threading.Thread(target=late)
thread.start()
kept.update(go=go, seen=seen, thread=thread)
""",
        options=(("_progress", b"1"), ("_chunks", b"1")),
        then="kept['go'].set(); kept['thread'].join(); out = kept['seen']",
        then_says=r"\[0, 'it has ended'\]",
    ),
    Situation(
        "leaves a thread that starts another, when it has ended",
        """\
import threading
go, seen = threading.Event(), []
def later():
    seen.append(current_job().id)
    current_job().send(b"later")
def late():
    go.wait()
    thread = threading.Thread(target=later)
    thread.start()
    thread.join()
thread = threading.Thread(target=late)
thread.start()
kept.update(go=go, seen=seen, thread=thread)
""",
        then="kept['go'].set(); kept['thread'].join(); out = kept['seen']",
        then_says=r"\[0\]",
    ),
    Situation(
        "keeps a pool of threads, of which each job has its tasks",
        """\
from concurrent.futures import ThreadPoolExecutor
kept["pool"] = ThreadPoolExecutor(1)
out = kept["pool"].submit(current_job).result() is current_job()
""",
        says="True",
        then="out = kept['pool'].submit(current_job).result() is current_job(), "
        "kept.pop('pool').shutdown()",
        then_says=r"\(True, None\)",
    ),
    Situation(
        "tells its progress from the processes of a pool",
        """\
import multiprocessing
from tests.textjobs import tell_and_square
pool = multiprocessing.get_context("fork").Pool(2)
out = pool.map(tell_and_square, range(9))
pool.close()
pool.join()
""",
        says=r"\[0, 1, 4, 9, 16, 25, 36, 49, 64\]",
        options=(("_progress", b"1"),),
    ),
    Situation(
        "sends a part from a fork",
        """\
import os
pid = os.fork()
if not pid:
    try:
        current_job().send(b"part")
    except RuntimeError as error:
        os._exit(3 if "fork" in str(error) else 4)
out = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
""",
        says="3",
        options=(("_chunks", b"1"),),
    ),
    Situation(
        "calls sys.exit(7) in a fork",
        """\
import os, sys
pid = os.fork()
if not pid:
    sys.exit(7)
out = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
""",
        says="7",
    ),
    Situation(
        "returns from a fork",
        """\
import os
print("half a line", end="")
if pid := os.fork():
    print(" and the other half")
    out = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
""",
        says="0",
        logs=r"job \d+: half a line and the other half\n(?!.*half a line)",
    ),
    Situation(
        "raises in a fork",
        """\
import os
pid = os.fork()
if not pid:
    raise KeyError("in a fork")
out = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
""",
        says="1",
        logs="KeyError: 'in a fork'",
    ),
    Situation(
        "raises what stops jobs, though nobody stops it",
        "import dangad; raise dangad.JobCancelled('by myself')",
        "JOB_FAILED",
        "JobCancelled: by myself",
    ),
    Situation(
        "raises an exception that lies about its class",
        """\
class Liar(Exception):
    @property
    def __class__(self): raise RuntimeError("no class")
raise Liar("lies")
""",
        "JOB_FAILED",
        "Liar: lies",
    ),
    Situation(
        "raises an exception of a class without a name",
        """\
class Nameless(type):
    @property
    def __name__(self): raise SystemExit("no name")
    __module__ = __mro__ = __name__
class Odd(Exception, metaclass=Nameless): pass
raise Odd("no name")
""",
        "JOB_FAILED",
        "Odd: no name",
        logs=r"job \d+: Python failed:[\s\S]*Odd: no name",
    ),
    Situation(
        "raises an exception that cannot be shown",
        """\
class Text(str):
    def __len__(self): raise RuntimeError
    __getitem__ = encode = isprintable = __format__ = __str__ = __len__
class Unspeakable(Exception):
    with_traceback = __traceback__ = __cause__ = property(lambda self: 1 / 0)
    def __str__(self): return Text("text")
raise Unspeakable
""",
        "JOB_FAILED",
        "Unspeakable: text",
    ),
    Situation(
        "declares an error whose message cannot be shown",
        """\
class Unspeakable(Declared):
    def __str__(self): raise KeyboardInterrupt
raise Unspeakable
""",
        "DECLARED",
        "its message cannot be shown",
        logs=r"job \d+: Python ended with DECLARED: \(its message",
    ),
    Situation(
        "tells progress in numbers that nobody can read",
        "current_job().progress(0, 1); current_job().progress(3, 10**5000)",
        "JOB_FAILED",
        "ValueError: `total` is not between 0 and",
        options=(("_progress", b"1"),),
    ),
    Situation("deletes its outputs", "import sys; del sys.stdout, sys.stderr, sys.stdin"),
    Situation("deletes its environment", "import os; del os.environ"),
    Situation(
        "puts something else in the place of its outputs",
        """\
import sys
class Odd:
    def __getattr__(self, name): raise SystemExit(name)
    __eq__ = __getattr__
sys.stdout = sys.stderr = Odd()
raise ValueError("unseen")
""",
        "JOB_FAILED",
        "ValueError: unseen",
    ),
    Situation("closes its outputs", "import os; os.close(1); os.close(2)"),
    Situation(
        "runs past its limit", "import time; time.sleep(60)", "TIMED_OUT", command=b"Limited"
    ),
    Situation(
        "terminates a process that it has forked",
        "import multiprocessing, time\n"
        "process = multiprocessing.get_context('fork').Process(target=time.sleep, args=(600,))\n"
        "process.start(); process.terminate(); process.join()\n"
        "out = process.exitcode",
        says="-15",
        reports="uvicorn 2289, 548, fastapi 1487",
    ),
    Situation(
        "leaves a pool that is busy",
        "import multiprocessing, time\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    pool.apply_async(time.sleep, (600,))\n"
        "    pool.apply(abs, (1,))\n"
        "pool.join(); out = multiprocessing.active_children()",
        says=r"\[\]",
    ),
    Situation(
        "has a pool of which a process dies",
        "import concurrent.futures, multiprocessing, os, time\n"
        "fork = multiprocessing.get_context('fork')\n"
        "with concurrent.futures.ProcessPoolExecutor(2, fork) as executor:\n"
        "    executor.submit(time.sleep, 600)\n"
        "    out = type(executor.submit(os._exit, 3).exception())",
        says=".*BrokenProcessPool.*",
    ),
    Situation(
        "interrupts its fork",
        "import os, signal, time\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGURG)\n"
        "        os.kill(os.getpid(), signal.SIGWINCH)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        os._exit(5)\n"
        "    os._exit(6)\n"
        "out = os.waitpid(pid, 0)[1] >> 8",
        says="5",
    ),
    Situation(
        "has a handler of its own in its fork",
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(5))\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os._exit(6)\n"
        "out = os.waitpid(pid, 0)[1] >> 8",
        says="5",
    ),
    Situation(
        "sets variables of its context",
        "import contextvars\n"
        "kept['variable'] = contextvars.ContextVar('variable', default='unset')\n"
        "kept['variable'].set('set')",
        then="out = kept.pop('variable').get()",
        then_says="'unset'",
    ),
    Situation(
        "computes with three digits",
        "import decimal; decimal.getcontext().prec = 3; out = decimal.Decimal(1) / 3",
        says=r"Decimal\('0.333'\)",
        then="import decimal; out = len(str(decimal.Decimal(1) / 3))",
        then_says="30",
    ),
    Situation(
        "lives in another time zone",
        "import os, time; os.environ['TZ'] = 'XXX-9'; time.tzset(); out = time.timezone",
        says="-32400",
        then="import datetime, time\n"
        "out = time.timezone, datetime.datetime.fromtimestamp(0).hour - time.localtime(0).tm_hour",
        then_says=rf"\({time.timezone}, 0\)",
        logs="the job has changed the environment; put back",
    ),
    Situation(
        "leaves another time zone without a trace in the environment",
        "import os, time\n"
        "before = os.environ.get('TZ')\n"
        "os.environ['TZ'] = 'XXX-9'; time.tzset()\n"
        "os.environ.update(TZ=before) if before else os.environ.pop('TZ')",
        then="import time; out = time.timezone",
        then_says=str(time.timezone),
        logs="the job has changed the time zone; put back",
    ),
    Situation(
        "limits its processor time, files and memory",
        "import resource\n"
        "for name in ('AS', 'CPU', 'FSIZE', 'NOFILE'):\n"
        "    number = getattr(resource, f'RLIMIT_{name}')\n"
        "    soft, hard = resource.getrlimit(number)\n"
        "    if name not in kept: kept[name] = soft\n"
        "    resource.setrlimit(number, (2**32 if name == 'AS' else 600, hard))",
        then="import resource\n"
        "out = [name for name in ('AS', 'CPU', 'FSIZE', 'NOFILE')\n"
        "       if resource.getrlimit(getattr(resource, f'RLIMIT_{name}'))[0] != kept.pop(name)]",
        then_says=r"\[\]",
        logs="the job has changed resource limits; put back",
    ),
    Situation(
        "limits itself for good",
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))",
        then="import resource; out = resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 600",
        then_says="True",
    ),
    Situation(
        "keeps something in a module, on purpose",
        "kept['thing'] = 1",
        then="out = kept.pop('thing')",
        then_says="1",
    ),
    Situation(
        "gives way to other processes",
        "import os; os.nice(5)",
        then="import os; out = os.nice(0)",
        then_says=str(os.nice(0)),
    ),
    Situation(
        "acts as another user",
        "import os; os.getuid() or os.seteuid(65534)",
        then="import os; out = os.geteuid() == os.getuid()",
        then_says="True",
    ),
    Situation(
        "makes errors of warnings",
        "import warnings; warnings.simplefilter('error')",
        then="import warnings; warnings.warn('this may be ignored')",
        then_says="None",
        logs="the job has changed the warning filters; put back",
    ),
    Situation(
        "stops the reactor",
        "async def main():\n"
        "    from twisted.internet import defer, reactor\n"
        "    reactor.callLater(0, reactor.stop)\n"
        "    await defer.Deferred()",
        "JOB_FAILED",
        "the job stopped the reactor before its Deferred fired",
        command=b"Asynchronous",
        then=RUN_REACTOR,
        logs="the worker is not reusable: the reactor was stopped",
    ),
    Situation(
        "leaves the reactor running in a thread",
        "from twisted.internet import reactor\n"
        "import threading\n"
        "started = threading.Event()\n"
        "reactor.callWhenRunning(started.set)\n"
        "threading.Thread(target=reactor.run, args=(False,), daemon=True).start()\n"
        "started.wait()",
        then=RUN_REACTOR,
        logs="the worker is not reusable: the reactor runs in a thread",
    ),
)
