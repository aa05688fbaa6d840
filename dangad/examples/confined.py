"""Opens files and directories below one directory, the root, and nothing else.

:mod:`dangad.examples` uses it for every path that a client names. A path is walked by hand, one
name at a time. Each name is opened relative to the descriptor of the directory before it, and never
through a symlink: the target of a symlink is read as text and walked like the rest of the path. So
the kernel can never follow a name out of the root, even if somebody swaps files during the walk.
Hard links and mounts below the root belong to it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

PATH_AT_MOST = 4096
"""The most bytes in a path, as in the kernel (PATH_MAX)."""

SYMLINKS_AT_MOST = 40
"""The most symlinks in one walk, as in the kernel (MAXSYMLINKS); more count as a loop."""

DEPTH_AT_MOST = 256
"""The most directories below the root in one path. A walk holds a descriptor for each of them."""

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
}
"""The name of each kind of thing that a directory may hold, by :func:`stat.S_IFMT`."""

# O_PATH needs the right to pass through a directory, and not the right to list it.
_STEP = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# O_NONBLOCK: a fifo swapped in at the last moment must not make the worker wait for a writer.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class PathError(Exception):
    """A path could not be opened; the kinds below say why, the text says which path."""


class Missing(PathError):
    """Nothing is at the path."""


class NotADirectory(PathError):
    """The path, or a part of it that leads on, is not a directory."""


class NotAFile(PathError):
    """A directory, a fifo or a device is at the path: not a file with bytes to read."""


class PermissionRefused(PathError):
    """The worker's user may not read the file, or may not pass a directory on the way."""


class OutsideRoot(PathError):
    """The path leads out of the directory that the examples may see."""


class BadPath(PathError):
    """The path is not valid: too long, too deep, with a NUL byte, or with symlinks in a circle."""


class Unreadable(PathError):
    """The system failed to read the file; the text has the system's own words."""


_DECLARED = {
    errno.ENOENT: (Missing, "nothing is at {path}"),
    errno.ENOTDIR: (NotADirectory, "{path} is not a directory, or leads through what is not one"),
    errno.EISDIR: (NotAFile, "{path} is a directory, not a file"),
    errno.EACCES: (PermissionRefused, "the worker has no permission to read {path}"),
    errno.EPERM: (PermissionRefused, "the worker has no permission to read {path}"),
    errno.ENAMETOOLONG: (BadPath, "{path} has a part that is too long for a name"),
    errno.ELOOP: (BadPath, "{path} leads through too many symlinks, or to one just put there"),
}
"""The error and the text for each errno that says something about the path."""


def kind_of(mode: int) -> str:
    """The word of :data:`KINDS` for a file's mode, or "other"."""
    return KINDS.get(stat.S_IFMT(mode), "other")


class Confined:
    """The files and directories below ``root``, opened by the paths that clients name.

    A path is relative to the root, or absolute and begins with the root's own path; the empty path
    is the root. It is text as :func:`os.fsdecode` makes it, with lone surrogates for bytes that are
    not UTF-8. Everything wrong with a path becomes a :class:`PathError`. So does an ``OSError``
    inside the ``with``, while the opened file is being read.
    """

    def __init__(self, root: bytes) -> None:
        self._root = root

    @contextmanager
    def directory(self, path: str) -> Iterator[int]:
        """Yield a descriptor of the directory at ``path``, closed at the end of the ``with``."""
        with _declared(path), self._place(path) as (parent, name):
            descriptor = os.open(name, _LIST, dir_fd=parent)
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    @contextmanager
    def file(self, path: str) -> Iterator[BufferedReader]:
        """Yield the regular file at ``path``, closed at the end of the ``with``."""
        with _declared(path), self._place(path) as (parent, name):
            # Checked before it is opened, since opening a device or a fifo may already have an
            # effect; and afterwards, since the file may have been swapped in between.
            _require_regular(path, os.stat(name, dir_fd=parent, follow_symlinks=False))
            with open(name, "rb", opener=lambda name, _: os.open(name, _READ, dir_fd=parent)) as f:
                _require_regular(path, os.fstat(f.fileno()))
                yield f

    @contextmanager
    def _place(self, path: str) -> Iterator[tuple[int, bytes]]:
        """Yield the end of ``path``: a directory's descriptor, and a name in this directory."""
        name = path.encode("utf-8", "surrogateescape")
        if len(name) > PATH_AT_MOST:
            raise BadPath(f"{_shown(path)} is longer than {PATH_AT_MOST:,} bytes")
        if b"\0" in name:
            raise BadPath(f"{_shown(path)} has a NUL byte in it")
        passed = [self._open_root()]
        try:
            last = self._walk(path, name, passed)
            yield passed[-1], last
        finally:
            for descriptor in passed:
                os.close(descriptor)

    def _open_root(self) -> int:
        try:
            return os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise Unreadable(
                f"the directory that the examples may see cannot be opened: {error.strerror}"
            ) from error

    def _walk(self, path: str, name: bytes, passed: list[int]) -> bytes:
        """Walk all but the last part of ``name``. Returns the last part.

        ``passed`` has the descriptors from the root to the present directory of the walk; at the
        end this is the directory of the last part. The last part is neither a symlink nor "..". It
        is "." if the path leads to the directory itself.
        """
        left = deque(self._parts(path, name))
        symlinks = 0
        while left:
            part = left.popleft()
            if part == b".":
                continue
            if part == b"..":
                if len(passed) == 1:
                    raise _outside(path)
                os.close(passed.pop())
                continue
            if stat.S_ISLNK(os.stat(part, dir_fd=passed[-1], follow_symlinks=False).st_mode):
                symlinks += 1
                if symlinks > SYMLINKS_AT_MOST:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(part, dir_fd=passed[-1])
                left.extendleft(reversed(self._parts(path, target)))
                if target.startswith(b"/"):
                    while len(passed) > 1:
                        os.close(passed.pop())
                continue
            if not left:
                return part
            if len(passed) > DEPTH_AT_MOST:
                raise BadPath(f"{_shown(path)} is more than {DEPTH_AT_MOST} directories deep")
            passed.append(os.open(part, _STEP, dir_fd=passed[-1]))
        return b"."

    def _parts(self, path: str, name: bytes) -> list[bytes]:
        """The names in ``name``, from the root if it is absolute, else from the present directory.

        A slash at the end becomes a last ".": the part before it must be a directory.
        """
        parts = [part for part in name.split(b"/") if part]
        if name.endswith(b"/"):
            parts.append(b".")
        if not name.startswith(b"/"):
            return parts
        for spelling in {os.path.abspath(self._root), os.path.realpath(self._root)}:
            root = [part for part in spelling.split(b"/") if part]
            if parts[: len(root)] == root:
                return parts[len(root) :]
        raise _outside(path)


@contextmanager
def _declared(path: str) -> Iterator[None]:
    """Turn an ``OSError`` about ``path`` into a :class:`PathError` that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno in _DECLARED:
            kind, text = _DECLARED[error.errno]
            raise kind(text.format(path=_shown(path))) from error
        raise Unreadable(f"{_shown(path)} cannot be read: {error.strerror}") from error


def _require_regular(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotAFile(f"{_shown(path)} is not a file but a {kind_of(status.st_mode)}")


def _outside(path: str) -> OutsideRoot:
    return OutsideRoot(f"{_shown(path)} leads outside the directory that the examples may see")


def _shown(path: str) -> str:
    """``path`` in quotes, printable whatever is in it, shortened to fit on a line or two."""
    quoted = repr(path)
    return quoted if len(quoted) <= 200 else f"{quoted[:120]}...{quoted[-60:]}"
