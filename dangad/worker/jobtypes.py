"""Job types: the ``@job`` decorator, and the search for decorated functions in modules.

Authors of jobs decorate functions; :mod:`dangad.worker.child` and :mod:`dangad.testing` find them.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from twisted.protocols import amp

from dangad.wire.boxes import MAX_KEY
from dangad.wire.catalogue import Policy, command_doc, describe_command, write_catalogue
from dangad.wire.commands import PREFIX
from dangad.wire.values import MAX_LARGE_KEY, Large, python_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_MARK = "__dangad_job_types__"
_PLAIN = (FunctionType, type, ModuleType)
"""Types of objects whose attributes are all in their ``__dict__``."""
_F = TypeVar("_F", bound="Callable[..., Any]")

ENTRY_POINT_GROUP = "dangad.jobs"


class BadJobType(Exception):
    """A job type or a job module cannot be served; the text says why."""


@dataclass(frozen=True)
class JobType:
    """A command, the function that performs it, and its policy."""

    command: type[amp.Command]
    function: Callable[..., Any]
    policy: Policy

    @property
    def name(self) -> bytes:
        """The command's name on the wire."""
        name: bytes = self.command.commandName
        return name


def job(
    command: type[amp.Command],
    *,
    time_limit: float | None = None,
    retries: int = 0,
    max_running: int | None = None,
    on_disconnect: Literal["cancel", "finish"] = "cancel",
    isolate: bool = False,
    stoppable: bool = False,
) -> Callable[[_F], _F]:
    """Declare that the decorated function performs `command`.

    The function is called with the command's arguments as keywords, in the main thread of a worker
    process, and may take its time. If the request leaves out an optional argument, the function's
    default counts, or None if there is no default. The function returns a dict with the command's
    response, or a Deferred of such a dict, or is ``async def``. The decorator leaves the function
    as it is, so that tests can call it.

    :param time_limit: seconds that one attempt may run; None for no limit.
    :param retries: how often the job may be tried again after its worker died. Only for functions
        that may safely run twice.
    :param max_running: how many jobs of this type may run at once; None for no limit.
    :param on_disconnect: "cancel" or "finish" a running job whose client disconnects.
    :param isolate: whether each job gets a new worker process, which ends after it.
    :param stoppable: whether the function leaves modules and locks in order, whatever the line at
        which the exception stops it. Then the worker need not end with the job.
    :raises BadJobType: the command or the policy cannot be served; the text says why.
    """
    policy = Policy(time_limit, retries, max_running, on_disconnect, isolate, stoppable)
    _check_command(command)
    _check_policy(command, policy)

    def decorate(function: _F) -> _F:
        _check_signature(command, function)
        types = (*job_types_of(function), JobType(command, function, policy))
        try:
            setattr(function, _MARK, types)
        except AttributeError:
            raise BadJobType(
                f"{_where(function)} cannot be decorated: wrap it in a function"
            ) from None
        return function

    return decorate


def job_types_of(function: Callable[..., Any]) -> tuple[JobType, ...]:
    """The job types that the function was declared to perform, in no particular order."""
    types: tuple[JobType, ...] = mark_of(function, _MARK) or ()
    return types


def mark_of(function: object, name: str) -> Any:
    """The mark that a decorator has left on a function under `name`; None if there is none.

    Looked up statically: a module may hold mocks and proxies, which have every attribute.
    """
    if type(function) in _PLAIN:  # as nearly all attributes of a module are
        return vars(function).get(name)
    return inspect.getattr_static(function, name, None)


def find_job_types(modules: Iterable[str]) -> dict[bytes, JobType]:
    """The job types of these modules, by command name; the modules are imported.

    A module's job types are the decorated functions among its attributes. A name of the form
    ``group:dangad.jobs`` stands for the modules that installed packages offer under that
    entry-point group.

    :raises BadJobType: a module has no job types, or two functions perform the same command.
    """
    found: dict[bytes, JobType] = {}
    for name in modules:
        in_module = [
            job_type
            for module in import_modules(name)
            for value in list(vars(module).values())
            if callable(value)
            for job_type in job_types_of(value)
        ]
        if not in_module:
            raise BadJobType(f"{name} has no job types: decorate a function with @dangad.job")
        for job_type in in_module:
            other = found.setdefault(job_type.name, job_type)
            if other is not job_type:
                raise BadJobType(
                    f"{_where(job_type.function)} and {_where(other.function)} both perform "
                    f"{job_type.name.decode('ascii')}"
                )
    return found


def catalogue_of(job_types: Iterable[JobType]) -> str:
    """The JSON document of :mod:`dangad.wire.catalogue` that describes these job types."""
    return write_catalogue(
        describe_command(
            job_type.command, job_type.policy, command_doc(job_type.command, job_type.function)
        )
        for job_type in job_types
    )


def import_modules(name: str) -> list[Any]:
    """The modules for which `name` stands in `find_job_types`; they are imported."""
    if name == f"group:{ENTRY_POINT_GROUP}":
        points = entry_points(group=ENTRY_POINT_GROUP)
        if not points:
            raise BadJobType(f"{name}: no installed package offers job modules in this group")
        return [point.load() for point in points]
    return [importlib.import_module(name)]


def _where(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}.{name}" if name else repr(function)


def _check_command(command: object) -> None:
    if not (isinstance(command, type) and issubclass(command, amp.Command)):
        raise BadJobType(f"@job takes a subclass of amp.Command, not {command!r}")
    name = command.commandName
    label = repr(command)
    try:
        name.decode("ascii")
    except UnicodeDecodeError:
        raise BadJobType(f"the name of {label} is not ASCII") from None
    if name.startswith(PREFIX):
        raise BadJobType(f"{label}: names that begin with {PREFIX.decode()!r} are dangad's own")
    for keys in (command.arguments, command.response):
        names = set()
        for key, argument in keys:
            _check_key(label, key, argument)
            names.add(python_name(key))
        if len(names) < len(keys):
            raise BadJobType(f"{label}: two keys have one and the same name in Python")


def _check_key(label: str, key: bytes, argument: object) -> None:
    if not key.isascii() or not 0 < len(key) <= MAX_KEY:
        raise BadJobType(f"{label}: key {key!r} is not 1 to {MAX_KEY} characters of ASCII")
    if key.startswith(b"_"):
        raise BadJobType(f"{label}: key {key!r} begins with an underscore, which is reserved")
    if not isinstance(argument, amp.Argument):
        raise BadJobType(f"{label}: the type of {key!r} is {argument!r}, not an argument of AMP")
    if isinstance(argument, amp.Descriptor):
        raise BadJobType(f"{label}: a descriptor ({key!r}) cannot be handed to a worker")
    _check_large(label, key, argument)


def _check_large(label: str, key: bytes, argument: amp.Argument) -> None:
    """Check that a Large value has room for its further keys, in the boxes of a list, too."""
    if isinstance(argument, Large):
        if len(key) > MAX_LARGE_KEY:
            raise BadJobType(
                f"{label}: key {key[:40]!r}... has {len(key)} characters; that of a Large or Blob "
                f"has at most {MAX_LARGE_KEY}, since its value is laid over keys with .1, .2, ... "
                "after it"
            )
        _check_large(label, b"", argument.argument)
    subargs = argument.subargs if isinstance(argument, amp.AmpList) else ()
    for inner, each in subargs:
        _check_large(label, inner, each)


def _check_policy(command: type[amp.Command], policy: Policy) -> None:
    label = command.__name__
    # Values of any type, whatever the annotations promise: authors need not run a type checker.
    limit: object = policy.time_limit
    retries: object = policy.retries
    most: object = policy.max_running
    if limit is not None and not (isinstance(limit, int | float) and 0 < limit < float("inf")):
        raise BadJobType(f"{label}: time_limit must be a number of seconds above 0, or None")
    if not (isinstance(retries, int) and retries >= 0):
        raise BadJobType(f"{label}: retries must be a whole number from 0")
    if most is not None and not (isinstance(most, int) and most >= 1):
        raise BadJobType(f"{label}: max_running must be a whole number from 1, or None")
    for name in ("isolate", "stoppable"):
        if not isinstance(getattr(policy, name), bool):
            raise BadJobType(f"{label}: {name} must be True or False")
    if policy.on_disconnect not in ("cancel", "finish"):
        raise BadJobType(f'{label}: on_disconnect must be "cancel" or "finish"')


def _check_signature(command: type[amp.Command], function: Callable[..., Any]) -> None:
    """Check that the function can be called with the command's arguments."""
    names = [python_name(key) for key, _ in command.arguments]
    try:
        inspect.signature(function).bind(**dict.fromkeys(names))
    except (TypeError, ValueError) as error:
        raise BadJobType(
            f"{_where(function)} cannot take the arguments of {command.__name__} "
            f"({', '.join(names) or 'none'}): {error}"
        ) from None
