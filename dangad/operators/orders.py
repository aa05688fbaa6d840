"""What each command of an operator does: a function for each class of command.

:mod:`.control` reads the requests, and writes the answers. The functions ask a provider of
:class:`~dangad.operators.interfaces.IOperations`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from dangad.errors import BadArguments
from dangad.wire import commands
from dangad.wire.controlwords import MOST

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from twisted.protocols import amp

    from dangad.operators.interfaces import IOperations

    Arguments = dict[str, Any]
    Answer = dict[str, Any]

_PAGE = ("sort", "limit", "offset")
"""The arguments that do not belong to a filter."""


# What operators look at.


async def _status(operations: IOperations, _: Arguments) -> Answer:
    return _document(operations.status())


async def _workers(operations: IOperations, _: Arguments) -> Answer:
    return _document(operations.workers())


async def _deaths(operations: IOperations, _: Arguments) -> Answer:
    return _document(operations.deaths())


async def _jobs(operations: IOperations, arguments: Arguments) -> Answer:
    meant, page = _divided(arguments)
    with _valid():
        return _document(await operations.jobs(meant, **page))


async def _recent(operations: IOperations, arguments: Arguments) -> Answer:
    meant, page = _divided(arguments)
    with _valid():
        return _document(operations.recent(meant, **page))


async def _job(operations: IOperations, arguments: Arguments) -> Answer:
    return _document(await operations.job(arguments["job"]))


async def _commands(operations: IOperations, _: Arguments) -> Answer:
    return _document(await operations.commands())


async def _clients(operations: IOperations, arguments: Arguments) -> Answer:
    with _valid():
        return _document(await operations.clients(**arguments))


async def _watch(operations: IOperations, arguments: Arguments) -> Answer:
    meant: Arguments = {key: arguments[key] for key in ("command", "client") if key in arguments}
    kinds = arguments.get("kinds")
    with _valid():
        return _document(
            await operations.watch(
                arguments.get("after"), meant, None if kinds is None else kinds.split(",")
            )
        )


async def _config(operations: IOperations, _: Arguments) -> Answer:
    return _document(operations.config())


async def _stack(operations: IOperations, arguments: Arguments) -> Answer:
    return {"stack": await operations.stack(arguments["job"])}


# What operators change.


async def _cancel(operations: IOperations, arguments: Arguments) -> Answer:
    most = arguments.pop("most", MOST)
    ids = arguments.pop("jobs", None)
    with _valid():
        if ids is not None and arguments:
            raise ValueError("the jobs to cancel are named by their ids or by a filter, not both")
        return _document(await operations.cancel(arguments if ids is None else ids, most))


async def _pause(operations: IOperations, arguments: Arguments) -> Answer:
    with _valid():
        return _document(operations.pause(arguments.get("commands") or None))


async def _resume(operations: IOperations, arguments: Arguments) -> Answer:
    with _valid():
        return _document(operations.resume(arguments.get("commands") or None))


async def _pardon(operations: IOperations, arguments: Arguments) -> Answer:
    if not operations.pardon(arguments["command"]):
        names = ", ".join(each["command"] for each in operations.status()["quarantine"])
        others = f"; in quarantine: {names}" if names else ", and no other command is"
        raise BadArguments(f"{arguments['command']!r} is not in quarantine{others}")
    return {}


async def _scale(operations: IOperations, arguments: Arguments) -> Answer:
    with _valid():
        operations.scale(arguments["min"], arguments["max"], bool(arguments.get("force")))
    return {}


async def _reload(operations: IOperations, _: Arguments) -> Answer:
    await operations.reload()
    return {}


async def _drain(operations: IOperations, _: Arguments) -> Answer:
    return _document(await operations.drain())


async def _shutdown(operations: IOperations, arguments: Arguments) -> Answer:
    operations.shutdown(bool(arguments.get("now")))
    return {}


PERFORM: dict[
    type[amp.Command], Callable[[IOperations, Arguments], Coroutine[Any, Any, Answer]]
] = {
    commands.Status: _status,
    commands.Workers: _workers,
    commands.Deaths: _deaths,
    commands.Jobs: _jobs,
    commands.Recent: _recent,
    commands.Job: _job,
    commands.Commands: _commands,
    commands.Clients: _clients,
    commands.Watch: _watch,
    commands.Config: _config,
    commands.Stack: _stack,
    commands.CancelJobs: _cancel,
    commands.Pause: _pause,
    commands.Resume: _resume,
    commands.Pardon: _pardon,
    commands.Scale: _scale,
    commands.Want: _scale,
    commands.Reload: _reload,
    commands.Drain: _drain,
    commands.Shutdown: _shutdown,
}
"""The function of each command. It gets the arguments by their Python names, and returns the
answer, whose ``document``, if it has one, is still to be written as JSON."""
NAMES: dict[type[amp.Command], str] = {
    commands.Pardon: "Unquarantine",
    commands.CancelJobs: "Cancel",
}
"""The names under which the log has some commands: operators know them by these names."""
AT_ONCE = frozenset(
    {
        commands.Status,
        commands.Workers,
        commands.Deaths,
        commands.Recent,
        commands.Config,
    }
)
"""Commands that only read and are answered at once, whatever else is in progress."""
ONLY_LOOK = AT_ONCE | {
    commands.Jobs,
    commands.Job,
    commands.Commands,
    commands.Clients,
    commands.Watch,
}
"""Commands that only read: they are not logged."""


def _document(content: Any) -> Answer:
    return {"document": content}


def _divided(arguments: Arguments) -> tuple[Arguments, Arguments]:
    """The filter in the arguments, and the rest: which part of the list is wanted."""
    page = {key: arguments[key] for key in _PAGE if key in arguments}
    return {key: arguments[key] for key in arguments if key not in page}, page


@contextlib.contextmanager
def _valid() -> Iterator[None]:
    """A context in which ValueError says what is wrong with the operator's arguments."""
    try:
        yield
    except ValueError as error:
        raise BadArguments(str(error)) from None
