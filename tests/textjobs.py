"""Job types that run any Python given as text, for the table of :mod:`tests.situations`.

The text may give `out`, which is answered as its ``repr``. The module's other names, and what
an earlier job left in `kept`, are there for it.
"""

from typing import Any

from twisted.protocols import amp

from dangad import Large, current_job, job

kept: dict[str, Any] = {}
"""What jobs keep for later ones of the same worker."""


class Declared(Exception):
    """An error that the commands declare."""


class Python(amp.Command):
    """Run a text of Python."""

    arguments = [(b"code", Large(amp.Unicode()))]
    response = [(b"out", Large(amp.Unicode()))]
    errors = {Declared: b"DECLARED"}


class Limited(Python):
    """The same, for half a second at most."""

    commandName = b"Limited"


class Asynchronous(Python):
    """The same, where the text gives a coroutine function `main`."""

    commandName = b"Asynchronous"


def run(code: str) -> dict[str, Any]:
    """The names that the text has given."""
    names: dict[str, Any] = {"Declared": Declared, "current_job": current_job, "kept": kept}
    exec(compile(code, "<job>", "exec"), names)
    return names


def tell_and_square(number: int) -> int:
    """The square of `number`, after progress was told; for multiprocessing, which needs a name."""
    current_job().progress(number, 9)
    return number**2


@job(Python)
def python(code: str) -> dict[str, str]:
    """See the command."""
    return {"out": repr(run(code).get("out"))}


@job(Limited, time_limit=0.5)
def limited(code: str) -> dict[str, str]:
    """See the command."""
    return python(code)


@job(Asynchronous)
async def asynchronous(code: str) -> dict[str, str]:
    """See the command."""
    return {"out": repr(await run(code)["main"]())}
