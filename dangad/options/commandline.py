"""The command line of ``twistd dangad``: its options.

Part of :mod:`dangad.tap`. Defaults come from :mod:`dangad.limits`, and the parsers of values from
:mod:`dangad.options.values`.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from grp import getgrnam
from pwd import getpwnam, getpwuid, struct_passwd
from typing import Any, NoReturn

from twisted.python import usage

from dangad.host.capacity import TooManyWorkers, check_workers
from dangad.host.inheritance import keep_from_children, open_standard_streams
from dangad.limits import DEFAULTS, LEAN, PRELOADED, STARTS
from dangad.options import logoptions
from dangad.options.configfile import BadFile, ConfigFile, merge
from dangad.options.values import octal, one_of, seconds, size, url_path, whole_number
from dangad.text import meant

DEFAULT_ENDPOINTS = ("unix:dangad.sock", "tcp:7003:interface=127.0.0.1")
DEFAULT_JOBS = ("dangad.examples",)
NOT_FOR_WORKERS = frozenset(
    {
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
    }
)
"""Environment variables of systemd that are meant for the server alone."""
DEFAULT_CONTROL = "unix:dangad.control"
MOST_NICE = 19
"""The largest nice value of a process, see nice(2)."""
GROUP = "group:dangad.jobs"
"""The name that stands for the job modules of all installed packages."""


def _default(option: str) -> Any:
    """The default of the option."""
    return getattr(DEFAULTS, option.replace("-", "_"))


def _number(option: str, least: int, doc: str) -> list[Any]:
    """A limit that is a whole number, as an entry of `usage.Options.optParameters`."""
    return [option, None, _default(option), doc, whole_number(option, least)]


def _size(option: str, doc: str, least: int = 1) -> list[Any]:
    """A limit in bytes, as an entry of `usage.Options.optParameters`."""
    return [option, None, _default(option), doc, size(option, least)]


def _seconds(option: str, doc: str, *, zero: bool = True) -> list[Any]:
    """A limit in seconds, as an entry of `usage.Options.optParameters`."""
    return [option, None, _default(option), doc, seconds(option, zero=zero)]


def _octal(option: str, doc: str) -> list[Any]:
    """A file mode mask without a default, as an entry of `usage.Options.optParameters`."""
    return [option, None, None, doc, octal(option)]


class Options(usage.Options):
    """The options of ``twistd dangad``."""

    synopsis = "[options]"
    longdesc = (
        "A job server: takes jobs from clients over AMP, has worker processes perform them, "
        "and gives the results back."
    )

    # The help is in alphabetical order, so each text must be understandable alone. Twisted appends
    # the default and `coerceDoc`.
    optParameters = [
        ["config", None, None, "A TOML file with options; those of the command line win"],
        _number("min-workers", 0, "Worker processes that are always kept"),
        _number("max-workers", 1, "The most worker processes"),
        _number("spare-workers", 0, "Idle workers that are kept in addition to the busy ones"),
        _number("recycle-jobs", 0, "Jobs after which a worker is replaced, 0 for any number"),
        _size("recycle-memory", "Memory beyond which a worker is replaced, 0 for any amount", 0),
        _seconds("recycle-age", "Age at which a worker is replaced, 0 for any age"),
        _size("max-memory", "The most memory of a worker, 0 for no limit", 0),
        _number("max-queued", 0, "The most waiting jobs of all clients"),
        _size("max-queued-bytes", "The most bytes of all waiting jobs' requests"),
        _number("max-in-flight", 1, "A connection with so many unanswered requests is not read"),
        _number("max-connections", 1, "The most connections of clients"),
        _size("max-payload", "Size of the largest request or answer"),
        _size("max-buffered", "The most bytes held for all clients, 0 for a default", 0),
        _number(
            "quarantine-after", 0, "Workers in a row that a command may kill, 0 for any number"
        ),
        _seconds("quarantine-time", "Time for which a command that kills workers is refused"),
        _seconds(
            "relief-after",
            "Time for which one client's jobs may have all workers before others get one more, 0 "
            "for never",
        ),
        _seconds(
            "start-timeout", "Time for a worker to start and to import the job modules", zero=False
        ),
        _seconds("drain", "Time for accepted jobs to end when the server stops"),
        ["control", None, DEFAULT_CONTROL, "Where operators connect, in the form of --listen"],
        ["web", None, None, "Where the page for operators is served, in the form of --listen"],
        ["web-prefix", None, "", "The path of the page behind a proxy", url_path("web-prefix")],
        [
            "health-oldest",
            None,
            0.0,
            "Age of the oldest waiting job beyond which /health fails, 0 for any age",
            seconds("health-oldest"),
        ],
        [
            "start",
            None,
            None,
            (
                "How workers start: fresh (new interpreters), lean or preloaded (forks of a "
                f"template) [default: {LEAN}]"
            ),
            one_of("start", STARTS),
        ],
        ["worker-directory", None, None, "The workers' working directory, if not the server's"],
        [
            "worker-nice",
            None,
            0,
            "How far workers yield to other processes, see nice(2)",
            whole_number("worker-nice", 0, MOST_NICE),
        ],
        _octal("worker-umask", "The workers' file mode mask, if not the server's"),
        ["worker-uid", None, None, "The user that workers run as; only if root starts the server"],
        ["worker-gid", None, None, "The group that workers run as, if not that of --worker-uid"],
        *logoptions.PARAMETERS,
    ]

    optFlags = [
        ["preload", None, "Short for --start preloaded"],
        ["web-actions", None, "Let the page of --web change things; only within this machine"],
        ["force", None, "Accept --max-workers even if the machine seems too small for so many"],
        ["insecure", None, "Allow endpoints beyond this machine, where anybody may run every job"],
        ["traceback", None, "If the start fails, show where in the server the error was raised"],
        *logoptions.FLAGS,
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []
        self["allow-users"] = []
        self["allow-groups"] = []
        self["jobs"] = []
        self["worker-path"] = []
        self["worker-env"] = {}
        self["worker-keep-env"] = []
        self["web-host"] = []
        #: The file of --config.
        self.file = ConfigFile()
        self.docs = {name: " ".join((doc or "").split()) for name, doc in self.docs.items()}

    def opt_listen(self, endpoint: str) -> None:
        """Where clients connect: a Twisted server endpoint, or the path of a UNIX socket.

        Repeatable [default: unix:dangad.sock and tcp:7003:interface=127.0.0.1].
        """
        self["listen"].append(endpoint)

    def opt_allow_users(self, users: str) -> None:
        """Users who may connect, by name or number, separated by commas.

        The server's own user and root may always connect. Repeatable.
        """
        self["allow-users"] += users.split(",")

    def opt_allow_groups(self, groups: str) -> None:
        """Groups whose members may connect, by name or number, separated by commas.

        The server's own user and root may always connect. Repeatable.
        """
        self["allow-groups"] += groups.split(",")

    def opt_jobs(self, module: str) -> None:
        """A module with job types, by its dotted name.

        Repeatable [default: dangad.examples].
        """
        if module.endswith(".py") or "/" in module:
            raise usage.UsageError(f"--jobs {module}: {_name_module(module)}")
        if not module.strip():
            raise usage.UsageError("--jobs names no module")
        if "," in module or " " in module:
            words = " ".join(f"--jobs {name}" for name in re.split("[ ,]+", module) if name)
            raise usage.UsageError(f"--jobs {module}: repeat the option, as in {words}")
        if ":" in module and module != GROUP:
            raise usage.UsageError(f"--jobs {module}: the only group is {GROUP}")
        self["jobs"].append(module)

    def opt_worker_path(self, directory: str) -> None:
        """A directory where workers look for modules first. Repeatable."""
        if not os.path.exists(directory):  # an archive will do, too
            raise usage.UsageError(f"--worker-path {directory}: no such directory")
        self["worker-path"].append(os.path.abspath(directory))

    def opt_worker_env(self, setting: str) -> None:
        """An additional environment variable for workers, as NAME=VALUE. Repeatable."""
        name, equals, value = setting.partition("=")
        if not (name and equals):
            raise usage.UsageError(f"--worker-env {setting}: write NAME=VALUE")
        self["worker-env"][name] = value

    def opt_worker_keep_env(self, name: str) -> None:
        """A variable of the server's environment that workers keep.

        If the option is given, they keep no others. Repeatable [default: all].
        """
        self["worker-keep-env"].append(name)

    def opt_web_host(self, name: str) -> None:
        """A name by which browsers know the page, besides localhost and addresses. Repeatable."""
        self["web-host"].append(name.lower().rstrip("."))

    def parseArgs(self, *words: str) -> None:
        """Refuse words that are no options."""
        if words:
            name = words[0].isidentifier()
            advice = f"; to serve the module {words[0]}, write --jobs {words[0]}" if name else ""
            raise usage.UsageError(f"there are no arguments, but {words[0]!r} is one{advice}")

    def postOptions(self) -> None:
        """Fill in the defaults of repeatable options, and check options that depend on others."""
        self["listen"] = self["listen"] or list(DEFAULT_ENDPOINTS)
        self["jobs"] = self["jobs"] or list(DEFAULT_JOBS)
        if self["preload"]:
            if self["start"] not in (None, PRELOADED):
                raise usage.UsageError(f"--preload contradicts --start {self['start']}")
            self["start"] = PRELOADED
        self["start"] = self["start"] or LEAN
        for option in ("min-workers", "spare-workers"):
            if self[option] > self["max-workers"]:
                raise usage.UsageError(
                    f"--{option} {self[option]} is more than --max-workers {self['max-workers']}"
                )
        try:
            check_workers(self["max-workers"], force=bool(self["force"]))
        except TooManyWorkers as error:
            raise usage.UsageError(f"--max-workers: {error}") from None
        if 0 < self["max-buffered"] < 2 * self["max-payload"]:
            raise usage.UsageError(
                f"--max-buffered {self['max-buffered']} is less than twice "
                f"--max-payload {self['max-payload']}"
            )
        directory = self["worker-directory"]
        if directory is not None:
            self["worker-directory"] = os.path.abspath(directory)
            if not os.path.isdir(directory):
                raise usage.UsageError(f"--worker-directory {directory}: no such directory")
        self.worker_ids()
        logoptions.begin_log(self)

    def worker_ids(self) -> tuple[int | None, int | None]:
        """The ids of the workers' user and group; None for the server's."""
        user, group = self["worker-uid"], self["worker-gid"]
        twistd: Any = self.parent or {}
        if (user or group) and (os.getuid() != 0 or twistd.get("uid") or twistd.get("gid")):
            raise usage.UsageError("--worker-uid and --worker-gid: only for a server run as root")
        account = _account(user) if user else None
        uid = account.pw_uid if account else None
        gid = _group(group) if group else account.pw_gid if account else None
        return uid, gid

    def worker_environment(self) -> dict[str, str]:
        """The environment variables of the workers."""
        keep = self["worker-keep-env"]
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in NOT_FOR_WORKERS and (not keep or name in keep)
        }
        return {**kept, **self["worker-env"]}

    def parseOptions(self, options: Any = None) -> None:
        """Read the command line and its file. An error ends twistd, with one line on stderr.

        Twisted itself would print the whole help on stdout.
        """
        open_standard_streams()
        keep_from_children()
        try:
            self.file, words = merge(self, sys.argv[1:] if options is None else options)
            super().parseOptions(words)
        except BadFile as error:
            give_up(str(error))
        except usage.UsageError as error:
            text = str(error).removeprefix("Parameter type enforcement failed: ")
            if found := re.fullmatch("option --(.*) not a unique prefix", text):
                full = [f"--{name}" for name in sorted(self.docs) if name.startswith(found[1])]
                text = f"option --{found[1]} is not unique: it may be {', '.join(full)}"
            elif found := re.fullmatch("option (.*) not recognized", text):
                text = f"there is no option {found[1]}{meant(found[1][2:], self.docs, '--')}"
            elif found := re.fullmatch("option --(.*) requires argument", text):
                text = f"--{found[1]} needs a value{self._explained(found[1])}"
            said = self.file.blame(text)
            give_up(f"{said}{'' if said.endswith('?') else ';'} see twistd dangad --help")

    def _explained(self, option: str) -> str:
        """What the value of an option is, in brackets; empty if the option is not known."""
        doc = self.docs.get(option, "").rstrip(".")
        return f" ({doc[:1].lower()}{doc[1:]})" if doc else ""

    def opt_help(self) -> None:
        """Display this help and exit."""
        # Python ignores the signal. Without it, a reader that leaves would cause a traceback.
        before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        try:
            super().opt_help()
        finally:
            sys.stdout.flush()
            signal.signal(signal.SIGPIPE, before)


def _name_module(file: str) -> str:
    """The advice to name the module in a file, and the directory that it is imported from."""
    path = os.path.normpath(file.removesuffix(".py"))
    directory, name = ("", path) if not os.path.isabs(path) else os.path.split(path)
    if path.startswith(".."):
        directory, name = os.path.split(path)
    option = f"--worker-path {directory} " if directory else ""
    return f"name the module, not its file: write {option}--jobs {name.replace('/', '.')}"


def _account(user: str) -> struct_passwd:
    try:
        return getpwuid(int(user)) if user.isdigit() else getpwnam(user)
    except KeyError:
        raise usage.UsageError(f"--worker-uid {user}: there is no such user") from None


def _group(group: str) -> int:
    try:
        return int(group) if group.isdigit() else getgrnam(group).gr_gid
    except KeyError:
        raise usage.UsageError(f"--worker-gid {group}: there is no such group") from None


def give_up(message: str) -> NoReturn:
    """End the program with status 1 and one line on stderr."""
    text = f"twistd dangad: {message}"
    if sys.flags.inspect:  # PYTHONINSPECT: Python would show a traceback and a prompt
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
        os._exit(1)
    raise SystemExit(text)
