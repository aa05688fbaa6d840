"""The table of the crash-point matrix: what is to be seen of each deed at each moment.

The deeds are in :mod:`tests.crashdeeds`, the moments below; the crash matrix of ``tests/real`` goes
through the cells.
"""

from dataclasses import dataclass, replace

import dangad

FROZEN = "frozen: "
"""With this begins the end of a worker that does not end by itself."""

MOMENTS = (
    "start",  # while the interpreter starts
    "modules",  # while the job modules are imported
    "hello",  # before Hello
    "idle",
    "reading",  # as the arguments of a job are read
    "job",  # in the job function
    "answer",  # when half of the answer is in the pipe
    "answered",  # when all of it is
    "stop",  # when the worker was asked to go
)


@dataclass(frozen=True)
class Cell:
    """What is to be seen of a deed at a moment."""

    ends: str | None = None
    """How the worker is then said to have ended, as a pattern; None if it lives on."""
    error: type[Exception] | None = None
    """What the client of the job is told, if it does not get its answer."""
    text: str = ""
    """Part of that error's text; for a lost job, it is how the worker ended."""
    prints: str | None = None
    """A line that the worker prints."""
    leaves: bool = False
    """Whether a process is left that only a server which adopts orphans can find."""
    senseless: str | None = None
    """Why there is nothing to see."""

    @property
    def frozen(self) -> bool:
        """Whether the worker does not end by itself."""
        return self.ends is not None and self.ends.startswith(FROZEN)

    @property
    def dies_late(self) -> bool:
        """Whether the worker ends after the answer, when it has perhaps been given the next job."""
        return self.ends is not None and self.error is None


FINE = Cell()
GARBAGE = "wrote garbage to its pipe"
NOT_GIVEN = r"wrote garbage to its pipe \(an answer to job .* which it was not given\)"


def dies(how: str, prints: str | None = None) -> Cell:
    """The worker ends, and its job, if it has one, is lost."""
    return Cell(ends=how, error=dangad.WorkerLost, prints=prints)


def no_boot(error: str) -> Cell:
    """The worker says why its job modules cannot be served."""
    return Cell(ends=f"could not start: the job modules cannot be served: {error}")


def cannot_begin(error: str) -> Cell:
    """The worker says why a function that is to begin has failed."""
    return Cell(ends=f"could not start: the worker_start function .* raised {error}")


def fails(error: type[Exception], text: str) -> Cell:
    """The job ends with an error, and the worker lives on."""
    return Cell(error=error, text=text)


def exited(status: int) -> str:
    """How a process that exits is said to have ended."""
    return rf"exited \(status {status}\)"


def senseless(why: str) -> Cell:
    """There is nothing to see, for the reason given."""
    return Cell(senseless=why)


def row(usually: Cell, **cells: Cell) -> dict[str, Cell]:
    """The cells of one deed: the same at each moment, but for those that are named.

    When a job is answered already, nothing costs it its answer.
    """
    cells.setdefault("answered", replace(usually, error=None, text=""))
    return {when: cells.get(when, usually) for when in MOMENTS}


def exception(name: str, text: str, at_start: Cell = FINE) -> dict[str, Cell]:
    """The row of an exception: a job's failure, but the end of a worker that has no job."""
    return row(
        dies(exited(1), name),
        start=at_start,
        modules=no_boot(text),
        hello=cannot_begin(text),
        reading=fails(dangad.BadArguments, f"argument 'value' is not a Trap: {text}"),
        job=fails(dangad.JobFailed, text),
        stop=Cell(ends=exited(0), prints=name),
    )


SYSTEM_EXIT_AT_START = dies(exited(1), "SystemExit")
PUT_BACK = Cell(prints=": the job has changed ")
BEFORE_ANY_JOB = senseless("there was no job yet that could be answered")
OF_NO_JOB = senseless("it is found with the worker's next job, whenever that comes")

TABLE: dict[str, dict[str, Cell]] = {
    "exit 0": exception("SystemExit", "SystemExit: 0", SYSTEM_EXIT_AT_START)
    | {"idle": dies(exited(0)), "answer": dies(exited(0)), "answered": Cell(ends=exited(0))},
    "exit 1": exception("SystemExit", "SystemExit: 1", SYSTEM_EXIT_AT_START)
    | {"idle": dies(exited(1)), "answer": dies(exited(1)), "answered": Cell(ends=exited(1))},
    "os._exit": row(dies(exited(3))),
    "SIGKILL": row(dies("was killed by SIGKILL")),
    "SIGSEGV": row(dies("was killed by SIGSEGV")),
    "SIGSTOP": row(
        Cell(ends=f"{FROZEN}did not start within 60 s"),
        idle=Cell(ends=f"{FROZEN}gave no sign of life for 5 s and was killed"),
        reading=Cell(FROZEN + "was killed: .* time limit", dangad.TimedOut, "its time limit"),
        job=Cell(FROZEN + "was killed: .* time limit", dangad.TimedOut, "its time limit"),
        answer=Cell(FROZEN + "was killed: .* time limit", dangad.TimedOut, "its time limit"),
        answered=Cell(ends=f"{FROZEN}gave no sign of life for 5 s and was killed"),
        stop=Cell(ends=f"{FROZEN}had not exited after 1 s and was killed"),
    ),
    "abort": row(dies("was killed by SIGABRT")),
    "exception in a thread": row(
        Cell(prints="ZeroDivisionError"), stop=Cell(ends=exited(0), prints="ZeroDivisionError")
    ),
    "RecursionError": exception("RecursionError", "RecursionError: maximum recursion depth"),
    "stack overflow": row(dies("was killed by SIGSEGV")),
    "MemoryError": exception("MemoryError", "MemoryError"),
    "close the pipe": row(dies(exited(1), "Bad file descriptor"), stop=Cell(ends=exited(0))),
    "garbage": row(dies(GARBAGE)),
    "answer twice": row(
        Cell(ends=NOT_GIVEN),
        start=BEFORE_ANY_JOB,
        modules=BEFORE_ANY_JOB,
        hello=BEFORE_ANY_JOB,
        reading=senseless("the job's code does not know its id yet"),
        answer=dies(GARBAGE),
    ),
    "answer another job": row(dies(NOT_GIVEN), answer=dies(GARBAGE)),
    "child with the pipe": row(dies(exited(4)), start=Cell(ends=exited(4), leaves=True)),
    "daemon": row(
        Cell(ends=exited(0), prints=": the job has left processes running"),
        start=Cell(leaves=True),
        modules=Cell(leaves=True),
        hello=Cell(leaves=True),
        idle=OF_NO_JOB,
        answer=OF_NO_JOB,
        answered=OF_NO_JOB,
        stop=Cell(ends=exited(0)),
    ),
    "block signals": row(FINE, reading=PUT_BACK, job=PUT_BACK, stop=Cell(ends=exited(0))),
    "flood of output": row(Cell(prints="line 0 "), stop=Cell(ends=exited(0), prints="line 0 ")),
    "change everything": row(FINE, reading=PUT_BACK, job=PUT_BACK, stop=Cell(ends=exited(0))),
}
