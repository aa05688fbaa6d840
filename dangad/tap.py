"""The plugin of ``twistd dangad``: makes the whole server, as a service, from the command line.

twistd imports this module for the command ``dangad``. `makeService` imports everything heavier than
:mod:`dangad.options.commandline`, after twistd has chosen the reactor.
"""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dangad.addresses import SERVER_FORMS, what_is_wrong
from dangad.host.capacity import OWN_FILES, WORKER_FILES
from dangad.host.lean import WITHOUT_TLS, import_network
from dangad.host.logformat import JSON
from dangad.host.startfailure import FailedStart, NotStarted, StartFailure
from dangad.limits import Limits
from dangad.options import logoptions
from dangad.options.commandline import Options, give_up
from dangad.options.configuration import configuration_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.application.service import IService

    from dangad.host.reactorwatch import ReactorWatch
    from dangad.pool.launch import WorkerSettings
    from dangad.server.peers import Allowed
    from dangad.service import DangadService
    from dangad.web.settings import WebSettings

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> IService:
    """The service for the options.

    The program ends, with one line on stderr and in a log outside the terminal, if an endpoint's
    description is not valid, the job modules cannot be served, or later an endpoint cannot be
    opened.
    """
    twistd: Any = options.parent or {}
    daemon = not twistd.get("nodaemon", True)
    logs = bool(daemon or twistd.get("syslog") or twistd.get("logfile") not in (None, "", "-"))
    said = logs or options["log-format"] == JSON
    failure = StartFailure(daemon, logs, said, trace=bool(options["traceback"]))
    try:
        return _make_service(options, failure)
    except NotStarted as reason:
        if not logs:
            give_up(str(reason))
        failure.watch()
        return FailedStart(reason)


@dataclass(frozen=True, slots=True)
class Proven:
    """What the options have been found to mean, when the job modules can be served."""

    settings: WorkerSettings
    """The workers' settings."""
    allowed: Allowed
    """The users who may connect."""
    catalogue: str
    """The job types: see :mod:`dangad.wire.catalogue`."""
    turns: ReactorWatch
    """How long the reactor's turns take."""


def prove(
    options: Options, uid: int | None, gid: int | None, announce: Callable[[str], object]
) -> Proven:
    """Check all that can be checked before the server is made. The reactor is installed.

    :param uid: the user as whom the server will run; None for this process's.
    :param gid: the group as which the server will run; None for this process's.
    :param announce: called with a line before the job modules are imported, which may take long.
    :raises NotStarted: the server cannot be made. If the reason is in the job modules, their
        traceback and their output are on stderr.
    """
    from dangad.pool.launch import BrokenJobs
    from dangad.pool.preflight import JobsCheck

    if options["web-actions"] and options["web"] is None:
        raise NotStarted("--web-actions is for the page of --web, which is not there")
    settings = _worker_settings(options)
    announce(f"checking the job modules: {', '.join(settings.jobs)}")
    try:
        with JobsCheck(settings, options["start-timeout"], uid, gid) as check:
            endpoints = [("listen", description) for description in options["listen"]]
            endpoints.append(("control", options["control"]))
            if options["web"] is not None:
                endpoints.append(("web", options["web"]))
            if all(description.startswith(WITHOUT_TLS) for _, description in endpoints):
                import_network()
            from twisted.internet import reactor

            from dangad.host.clock import use_steady_clock
            from dangad.host.shortturns import take_few_events
            from dangad.server.peers import allow

            import_module("dangad.service")  # the rest, while the other process imports the jobs
            use_steady_clock(reactor)
            turns = take_few_events(reactor)
            insecure, actions = bool(options["insecure"]), bool(options["web-actions"])
            _check_endpoints(endpoints, reactor, insecure=insecure, actions=actions)
            try:
                allowed = allow(options["allow-users"], options["allow-groups"])
            except ValueError as error:
                raise NotStarted(f"--allow-users, --allow-groups: {error}") from None
            return Proven(settings, allowed, check.wait(), turns)
    except BrokenJobs as error:
        if error.traceback:
            sys.stderr.write(f"{error.traceback}\n")
        raise NotStarted(str(error)) from None


def _make_service(options: Options, failure: StartFailure) -> IService:
    """The service; `failure` shows why it cannot start.

    :raises NotStarted: the service cannot be made.
    """
    twistd: Any = options.parent or {}
    uid, gid = twistd.get("uid"), twistd.get("gid")
    proven = prove(options, uid, gid, failure.announce)

    from twisted.internet import reactor

    from dangad.host.logstream import LogStream
    from dangad.server.listening import Access, CannotListen
    from dangad.service import DangadService

    failure.expected += (CannotListen,)
    failure.watch()
    reactor.callWhenRunning(failure.end)
    if not failure.logs:
        stream = LogStream(sys.stdout.fileno(), logoptions.note_of_dropped(options))
        reactor.addSystemEventTrigger("after", "shutdown", stream.end)
        failure.settle = stream.end
        sys.stdout = stream  # twistd is about to log to it
    limits = Limits(**{each.name: options[each.name.replace("_", "-")] for each in fields(Limits)})
    service = DangadService(
        reactor,
        options["listen"],
        proven.settings,
        limits,
        control=options["control"],
        log_jobs=options["log-jobs"],
        own_process=True,
        access=Access(
            proven.allowed,
            bool(options["insecure"]),
            owner=(-1 if uid is None else uid, -1 if gid is None else gid),
        ),
        web=_web_settings(options),
    )
    if options["traces"]:
        _trace_jobs(reactor, service)
    service.operations.configuration = configuration_of(options)
    service.operations.turns = proven.turns
    if options["log-stalls"]:
        from dangad.host.reactorwatch import StallSampler

        sampler = StallSampler(reactor, proven.turns, options["log-stalls"])
        reactor.callWhenRunning(sampler.start)
        reactor.addSystemEventTrigger("after", "shutdown", sampler.stop)
    return service


def _trace_jobs(reactor: Any, service: DangadService) -> None:
    """Send spans of jobs to OpenTelemetry.

    :raises NotStarted: it is not installed, or its environment variables cannot be followed.
    """
    try:
        from dangad.operators.tracing import trace_jobs
    except ModuleNotFoundError as error:
        raise NotStarted(f"--traces: {error}; pip install 'dangad[otel]'") from None
    tracing = trace_jobs(reactor, service.dispatcher.counters)
    if tracing is not None:
        service.farewells.append(tracing.stop)


def _check_endpoints(
    endpoints: list[tuple[str, str]], reactor: Any, *, insecure: bool, actions: bool
) -> None:
    """Check the descriptions of endpoints, each after the name of its option.

    :raises NotStarted: one cannot be read, or would be open to other machines without `insecure`,
        or in spite of `actions` of the page, or two name the same UNIX socket.
    """
    from dangad.server.endpoints import read_endpoint
    from dangad.server.listening import too_open

    sockets: dict[str, str] = {}
    for option, description in endpoints:
        named = f"--{option} {description or repr('')}"
        try:
            endpoint = read_endpoint(description)
            if endpoint.kind != "systemd" or os.environ.get("LISTEN_PID") == str(os.getpid()):
                endpoint.make(reactor)  # systemd passes its sockets to the server, not to a check
        except Exception as error:  # noqa: BLE001 - each kind of endpoint has its own
            wrong = what_is_wrong(description, error, SERVER_FORMS)
            raise NotStarted(f"{named}: {wrong}") from None
        if endpoint.reaches_beyond and not insecure:
            raise NotStarted(str(too_open(endpoint, f"--{option}")))
        if endpoint.reaches_beyond and option == "web" and actions:
            raise NotStarted(f"{named}: --web-actions is for UNIX sockets and the loopback alone")
        if endpoint.admits_anybody and option == "web" and actions:
            raise NotStarted(
                f"{named}: every user of this machine could give orders: leave out "
                f"--web-actions, or auth=none (for a UNIX socket, name a mode like 660)"
            )
        if endpoint.path is not None:
            path = os.path.abspath(endpoint.path)
            if path in sockets:
                raise NotStarted(f"{sockets[path]} and {named} name the same socket")
            sockets[path] = named


def _web_settings(options: Options) -> WebSettings | None:
    """The settings of the page; None if there is none."""
    if options["web"] is None:
        return None
    from dangad.web.settings import WebSettings

    return WebSettings(
        options["web"],
        options["web-prefix"],
        tuple(options["web-host"]),
        bool(options["web-actions"]),
        options["health-oldest"],
    )


def _worker_settings(options: Options) -> WorkerSettings:
    """The workers' settings.

    :raises NotStarted: there are too few descriptors for workers, or no working directory.
    """
    from dangad.pool.launch import NoDirectory, WorkerSettings, default_path

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = OWN_FILES + WORKER_FILES * (options["min-workers"] + 1)
    if hard != resource.RLIM_INFINITY and hard < least:
        raise NotStarted(
            f"the hard limit of {hard} open files is too low: {least} are the least for "
            f"--min-workers {options['min-workers']}; raise it (ulimit -Hn, LimitNOFILE=)"
        )
    try:
        path = default_path()
    except NoDirectory as error:
        raise NotStarted(str(error)) from None
    uid, gid = options.worker_ids()
    return WorkerSettings(
        jobs=tuple(options["jobs"]),
        max_payload=options["max-payload"],
        path=(*options["worker-path"], *path),
        directory=options["worker-directory"],
        environment=options.worker_environment(),
        max_memory=options["max-memory"],
        recycle_memory=options["recycle-memory"],
        nice=options["worker-nice"],
        umask=options["worker-umask"],
        uid=uid,
        gid=gid,
        open_files=soft,
        start=options["start"],
        start_timeout=options["start-timeout"],
    )
