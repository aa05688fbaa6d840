"""The job types that dangad serves without ``--jobs``: files, prime numbers, sleep, echo.

Workers import them by ``--jobs dangad.examples``. Clients may import the commands, or declare their
own. The job types show how to write some, and the demonstration and the benchmarks call them. The
job types about files see only files below ``$DANGAD_EXAMPLES_ROOT``, by default the worker's
working directory: see :mod:`dangad.examples.confined`.

:mod:`dangad.examples.demo` is the demonstration, :mod:`dangad.examples.demoprocesses` its server
and its clients.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import os
import time
from operator import itemgetter

from twisted.protocols import amp

from dangad import Blob, Large, current_job, job
from dangad.examples.confined import (
    BadPath,
    Confined,
    Missing,
    NotADirectory,
    NotAFile,
    OutsideRoot,
    PermissionRefused,
    Unreadable,
    kind_of,
)

__all__ = [
    "BadPath",
    "BadRange",
    "Checksum",
    "CountPrimes",
    "Echo",
    "ListDirectory",
    "Missing",
    "NotADirectory",
    "NotAFile",
    "OutOfBounds",
    "OutsideRoot",
    "PathText",
    "PermissionRefused",
    "ReadFile",
    "Sleep",
    "Unreadable",
    "checksum",
    "count_primes",
    "echo",
    "list_directory",
    "read_file",
    "sleep",
]

READ_AT_MOST = 63 * 2**20
"""The most bytes in an answer of ReadFile; they fit into a box of the default ``--max-payload``."""

READ_CHUNK = 2**18
"""Bytes in each partial result of ReadFile: about as many as the buffer of a pipe or a socket."""

CHECKSUM_BLOCK = 2**20
"""Bytes that Checksum reads at a time."""

PRIMES_BELOW_AT_MOST = 10**10
"""The largest argument of CountPrimes: about a minute of work."""

PRIMES_SEGMENT = 2**18
"""Odd numbers that CountPrimes sieves at a time, a byte each: they fit into a CPU's cache."""

SLEEP_AT_MOST = 24 * 60 * 60.0
"""The most seconds of a Sleep."""

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_FIRST_TIME = datetime.datetime.min.replace(tzinfo=datetime.UTC)
_LAST_TIME = datetime.datetime.max.replace(tzinfo=datetime.UTC)


class BadRange(Exception):
    """The range of bytes begins or ends before the file, or is too long for one answer."""


class OutOfBounds(Exception):
    """A number is smaller or larger than the command allows; the text has the bounds."""


class PathText(amp.Unicode):
    """A path as text, UTF-8 on the wire. It can also hold names that are not UTF-8.

    Python represents other bytes of a name as lone surrogates (:func:`os.fsdecode`), which plain
    ``amp.Unicode`` cannot send. Here they travel as the original bytes. Every other path looks like
    ``amp.Unicode`` on the wire, and a client may declare it as that.
    """

    def toString(self, inObject: str) -> bytes:
        """The path as the bytes that the file system knows."""
        return inObject.encode("utf-8", "surrogateescape")

    def fromString(self, inString: bytes) -> str:
        """The path as text, with a lone surrogate for each byte that is not UTF-8."""
        return inString.decode("utf-8", "surrogateescape")


_PATH_ERRORS: dict[type[Exception], bytes] = {
    Missing: b"NOT_FOUND",
    NotADirectory: b"NOT_A_DIRECTORY",
    PermissionRefused: b"PERMISSION_DENIED",
    OutsideRoot: b"OUTSIDE_ROOT",
    BadPath: b"BAD_PATH",
    Unreadable: b"UNREADABLE",
}
_FILE_ERRORS: dict[type[Exception], bytes] = _PATH_ERRORS | {NotAFile: b"NOT_A_FILE"}


class ListDirectory(amp.Command):
    """List a directory: name, kind, size and modification time of each entry, sorted by name.

    Names are bytes, as the file system has them. Kinds are file, directory, symlink, fifo,
    socket, block device, character device, other; a symlink is described, not followed.
    """

    arguments = [(b"path", PathText())]
    response = [
        (
            b"entries",
            Large(
                amp.AmpList(
                    [
                        (b"name", amp.String()),
                        (b"kind", amp.Unicode()),
                        (b"size", amp.Integer()),
                        (b"modified", amp.DateTime()),
                    ]
                )
            ),
        )
    ]
    errors = _PATH_ERRORS


class ReadFile(amp.Command):
    """Read a file, or ``length`` bytes of it from ``offset`` on; also tell the size of the whole.

    What is asked for beyond the end of the file is left out. A client that asks for partial
    results (``_chunks``) gets the bytes as these, however many they are, with progress,
    and ``data`` is empty; one that does not gets at most 63 MiB at a time.
    """

    arguments = [
        (b"path", PathText()),
        (b"offset", amp.Integer(optional=True)),
        (b"length", amp.Integer(optional=True)),
    ]
    response = [(b"data", Blob()), (b"size", amp.Integer())]
    errors = _FILE_ERRORS | {BadRange: b"BAD_RANGE"}


class Checksum(amp.Command):
    """Compute the SHA-256 checksum of a file, in hexadecimal; reports progress in bytes."""

    arguments = [(b"path", PathText())]
    response = [(b"sha256", amp.Unicode()), (b"size", amp.Integer())]
    errors = _FILE_ERRORS


class CountPrimes(amp.Command):
    """Count the prime numbers below a number; keeps a CPU busy and reports progress."""

    arguments = [(b"below", amp.Integer())]
    response = [(b"count", amp.Integer())]
    errors = {OutOfBounds: b"OUT_OF_BOUNDS"}


class Sleep(amp.Command):
    """Sleep for some seconds, and answer how long it was."""

    arguments = [(b"seconds", amp.Float())]
    response = [(b"slept", amp.Float())]
    errors = {OutOfBounds: b"OUT_OF_BOUNDS"}


class Echo(amp.Command):
    """Answer the data unchanged."""

    arguments = [(b"data", Blob())]
    response = [(b"data", Blob())]


@job(ListDirectory, time_limit=60)
def list_directory(path: str) -> dict[str, object]:
    """The entries of the directory at ``path``, without entries that vanish during the call."""
    with _files().directory(path) as directory, os.scandir(directory) as found:
        entries = [entry for each in found if (entry := _entry(each)) is not None]
    entries.sort(key=itemgetter("name"))
    return {"entries": entries}


@job(ReadFile)
def read_file(path: str, offset: int | None = None, length: int | None = None) -> dict[str, object]:
    """Bytes of the file at ``path``; bytes appended after it was opened do not count.

    It has no time limit, since clients may take their time to read the chunks.
    """
    running = current_job()
    start = 0 if offset is None else offset
    if start < 0:
        raise BadRange(f"the offset is {start:,}: a file begins at 0")
    if length is not None and length < 0:
        raise BadRange(f"the length is {length:,}: it cannot be less than 0")
    with _files().file(path) as file:
        size = os.fstat(file.fileno()).st_size
        rest = max(size - start, 0)
        wanted = rest if length is None else min(length, rest)
        if wanted > READ_AT_MOST and not running.wants_chunks:
            raise BadRange(
                f"{wanted:,} bytes do not fit one answer: "
                f"read them in ranges of at most {READ_AT_MOST:,} bytes"
            )
        if not wanted:
            return {"data": b"", "size": size}
        file.seek(start)
        if not running.wants_chunks:
            return {"data": file.read(wanted), "size": size}
        progress = _Progress(wanted)
        left = wanted
        while left and (chunk := file.read(min(READ_CHUNK, left))):
            running.send(chunk)
            left -= len(chunk)
            progress.reached(wanted - left)
        return {"data": b"", "size": size}


@job(Checksum)
def checksum(path: str) -> dict[str, object]:
    """The checksum of the file at ``path``, and its number of bytes."""
    digest = hashlib.sha256()
    size = 0
    with _files().file(path) as file:
        progress = _Progress(os.fstat(file.fileno()).st_size)
        while block := file.read(CHECKSUM_BLOCK):
            digest.update(block)
            size += len(block)
            progress.reached(size)
    return {"sha256": digest.hexdigest(), "size": size}


@job(CountPrimes)
def count_primes(below: int) -> dict[str, object]:
    """How many prime numbers are less than ``below``."""
    if not 0 <= below <= PRIMES_BELOW_AT_MOST:
        raise OutOfBounds(f"below must be from 0 to {PRIMES_BELOW_AT_MOST:,}, not {below:,}")
    if below <= 2:
        return {"count": 0}
    # A sieve of Eratosthenes over the odd numbers, in segments. The byte at `index` stands for
    # the number 2 * index + 1, except that index 0 stands for 2, a prime number, and not for 1.
    divisors = _odd_primes_up_to(math.isqrt(below))
    end = below // 2
    progress = _Progress(end)
    count = 0
    for low in range(0, end, PRIMES_SEGMENT):
        high = min(low + PRIMES_SEGMENT, end)
        is_prime = bytearray(b"\1") * (high - low)
        for prime in divisors:
            square = prime * prime // 2
            if square >= high:
                break
            first = square - low if square >= low else (square - low) % prime
            is_prime[first::prime] = bytes(len(range(first, high - low, prime)))
        count += is_prime.count(1)
        progress.reached(high)
    return {"count": count}


@job(Sleep)
def sleep(seconds: float) -> dict[str, object]:
    """The seconds slept, by a steady clock."""
    if not 0 <= seconds <= SLEEP_AT_MOST:
        raise OutOfBounds(f"one can sleep for 0 to {SLEEP_AT_MOST:,.0f} seconds, not {seconds}")
    start = time.monotonic()
    time.sleep(seconds)
    return {"slept": time.monotonic() - start}


@job(Echo)
def echo(data: bytes) -> dict[str, object]:
    """The data."""
    return {"data": data}


class _Progress:
    """Tells the current job's progress, at each further whole percent.

    So a job tells it at most a hundred times, however often it calls :meth:`reached`.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        #: The percentage that was last told.
        self._percent = 0
        self._job = current_job()

    def reached(self, done: int) -> None:
        """Tell that ``done`` of the total is done; more than the total counts as a larger total."""
        self._total = max(self._total, done)
        percent = done * 100 // self._total
        if percent > self._percent:
            self._percent = percent
            self._job.progress(done, self._total)


def _files() -> Confined:
    """The files that the examples may see."""
    return Confined(os.environb.get(b"DANGAD_EXAMPLES_ROOT") or b".")


def _entry(found: os.DirEntry[str]) -> dict[str, object] | None:
    """One entry of a listing, or None if it is gone."""
    try:
        status = found.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return {
        "name": os.fsencode(found.name),
        "kind": kind_of(status.st_mode),
        "size": status.st_size,
        "modified": _time(status.st_mtime_ns),
    }


def _time(nanoseconds: int) -> datetime.datetime:
    """A file's time in UTC, or the nearest time that a datetime can hold."""
    try:
        return _EPOCH + datetime.timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return _LAST_TIME if nanoseconds > 0 else _FIRST_TIME


def _odd_primes_up_to(number: int) -> list[int]:
    """The odd prime numbers up to a small number."""
    return [
        n for n in range(3, number + 1, 2) if all(n % d for d in range(3, math.isqrt(n) + 1, 2))
    ]
