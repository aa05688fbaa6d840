"""Tells of changed Python files: :class:`FileWatch`, for ``dangad dev``.

It looks at the files every half second, or less often if they are very many. Where the package
:mod:`watchfiles` is installed, the kernel tells when to look, so that a change is seen at once.
What has changed is always found by the times and sizes of the files.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

INTERVAL = 0.5
"""Seconds between two looks at the files."""
SLOW_INTERVAL = 5.0
"""Seconds between two looks while the kernel tells of changes: it may forget one."""
SHARE = 20
"""How many times as long as the last look the time until the next one is, at least."""
SETTLE = 0.15
"""Seconds without a further change after which a change is told: editors write in several steps."""
MOST_ENTRIES = 20_000
"""The most entries of folders that a look goes through: those that are deeper are not watched."""
_SKIPPED = frozenset({"__pycache__", "node_modules"})
"""Names of folders without code that jobs import. Hidden ones are skipped, too."""


@dataclass(slots=True)
class Look:
    """What a look at the files has found."""

    files: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """For each Python file what changes with its contents."""
    folders: list[str] = field(default_factory=list)
    """The folders that were searched."""
    is_whole: bool = True
    """Whether there was nothing more to look at."""


def look_at(folders: Iterable[str], files: Iterable[str] = ()) -> Look:
    """The Python files now: `files`, and all in `folders`, the nearest first."""
    look = Look()
    for path in files:
        _note(look, path)
    waiting = deque(folders)
    seen: set[tuple[int, int]] = set()  # a link may lead around in a circle
    left = MOST_ENTRIES
    while waiting:
        folder = waiting.popleft()
        try:
            found = os.stat(folder)
            if (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
            with os.scandir(folder) as entries:
                look.folders.append(folder)
                for entry in entries:
                    if left <= 0:
                        look.is_whole = False
                        return look
                    left -= 1
                    if entry.name.endswith(".py"):
                        _note(look, entry.path)
                    elif _is_searched(entry):
                        waiting.append(entry.path)
        except OSError:  # it is gone, or nobody may read it
            continue
    return look


def _note(look: Look, path: str) -> None:
    try:
        found = os.stat(path)
    except OSError:  # removed, or a dangling link
        return
    look.files[path] = (found.st_mtime_ns, found.st_size, found.st_ino)


def _is_searched(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder with code: no virtual environment, for example."""
    if entry.name.startswith(".") or entry.name in _SKIPPED:
        return False
    if not entry.is_dir():
        return False
    return not os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))


class INotices(Protocol):
    """Tells when to look: see :class:`Notices`."""

    works: bool
    """Whether changes are told at all."""

    def watch(self, folders: Sequence[str]) -> None:
        """Tell of changes in these folders, and no others, from now on."""

    def stop(self) -> None:
        """Tell nothing any more."""


class FileWatch:
    """Calls back when Python files have changed, have come or have gone."""

    def __init__(
        self,
        clock: IReactorTime,
        folders: Sequence[str],
        files: Sequence[str],
        changed: Callable[[list[str]], object],
        notices: INotices | None = None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Remember what to watch.

        :param folders: the folders to search, with the folders in them.
        :param files: further files.
        :param changed: called with the changed paths, once no further one changes.
        :param notices: tells when to look, by :meth:`look`; None to look every half second.
        :param timer: measures how long a look takes.
        """
        self._clock = clock
        self._folders = folders
        self._files = files
        self._changed = changed
        self._notices = notices
        self._timer = timer
        #: The result of the last look.
        self._last = Look()
        #: Seconds that the last look took.
        self._took = 0.0
        #: The paths that have changed, and were not told yet.
        self._untold: set[str] = set()
        #: The call that looks next; None while nothing is watched.
        self._next: IDelayedCall | None = None

    def start(self) -> Look:
        """Begin to watch; return what there is to watch."""
        self._last = self._look()
        self._follow()
        self._next = self._clock.callLater(self._interval, self.look)
        return self._last

    @property
    def _interval(self) -> float:
        """Seconds until the next look, if nothing happens."""
        is_told = self._notices is not None and self._notices.works
        return max(SLOW_INTERVAL if is_told else INTERVAL, SHARE * self._took)

    def stop(self) -> None:
        """Watch no more."""
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None
        if self._notices is not None:
            self._notices.stop()

    def look(self) -> None:
        """Look whether something has changed, and tell of it if it has settled."""
        if self._next is None:
            return
        if self._next.active():
            self._next.cancel()
        before, self._last = self._last, self._look()
        changed = set(_differences(before.files, self._last.files))
        self._untold |= changed
        delay = SETTLE if changed else self._interval
        self._next = self._clock.callLater(delay, self.look)
        if self._last.folders != before.folders:
            self._follow()
        if self._untold and not changed:
            told, self._untold = sorted(self._untold), set()
            self._changed(told)

    def _look(self) -> Look:
        began = self._timer()
        look = look_at(self._folders, self._files)
        self._took = self._timer() - began
        return look

    def _follow(self) -> None:
        """Let the kernel tell of changes in the folders there are now."""
        if self._notices is not None:
            self._notices.watch(self._last.folders)


def _differences(
    before: dict[str, tuple[int, ...]], now: dict[str, tuple[int, ...]]
) -> Iterator[str]:
    for path in before.keys() | now.keys():
        if before.get(path) != now.get(path):
            yield path


class Notices:
    """Has the kernel tell of changes, by :mod:`watchfiles`, in a thread for each set of folders."""

    def __init__(self, reactor: Any, notify: Callable[..., Iterable[object]]) -> None:
        """:param notify: :func:`watchfiles.watch`."""
        self._reactor = reactor
        self._notify = notify
        #: Called in the reactor's thread when there may be a change.
        self.told: Callable[[], object] = lambda: None
        #: Ends the thread; None if there is none.
        self._end: threading.Event | None = None
        #: The thread that was started last.
        self.thread: threading.Thread | None = None
        self.works = True

    def watch(self, folders: Sequence[str]) -> None:
        """See :meth:`INotices.watch`."""
        self.stop()
        self._end = threading.Event()
        self.thread = threading.Thread(
            target=self._run, args=(tuple(folders), self._end), daemon=True
        )
        self.thread.start()

    def stop(self) -> None:
        """See :meth:`INotices.stop`."""
        if self._end is not None:
            self._end.set()
            self._end = None

    def _run(self, folders: tuple[str, ...], end: threading.Event) -> None:
        """Wait for changes; in a thread of its own."""
        try:
            for _ in self._notify(
                *folders,
                watch_filter=_may_be_code,
                debounce=50,
                step=20,
                stop_event=end,
                rust_timeout=500,
                recursive=False,  # the folders are chosen already: no virtual environment
                raise_interrupt=False,
            ):
                self._reactor.callFromThread(self.told)
        except OSError:  # a folder is gone, or the kernel watches too many already
            self.works = False
            self._reactor.callFromThread(self.told)


def _may_be_code(_: object, path: str) -> bool:
    """Whether a change of this path may matter: of a Python file, or of a folder."""
    name = os.path.basename(path)
    return name.endswith(".py") or "." not in name


def notices(reactor: Any) -> Notices | None:
    """What tells when to look; None if :mod:`watchfiles` is not installed."""
    try:
        from watchfiles import watch
    except ImportError:
        return None
    return Notices(reactor, watch)
